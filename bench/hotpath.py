"""What a layer costs the host: on the model's thread (stage and release) and on the sender's (plan, argument lists).

The transport writes nothing; it only makes the lists that Mooncake takes. `per_block` is the same planning done by a
Python loop over blocks, for the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from layercast_connector.plan.runs import Int, RegionPair, Runs, describe, find_runs, join_runs
from layercast_connector.sync.device import CpuStream
from layercast_connector.sync.gate import LayerGate, Strategy

from bench.report import Figure, arguments, write

BLOCK_BYTES = 16 * 1024


def scattered(requests: int, blocks: int) -> list[tuple[Int, Int]]:
    """(source, target) block ids of each request, in runs of 1 to 8 neighbours as an aged block pool gives them."""
    random = np.random.default_rng(0)
    starts = random.permutation(requests * blocks // 8) * 8
    ids = (starts[:, None] + np.arange(8)).reshape(-1)
    cuts = random.random(ids.size) < 0.3
    source = ids + np.cumsum(cuts)
    return [(part, part + 7) for part in np.array_split(source, requests)]


def plan_layer(runs: list[Runs], pair: RegionPair) -> int:
    """One layer's batch, as the sender makes it; returns how many descriptors it has."""
    batch = describe(join_runs(runs), pair)
    return len(batch.src.tolist() + batch.dst.tolist() + batch.length.tolist()) // 3


def plan_per_block(pairs: list[tuple[Int, Int]], pair: RegionPair) -> int:
    """The same by a loop over blocks."""
    source, target, length = [], [], []
    for src, dst in pairs:
        for a, b in zip(src.tolist(), dst.tolist(), strict=True):
            source.append(pair.src_base + a * pair.src_stride)
            target.append(pair.dst_base + b * pair.dst_stride)
            length.append(pair.block_bytes)
    return len(source)


def gate_cost(layers: int) -> float:
    """Seconds per layer that the hooks take on the model's thread."""
    names = [f"layer.{index}" for index in range(layers)]
    gate = LayerGate(names, CpuStream(), lambda _layer, _event: None, Strategy.RELOCATED, lookahead=1)

    def step() -> None:
        gate.begin()
        for name in names:
            gate.reach(name)
            gate.stage(name)
        gate.end()

    return median(step, 200) / layers


def median(call: Callable[[], object], times: int) -> float:
    """Median seconds of a call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    options = arguments(__doc__ or "")
    requests, blocks = (64, 256) if options.quick else (256, 1000)
    pairs = scattered(requests, blocks)
    pair = RegionPair(1 << 40, BLOCK_BYTES, 1 << 41, BLOCK_BYTES, BLOCK_BYTES)
    runs = [find_runs(src, dst) for src, dst in pairs]
    layer = median(lambda: plan_layer(runs, pair), 20)
    slow = median(lambda: plan_per_block(pairs, pair), 5)
    total = requests * blocks
    write(
        options.json,
        {
            "gate_us_per_layer_32": Figure(gate_cost(32) * 1e6, "us"),
            "gate_us_per_layer_128": Figure(gate_cost(128) * 1e6, "us", "as for 32 layers"),
            "host_us_per_layer": Figure(layer * 1e6, "us", "<= 100"),
            "host_ns_per_block": Figure(layer / total * 1e9, "ns"),
            "descriptors_per_block": Figure(plan_layer(runs, pair) / total, "1"),
            "per_block_loop_over_ours": Figure(slow / layer, "x"),
        },
    )


if __name__ == "__main__":
    main()
