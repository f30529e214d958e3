"""The prefill side: drives the connector's prefill worker as a model runner would, on the simulated device."""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable

import msgspec
import numpy as np
from layercast_connector import metrics
from layercast_connector.parts import WorkerParts
from layercast_connector.plan.runs import Descriptors
from layercast_connector.prefill.steps import Chunk, NewPush, PrefillStep
from layercast_connector.prefill.worker import PrefillWorker
from layercast_connector.protocol import messages as m
from layercast_connector.settings import parse_settings
from layercast_connector.sync.gate import LayerGate
from layercast_connector.transport.mooncake import MooncakeTransport

from bench.overlap.memory import Blocks, allocate
from bench.overlap.receiver import COMPATIBILITY
from bench.overlap.scenario import MARKER, Expect, Landed, Result, Scenario, Shape, value_of
from bench.overlap.sim import SimStream

TOKENS_PER_BLOCK = 128


class MergedGate(LayerGate):
    """vllm-ascend PR #4478 as merged: `save_kv_layer` hands the layer over, and only the next hook waits for it."""

    def stage(self, layer: str) -> None:
        """Hands over at once."""
        index = self._index.get(layer)
        if self._active and index is not None:
            self._pending = self._stream.record()
            self._hand_over(index, None)

    def reach(self, layer: str) -> None:
        """Waits for the layer that was handed over before."""
        if self._active and self._index[layer]:
            self._pending.wait()


class SharedTransport:
    """Mooncake once per process: every run's worker registers the same memory."""

    def __init__(self, transport: MooncakeTransport) -> None:
        self._transport = transport
        self._registered = False

    @property
    def session(self) -> str:
        """See `Transport`."""
        return self._transport.session

    def register(self, regions: Iterable[m.Region]) -> None:
        """See `Transport`."""
        if not self._registered:
            self._transport.register(regions)
            self._registered = True

    def write(self, session: str, batch: Descriptors) -> None:
        """See `Transport`."""
        self._transport.write(session, batch)

    def close(self) -> None:
        """The memory stays registered for the next run."""


class Bench:
    """One shape; runs scenarios one after the other against one receiver."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._layers, self._regions = allocate(shape)
        self._transport = SharedTransport(MooncakeTransport("127.0.0.1", "tcp", 30))
        command = [sys.executable, "-m", "bench.overlap.receiver", msgspec.json.encode(shape).decode()]
        self._receiver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._place = msgspec.json.decode(self._line(), type=m.Worker)
        self._value = 0
        # Calibration: a push with nothing to hide behind takes the transfer's own time.
        self._layer_seconds = 0.001
        alone = [self.run(Scenario("sender_event", ratio=1e6)) for _ in range(4)][1:]
        self._layer_seconds = statistics.median(one.ttft for one in alone) / shape.layers

    def run(self, scenario: Scenario) -> Result:
        """One measured prefill."""
        self._value += 53
        stream = SimStream()
        worker = self._worker(scenario, stream)
        try:
            return self._measure(scenario, stream, worker)
        finally:
            worker.close()

    def close(self) -> None:
        """Ends the receiver."""
        self._receiver.communicate(timeout=30)

    def _worker(self, scenario: Scenario, stream: SimStream) -> PrefillWorker:
        name, _, lookahead = scenario.strategy.partition("/")
        sync = "relocated" if name == "pr_as_merged" else name
        extra = {"role": "prefill", "layer_sync": sync, "lookahead": int(lookahead or 0)}
        parts = WorkerParts(
            parse_settings(extra), 0, self._regions, self._transport, stream, COMPATIBILITY,
            secrets.token_hex(8), b"", metrics.Tally(),
        )  # fmt: skip
        worker = PrefillWorker(parts)
        if name == "pr_as_merged":
            gate = worker._gate
            worker._gate = MergedGate(list(gate._index), stream, worker._release, gate._strategy, 0)
        return worker

    def _measure(self, scenario: Scenario, stream: SimStream, worker: PrefillWorker) -> Result:
        for layer in self._layers:
            layer.fill(MARKER)
        attempts = [secrets.token_bytes(16) for _ in range(scenario.requests)]
        blocks = np.array_split(np.arange(self.shape.blocks), scenario.requests)
        self._say(Expect([a.hex() for a in attempts], [ids.tolist() for ids in blocks], self._value))
        assert self._line() == "ready"
        start = time.monotonic()
        for step, computed in self._steps(scenario, attempts, blocks):
            self._forward(worker, stream, step, computed, scenario)
        landed = msgspec.json.decode(self._line(), type=Landed)
        kernels = stream.occupancy.kernels
        return Result(
            scenario,
            layers=self.shape.layers,
            ttft=landed.at - start,
            exposed=landed.at - kernels[-1][1],
            one_layer=self._layer_seconds / scenario.chunks,
            idle_share=stream.occupancy.idle_share,
            early_layers=landed.early_layers,
            failed=landed.failed,
        )

    def _steps(
        self,
        scenario: Scenario,
        attempts: list[bytes],
        blocks: list[Blocks],
    ) -> Iterable[tuple[PrefillStep, Blocks]]:
        """Each step's news, and the blocks that it computes."""
        for number in range(scenario.chunks):
            step, computed = PrefillStep(), []
            for attempt, ids in zip(attempts, blocks, strict=True):
                if number == 0:
                    tokens = ids.size * TOKENS_PER_BLOCK
                    request = m.PrefillRequest(attempt, COMPATIBILITY, [self._place], 0, ids.size, tokens)
                    step.new.append(NewPush(attempt.hex(), request))
                part = np.array_split(np.arange(ids.size), scenario.chunks)[number]
                last = number == scenario.chunks - 1
                step.chunks.append(Chunk(attempt, int(part[0]), ids[part].tolist(), last))
                computed.append(ids[part])
            yield step, np.concatenate(computed)

    def _forward(
        self,
        worker: PrefillWorker,
        stream: SimStream,
        step: PrefillStep,
        computed: Blocks,
        scenario: Scenario,
    ) -> None:
        """One step: vLLM's hooks around each layer's kernel, and the wait for the sampled token at its end."""
        seconds = self._layer_seconds / scenario.chunks / scenario.ratio
        worker.start_step(step)
        for index, region in enumerate(self._regions):
            worker.reach_layer(region.layer)
            layer, value = self._layers[index], value_of(self._value, index)
            stream.launch(seconds, lambda layer=layer, value=value: layer.__setitem__(computed, value))  # type: ignore[misc]
            worker.save_layer(region.layer)
        worker.end_step()
        stream.synchronize()
        worker.take_finished(set())

    def _say(self, expect: Expect) -> None:
        assert self._receiver.stdin is not None
        self._receiver.stdin.write(msgspec.json.encode(expect).decode() + "\n")
        self._receiver.stdin.flush()

    def _line(self) -> str:
        assert self._receiver.stdout is not None
        line = self._receiver.stdout.readline().strip()
        if not line:
            raise RuntimeError("the receiver ended")
        return line


def main() -> None:
    shape = msgspec.json.decode(sys.argv[1], type=Shape)
    bench = Bench(shape)
    for scenario in msgspec.json.decode(sys.argv[2], type=list[Scenario]):
        print(msgspec.json.encode(bench.run(scenario)).decode(), flush=True)
    bench.close()


if __name__ == "__main__":
    main()
