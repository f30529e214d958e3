"""A prefill worker and a decode worker in one process, over real control sockets on loopback."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from layercast_connector import metrics
from layercast_connector.decode.steps import DecodeStep, Receive, Stop
from layercast_connector.decode.worker import DecodeWorker
from layercast_connector.parts import WorkerParts
from layercast_connector.prefill.steps import Chunk, NewPush, PrefillStep
from layercast_connector.prefill.worker import PrefillWorker
from layercast_connector.protocol import messages as m
from layercast_connector.settings import Timeouts, parse_settings
from layercast_connector.sync.device import CpuStream

from tests.connector.component.wire import KvMemory, Wire, WireTransport
from tests.ports import free_ports

CALM = Timeouts(dispatch=10.0, first_layer=40.0, progress=40.0, done=40.0, lease=10.0, transfer=10.0)
"""Waits that no test reaches: an outcome under these came about without a timeout."""
HASTY = Timeouts(dispatch=10.0, first_layer=40.0, progress=0.4, done=0.4, lease=0.4, transfer=1.0)
"""Waits that a test about running out of time can sit through."""
SECRET, KEY = b"shared", "model=tiny"

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attempt:
    """One request's blocks on both sides."""

    req_id: str
    request: m.PrefillRequest
    src: Int
    dst: Int

    @property
    def nonce(self) -> bytes:
        return self.request.attempt


@dataclass
class Ended:
    """All that the decode worker said about one request."""

    failure: str | None
    bad_blocks: set[int]
    report: m.Report | None


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Polls a condition; the bound only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        pause.wait(0.002)


def parts(role: str, memory: KvMemory, wire: Wire, **changes: Any) -> WorkerParts:
    waits = changes.pop("waits", CALM)
    extra = {
        "role": role,
        "control_port": changes.pop("control_port", 1),
        "advertise_host": "127.0.0.1",
        "prefill_pods": {"dns": "unused"} if role == "decode" else {},
        "timeouts": {name: getattr(waits, name) for name in waits.__struct_fields__},
    } | changes.pop("settings", {})
    incarnation = changes.pop("incarnation", f"{role}-{secrets.token_hex(4)}")
    values: dict[str, Any] = {
        "settings": parse_settings(extra),
        "rank": 0,
        "regions": memory.regions(),
        "transport": WireTransport(wire, f"session-of-{incarnation}"),
        "stream": CpuStream(),
        "compatibility": KEY,
        "incarnation": incarnation,
        "secret": SECRET,
        "tally": metrics.Tally(),
    }
    return WorkerParts(**(values | changes))


class Decode:
    """A decode worker, and what it has said so far."""

    def __init__(self, wire: Wire, layers: int = 4, blocks: int = 64, **changes: Any) -> None:
        self.memory = KvMemory(layers, blocks)
        for tensor in self.memory.tensors:
            tensor[:] = 255
        self.port = changes.setdefault("control_port", free_ports(2)) + 1
        self.parts = parts("decode", self.memory, wire, **changes)
        self.worker = DecodeWorker(self.parts)
        self.ended: dict[str, list[Ended]] = {}
        self.counts: dict[str, Any] = {}

    def expect(self, *attempts: Attempt) -> None:
        self.worker.start_step(DecodeStep(receive=[Receive(a.req_id, a.nonce, a.dst.tolist()) for a in attempts]))

    def stop(self, attempt: Attempt, reason: str = "gone", *, aborted: bool = False) -> None:
        self.worker.start_step(DecodeStep(stop=[Stop(attempt.nonce, reason, aborted)]))

    def step(self) -> None:
        """What vLLM does each step: take what ended."""
        outcome = self.worker.finish_step()
        for req_id in outcome.finished:
            ended = Ended(outcome.failures.get(req_id), outcome.bad_blocks, outcome.reports.get(req_id))
            self.ended.setdefault(req_id, []).append(ended)

    def outcome(self, attempt: Attempt) -> Ended:
        """The attempt's outcome; waits for it, and checks that there is one only."""

        def has_ended() -> bool:
            self.step()
            return attempt.req_id in self.ended

        until(has_ended, f"{attempt.req_id} ends")
        assert len(self.ended[attempt.req_id]) == 1
        return self.ended[attempt.req_id][0]

    def count(self, metric: metrics.Metric, label: str = "") -> int:
        self.counts = metrics.merge(self.counts, self.parts.tally.take())
        return int(self.counts.get(f"{metric.name}|{label}", 0))

    def kv(self, attempt: Attempt) -> npt.NDArray[np.uint8]:
        return self.memory.blocks(attempt.dst)

    def close(self) -> None:
        self.worker.close()


