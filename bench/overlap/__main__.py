"""`python -m bench.overlap [--quick] --json FILE`: the driver; the two sides run in the engine's environment."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import msgspec

from bench.overlap.scenario import Result, Scenario, Shape
from bench.report import Figure, arguments, write

ENGINE_PYTHON = Path(os.environ.get("LAYERCAST_ENGINE_PYTHON", ".venv-engine/bin/python"))
OURS = ("relocated/0", "relocated/1", "relocated/2", "sender_event")
STRATEGIES = (*OURS, "sender_stream", "pr_as_merged")
DEFAULT = "relocated/1"
BLOCKS, LAYER_BYTES = 64, 8 * 2**20
REPEATS = 3


def scenarios(quick: bool) -> list[Scenario]:
    """All strategies beside each other, repeated."""
    ratios = (0.9, 1.0) if quick else (0.2, 0.5, 0.9, 1.0, 1.5)
    loads = ((1, 1),) if quick else ((1, 1), (4, 1), (1, 16), (4, 16))
    rows = product(range(1 if quick else REPEATS), ratios, loads, STRATEGIES)
    return [Scenario(strategy, ratio, chunks, requests) for _, ratio, (chunks, requests), strategy in rows]


def measure(shape: Shape, rows: list[Scenario]) -> list[Result]:
    """Runs them in one pair of processes, printing each."""
    command = [str(ENGINE_PYTHON), "-m", "bench.overlap.sender"]
    command += [msgspec.json.encode(shape).decode(), msgspec.json.encode(rows).decode()]
    results = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            results.append(msgspec.json.decode(line, type=Result))
            print(_row(results[-1]), flush=True)
    if process.returncode != 0 or len(results) != len(rows):
        raise RuntimeError(f"the sender ended with {process.returncode} after {len(results)} of {len(rows)} runs")
    return results


def _row(one: Result) -> str:
    return (
        f"L={one.layers} r={one.scenario.ratio:<4} chunks={one.scenario.chunks} req={one.scenario.requests:<3}"
        f"{one.scenario.strategy:14} ttft {one.ttft * 1e3:7.1f} ms  exposed {one.exposed * 1e3:7.2f} ms = "
        f"{one.exposed / one.one_layer:6.2f} layers  idle {one.idle_share:6.2%}  early {one.early_layers} {one.failed}"
    )


def figures(results: list[Result]) -> dict[str, Figure]:
    """The numbers with goals; medians over repeats, the worst over scenarios."""
    ours = [one for one in results if one.scenario.strategy in OURS]
    hidden = [r for r in results if r.scenario.strategy == DEFAULT and r.scenario.ratio <= 0.9]
    single = [r for r in results if r.scenario.ratio == 1.0 and r.scenario.chunks == r.scenario.requests == 1]
    default = [r for r in results if r.scenario.strategy == DEFAULT]
    early_ours = sum(one.early_layers for one in ours)
    early_merged = sum(one.early_layers for one in results if one.scenario.strategy == "pr_as_merged")
    compared = (*OURS, "sender_stream")  # the merged form's answers are wrong, so its times mean nothing
    ttft = {name: statistics.median(r.ttft for r in single if r.scenario.strategy == name) for name in compared}
    return {
        "exposed_over_one_layer": Figure(_worst((r.scenario, r.exposed / r.one_layer) for r in hidden), "1", "<= 1.05"),
        "ttft_vs_sender_stream": Figure(ttft[DEFAULT] / ttft["sender_stream"], "1", "<= 0.6"),
        "ttft_limit_vs_sender_stream": Figure((1 + 1 / min(r.layers for r in results)) / 2, "1"),
        "device_idle_share": Figure(_worst((r.scenario, r.idle_share) for r in default), "1", "<= 0.02"),
        "early_reads_ours": Figure(early_ours, "layers", "0"),
        "early_reads_pr_as_merged": Figure(early_merged, "layers", "> 0"),
    } | {f"ttft_vs_sender_stream_{name}": Figure(ttft[name] / ttft["sender_stream"], "1") for name in OURS}


def _worst(values: Iterable[tuple[Scenario, float]]) -> float:
    """The largest of the scenarios' medians."""
    rows: dict[Scenario, list[float]] = {}
    for scenario, value in values:
        rows.setdefault(scenario, []).append(value)
    return max(statistics.median(repeats) for repeats in rows.values())


def main() -> None:
    options = arguments(__doc__ or "")
    results: list[Result] = []
    for layers in (32,) if options.quick else (32, 61):
        results += measure(Shape(layers, BLOCKS, LAYER_BYTES // BLOCKS), scenarios(options.quick))
    write(options.json, figures(results))


if __name__ == "__main__":
    main()
