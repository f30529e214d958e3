"""A stream whose work completes only when someone waits for it, or when the adversary says so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from layercast_connector.sync.device import WholeStream

Kernel = Callable[[], None]


class SimStream:
    """In order, without threads: `complete` is the adversary's hand, waiting is everyone else's."""

    def __init__(self) -> None:
        self._kernels: list[Kernel] = []
        self._done = 0

    def queue(self, kernel: Kernel) -> None:
        self._kernels.append(kernel)

    @property
    def pending(self) -> int:
        return len(self._kernels) - self._done

    def complete(self, kernels: int) -> None:
        """Runs up to that many of the queued kernels."""
        for _ in range(min(kernels, self.pending)):
            self._kernels[self._done]()
            self._done += 1

    def record(self) -> SimEvent:
        return SimEvent(self, len(self._kernels))

    def whole(self) -> WholeStream:
        return WholeStream(self.synchronize)

    def synchronize(self) -> None:
        self.complete(self.pending)

    def reached(self, position: int) -> bool:
        return self._done >= position

    def reach(self, position: int) -> None:
        self.complete(max(0, position - self._done))


class SimEvent:
    def __init__(self, stream: SimStream, position: int) -> None:
        self._stream = stream
        self._position = position

    def wait(self) -> None:
        self._stream.reach(self._position)

    def done(self) -> bool:
        return self._stream.reached(self._position)


class ThreadStream:
    """A worker thread runs the kernels in order; they write real bytes, a part at a time, when they run."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Kernel | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sim-stream", daemon=True)
        self._thread.start()

    def queue(self, kernel: Kernel) -> None:
        self._queue.put(kernel)

    def record(self) -> ThreadEvent:
        reached = threading.Event()
        self._queue.put(reached.set)
        return ThreadEvent(reached)

    def whole(self) -> WholeStream:
        return WholeStream(self.synchronize)

    def synchronize(self) -> None:
        self.record().wait()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (kernel := self._queue.get()) is not None:
            kernel()


class ThreadEvent:
    def __init__(self, reached: threading.Event) -> None:
        self._reached = reached

    def wait(self) -> None:
        assert self._reached.wait(timeout=20)

    def done(self) -> bool:
        return self._reached.is_set()


def slow_fill(memory: npt.NDArray[np.uint8], value: int, pause: Callable[[], None]) -> Kernel:
    """A kernel that writes `value` a quarter at a time, so that a reader who comes early sees a torn layer."""

    def kernel() -> None:
        quarter = -(-memory.size // 4)
        for start in range(0, memory.size, quarter):
            pause()
            memory[start : start + quarter] = value

    return kernel
