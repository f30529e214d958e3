"""KV memory and a transport in one process: descriptors become memmoves, and a test says how they go wrong."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from layercast_connector.plan.runs import Descriptors
from layercast_connector.protocol.messages import Region
from layercast_connector.transport.base import TransferError


class KvMemory:
    """One side's KV cache: for each layer two tensors (K and V) of [blocks, block bytes]."""

    def __init__(self, layers: int, blocks: int, block_bytes: int = 64, parts: int = 2) -> None:
        self.names = [f"model.layers.{index}.attn" for index in range(layers)]
        self.parts = parts
        self.tensors = [np.zeros((blocks, block_bytes), np.uint8) for _ in range(layers * parts)]

    def regions(self) -> list[Region]:
        return [
            Region(
                self.names[index // self.parts],
                index % self.parts,
                int(t.ctypes.data),
                t.strides[0],
                t.shape[1],
                len(t),
            )
            for index, t in enumerate(self.tensors)
        ]

    def layer(self, index: int) -> list[npt.NDArray[np.uint8]]:
        return self.tensors[index * self.parts : (index + 1) * self.parts]

    def blocks(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Every tensor's bytes of these blocks, shape (regions, n, block bytes)."""
        return np.stack([tensor[ids] for tensor in self.tensors])


@dataclass
class Write:
    """One batch as the transport saw it: when it began, and on which thread."""

    batch: Descriptors
    started: float
    thread: str


@dataclass
class Wire:
    """What lies between the transports of a test. `deliver` moves a batch's bytes at once; replace it to do worse."""

    extents: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    held: list[Descriptors] = field(default_factory=list)
    behave: Callable[[Descriptors], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, session: str, batch: Descriptors) -> None:
        self._check(session, batch)
        with self.lock:
            self.writes.append(Write(batch, time.monotonic(), threading.current_thread().name))
        (self.behave or move)(batch)

    def hold(self, batch: Descriptors) -> None:
        """The write returns, its bytes stay under way until `land`."""
        with self.lock:
            self.held.append(batch)

    def land(self, batches: int | None = None) -> None:
        """What was under way arrives, oldest first."""
        with self.lock:
            count = len(self.held) if batches is None else batches
            landing, self.held = self.held[:count], self.held[count:]
        for batch in landing:
            move(batch)

    def _check(self, session: str, batch: Descriptors) -> None:
        for dst, length in zip(batch.dst.tolist(), batch.length.tolist(), strict=True):
            if not any(base <= dst and dst + length <= base + size for base, size in self.extents[session]):
                raise AssertionError("a write outside the peer's registered memory")


def move(batch: Descriptors) -> None:
    for src, dst, length in zip(batch.src.tolist(), batch.dst.tolist(), batch.length.tolist(), strict=True):
        ctypes.memmove(dst, src, length)


class Fail:
    """Fails the writes for which `when` says so, and lets the others through."""

    def __init__(self, when: Callable[[Descriptors], bool] = lambda _: True) -> None:
        self._when = when

    def __call__(self, batch: Descriptors) -> None:
        if self._when(batch):
            raise TransferError("the wire was told to fail")
        move(batch)


class Hang:
    """Writes begin and don't return before `release`; `hanging` is set when the first one does."""

    def __init__(self) -> None:
        self.hanging = threading.Event()
        self._go = threading.Event()

    def __call__(self, batch: Descriptors) -> None:
        self.hanging.set()
        assert self._go.wait(timeout=30)
        move(batch)

    def release(self) -> None:
        self._go.set()


class WireTransport:
    """A `Transport` on a wire."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name
        self.closed = False

    @property
    def session(self) -> str:
        return self._name

    def register(self, regions: Iterable[Region]) -> None:
        self._wire.extents[self._name] = [(r.base, r.stride * (r.num_blocks - 1) + r.block_bytes) for r in regions]

    def write(self, session: str, batch: Descriptors) -> None:
        assert not self.closed, "a write after close: the memory may be gone"
        self._wire.write(session, batch)

    def close(self) -> None:
        self.closed = True