@dataclass
class Prefill:
    """A prefill worker, and a model whose layers write each block's own bytes."""

    wire: Wire
    layers: int = 4
    blocks: int = 64
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = KvMemory(self.layers, self.blocks)
        self.parts = parts("prefill", self.memory, self.wire, **self.changes)
        self.worker = PrefillWorker(self.parts)
        self.freed: set[str] = set()
        self._rng = np.random.default_rng(7)

    def step(self, *chunks: tuple[Attempt, int, int], new: Sequence[Attempt] = (), **news: Any) -> None:
        """One engine step: announces `new`, computes the blocks [start, stop) of each chunk, and calls the hooks."""
        step = PrefillStep(
            new=[NewPush(a.req_id, a.request) for a in new],
            chunks=[
                Chunk(a.nonce, start + a.request.first_block, a.src[start:stop].tolist(), stop == a.src.size)
                for a, start, stop in chunks
            ],
            **news,
        )
        self.worker.preempt(step)
        self.worker.start_step(step)
        for index, name in enumerate(self.memory.names):
            self.worker.reach_layer(name)
            for attempt, start, stop in chunks:
                self._compute(index, attempt.src[start:stop])
            self.worker.save_layer(name)
        self.worker.end_step()

    def push(self, attempt: Attempt, chunk: int = 1000) -> None:
        """The whole prompt, `chunk` blocks a step."""
        for start in range(0, attempt.src.size, chunk):
            stop = min(start + chunk, attempt.src.size)
            self.step((attempt, start, stop), new=[attempt] if start == 0 else [])

    def free(self, *attempts: Attempt) -> None:
        """vLLM has finished the requests; waits until their blocks may be freed."""
        wanted = {attempt.req_id for attempt in attempts}
        self.freed |= self.worker.take_finished(wanted)

        def all_freed() -> bool:
            self.freed |= self.worker.take_finished(set())
            return wanted <= self.freed

        until(all_freed, f"{sorted(wanted)} are freed")

    def kv(self, attempt: Attempt) -> npt.NDArray[np.uint8]:
        return self.memory.blocks(attempt.src)

    def close(self) -> None:
        self.worker.close()

    def _compute(self, layer: int, blocks: Int) -> None:
        stream = self.parts.stream
        for tensor in self.memory.layer(layer):
            fresh = self._rng.integers(0, 255, (blocks.size, tensor.shape[1]), np.uint8)
            if isinstance(stream, CpuStream):
                tensor[blocks] = fresh
            else:
                stream.queue(lambda tensor=tensor, fresh=fresh: tensor.__setitem__(blocks, fresh))  # type: ignore[attr-defined]


class Rig:
    """One of each, and attempts between them."""

    def __init__(
        self,
        layers: int = 4,
        blocks: int = 64,
        waits: Timeouts = CALM,
        decode: dict[str, Any] | None = None,
        **prefill: Any,
    ) -> None:
        self.wire = Wire()
        self.decode = Decode(self.wire, layers, blocks, waits=waits, **(decode or {}))
        self.prefill = Prefill(self.wire, layers, blocks, {"waits": waits} | prefill)
        shuffle = np.random.default_rng(3)
        self._free = [shuffle.permutation(blocks).astype(np.int64) for _ in range(2)]
        self._made = 0

    def attempt(self, blocks: int = 4, first_block: int = 0, **changes: Any) -> Attempt:
        """An attempt over random blocks on both sides, disjoint from those of other attempts of this rig."""
        self._made += 1
        src, dst = (free[:blocks] for free in self._free)
        assert src.size == blocks, "the rig has no blocks left"
        self._free = [free[blocks:] for free in self._free]
        place = changes.pop("place", self.decode.worker.place)
        request = m.PrefillRequest(secrets.token_bytes(16), KEY, [place], first_block, blocks, blocks * 16)
        return Attempt(changes.pop("req_id", f"request-{self._made}"), request, src, dst)

    def close(self) -> None:
        self.prefill.close()
        self.decode.close()

    def same(self, attempt: Attempt) -> bool:
        return bool(np.array_equal(self.prefill.kv(attempt), self.decode.kv(attempt)))
