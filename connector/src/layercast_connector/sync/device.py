"""Streams and events of a device behind one small interface.

A stream runs work in order; an event recorded on it completes when all work queued before it has. `npu` and `cuda`
are torch's own, `cpu` completes everything at once, and the tests and benchmarks bring a simulated device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Event(Protocol):
    """A point in a stream's work."""

    def wait(self) -> None:
        """Blocks the calling thread until the point is reached."""

    def done(self) -> bool:
        """Whether the point has been reached."""


class Stream(Protocol):
    """The stream on which the model computes."""

    def record(self) -> Event:
        """An event behind everything that is queued now."""

    def whole(self) -> Event:
        """An "event" that waits for whatever this stream holds at the moment of waiting, from any thread."""


class CompletedEvent:
    """An event of a device that computes synchronously."""

    def wait(self) -> None:
        """Returns at once."""

    def done(self) -> bool:
        """Always true."""
        return True


class CpuStream:
    """The CPU: a kernel has ended when its call returns."""

    def record(self) -> Event:
        """A completed event."""
        return CompletedEvent()

    def whole(self) -> Event:
        """A completed event."""
        return CompletedEvent()


class _TorchEvent:
    def __init__(self, event: Any) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()

    def done(self) -> bool:
        return bool(self._event.query())


class WholeStream:
    """What `Stream.whole` gives on a device that can be synchronized with: `synchronize` is called on waiting."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize

    def wait(self) -> None:
        """Blocks until the stream is through with what it holds now."""
        self._synchronize()

    def done(self) -> bool:
        """Unknown without waiting."""
        return False


class TorchStream:
    """The current compute stream of `torch.cuda` or `torch.npu`."""

    def __init__(self, device_module: Any) -> None:
        self._module = device_module

    def record(self) -> Event:
        """An event on the stream that is current in the calling thread."""
        event = self._module.Event()
        event.record()
        return _TorchEvent(event)

    def whole(self) -> Event:
        """The stream that is current in the calling thread; in the sender's own thread that would be another one."""
        return WholeStream(self._module.current_stream().synchronize)


def stream_for(device_type: str) -> Stream:
    """The compute stream of a torch device type.

    Raises:
        ValueError: neither cpu, cuda nor npu.
    """
    if device_type == "cpu":
        return CpuStream()
    if device_type in {"cuda", "npu"}:
        import torch  # only engines have it

        return TorchStream(getattr(torch, device_type))
    raise ValueError(f"no stream for device type {device_type!r}: layercast runs on npu, cuda and cpu")
