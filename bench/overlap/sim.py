"""The simulated device: one in-order worker thread whose kernels take modelled time and then write the KV bytes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from layercast_connector.sync.device import WholeStream

LAUNCH_SECONDS = 30e-6


class SimEvent:
    """Set by the device when it gets there."""

    def __init__(self) -> None:
        self._reached = threading.Event()

    def wait(self) -> None:
        """Blocks until the device has passed this point."""
        self._reached.wait()

    def done(self) -> bool:
        """Whether the device has passed this point."""
        return self._reached.is_set()

    def reach(self) -> None:
        """The device passes."""
        self._reached.set()


@dataclass
class Occupancy:
    """When kernels ran: (start, end) in CLOCK_MONOTONIC seconds."""

    kernels: list[tuple[float, float]] = field(default_factory=list)

    @property
    def idle_share(self) -> float:
        """The part of the time between the first start and the last end in which nothing ran."""
        span = self.kernels[-1][1] - self.kernels[0][0]
        return 1 - sum(end - start for start, end in self.kernels) / span


class SimStream:
    """A compute stream. `launch` costs the calling thread `LAUNCH_SECONDS`, as a real launch does."""

    def __init__(self) -> None:
        self.occupancy = Occupancy()
        self._work: queue.SimpleQueue[tuple[float, Callable[[], None]] | SimEvent] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="sim-device", daemon=True).start()

    def launch(self, seconds: float, write: Callable[[], None]) -> None:
        """Queues a kernel: it takes `seconds`, the writing of its bytes included."""
        until = time.perf_counter() + LAUNCH_SECONDS
        self._work.put((seconds, write))
        while time.perf_counter() < until:
            pass

    def record(self) -> SimEvent:
        """An event behind everything that is queued now."""
        event = SimEvent()
        self._work.put(event)
        return event

    def whole(self) -> WholeStream:
        """See `layercast_connector.sync.device.Stream`."""
        return WholeStream(self.synchronize)

    def synchronize(self) -> None:
        """Waits for everything that is queued by now."""
        self.record().wait()

    def _run(self) -> None:
        end = 0.0
        while True:
            work = self._work.get()
            if isinstance(work, SimEvent):
                work.reach()
                continue
            seconds, write = work
            now = time.monotonic()
            # Back-to-back kernels start where the last one ended: this thread's own wake-ups aren't device time.
            start = end if now - end < 0.0005 else now
            end = start + seconds
            if (rest := end - time.monotonic()) > _WRITE_AHEAD:
                time.sleep(rest - _WRITE_AHEAD)
            write()
            if (rest := end - time.monotonic()) > 0:
                time.sleep(rest)
            end = max(end, time.monotonic())
            self.occupancy.kernels.append((start, end))


_WRITE_AHEAD = 0.001
"""The bytes are written in a kernel's last millisecond: nothing of a layer is there before."""
