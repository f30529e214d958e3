"""Streams of devices: what waits for what, from which thread."""

from __future__ import annotations

import threading

import pytest
from layercast_connector.sync.device import CpuStream, TorchStream, stream_for


class FakeTorchStream:
    def __init__(self) -> None:
        self.synchronized = 0

    def synchronize(self) -> None:
        self.synchronized += 1


class FakeDeviceModule:
    """torch.cuda's shape: like there, each thread has a current stream of its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def current_stream(self) -> FakeTorchStream:
        if not hasattr(self._local, "stream"):
            self._local.stream = FakeTorchStream()
        stream: FakeTorchStream = self._local.stream
        return stream

    class Event:
        def __init__(self) -> None:
            self.recorded = self.waited = False

        def record(self) -> None:
            self.recorded = True

        def synchronize(self) -> None:
            self.waited = True

        def query(self) -> bool:
            return self.waited


def test_the_whole_stream_is_the_models_also_when_the_sender_waits_for_it() -> None:
    """torch's current stream belongs to the thread: asked in the sender it would be another, idle one."""
    device = FakeDeviceModule()
    whole = TorchStream(device).whole()
    sender = threading.Thread(target=whole.wait)
    sender.start()
    sender.join(timeout=5)
    assert device.current_stream().synchronized == 1


def test_an_event_is_done_once_it_was_reached() -> None:
    event = TorchStream(FakeDeviceModule()).record()
    assert not event.done()
    event.wait()
    assert event.done()


def test_the_whole_stream_is_never_done_without_a_wait() -> None:
    assert not TorchStream(FakeDeviceModule()).whole().done()


def test_on_the_cpu_everything_is_done() -> None:
    stream = stream_for("cpu")
    assert isinstance(stream, CpuStream)
    assert stream.record().done() and stream.whole().done()
    stream.record().wait()
    stream.whole().wait()


@pytest.mark.parametrize("device", ["xpu", "tpu", ""])
def test_other_devices_are_refused_by_name(device: str) -> None:
    with pytest.raises(ValueError, match=f"device type '{device}'"):
        stream_for(device)
