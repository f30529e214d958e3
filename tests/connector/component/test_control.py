"""The listening end of the control channel: faults and floods end nothing and starve nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from layercast_connector import metrics
from layercast_connector.control import ControlServer, DropLog
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import MAX_BYTES, Codec

from tests.connector.component.fakes import FakePrefill
from tests.connector.component.rig import SECRET, until

pytestmark = pytest.mark.timeout(60)


class Echo:
    """Answers what it can; breaks when asked for `broken`."""

    def __init__(self) -> None:
        self.taken = 0
        self.ticks = 0
        self.taken_at_ticks: list[int] = []
        self.break_ticks = False

    def on_message(self, peer: bytes, message: m.Cancel) -> list[tuple[bytes, Any]]:
        self.taken += 1
        if message.reason == "broken":
            raise RuntimeError("told to")
        return [(peer, m.Deny(message.attempt, message.reason))]

    def tick(self) -> list[tuple[bytes, Any]]:
        self.ticks += 1
        self.taken_at_ticks.append(self.taken)
        if self.break_ticks:
            raise RuntimeError("told to")
        return []

    def wait_seconds(self) -> float:
        return 0.001


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo, closing: Callable[[Any], Any]) -> ControlServer[Any]:
    made: ControlServer[Any] = closing(
        ControlServer(0, Codec[Any](SECRET, m.Cancel | m.Deny), echo, DropLog(metrics.Tally()))
    )
    return made


@pytest.fixture
def peer(server: ControlServer[Any], closing: Callable[[Any], Any]) -> FakePrefill:
    made: FakePrefill = closing(FakePrefill(server.port))
    return made


def ask(peer: FakePrefill, reason: str = "") -> str:
    peer.says(m.Cancel(b"x" * 16, reason))
    answer: m.Deny = peer.hears(m.Deny)
    return answer.reason


def test_a_handler_that_breaks_on_one_message_gets_the_next(peer: FakePrefill) -> None:
    peer.says(m.Cancel(b"x" * 16, "broken"))
    assert ask(peer, "whole") == "whole"


def test_a_tick_that_breaks_stops_neither_ticks_nor_messages(peer: FakePrefill, echo: Echo) -> None:
    echo.break_ticks = True
    before = echo.ticks
    until(lambda: echo.ticks > before + 3, "ticks go on")
    assert ask(peer, "whole") == "whole"


def test_a_flood_leaves_time_for_ticks(peer: FakePrefill, echo: Echo) -> None:
    for _ in range(3000):
        peer.says(m.Cancel(b"x" * 16, ""))
    until(lambda: echo.taken == 3000, "all are taken")
    between = [later - earlier for earlier, later in zip(echo.taken_at_ticks, echo.taken_at_ticks[1:], strict=False)]
    assert max(between) <= 256


def test_a_message_beyond_the_bound_is_refused_by_the_socket(server: ControlServer[Any], peer: FakePrefill) -> None:
    stranger = FakePrefill(server.port, identity="stranger")
    stranger.says_bytes(b"x" * (MAX_BYTES + 1))
    assert ask(peer, "still here") == "still here"
    stranger.close()


@pytest.mark.parametrize("frames", [[b""], [b"", b""], [b"a", b"b", b"c"]], ids=["empty", "two empty", "three"])
def test_frames_of_any_number_are_taken(server: ControlServer[Any], peer: FakePrefill, frames: list[bytes]) -> None:
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)
    stranger.connect(f"tcp://127.0.0.1:{server.port}")
    stranger.send_multipart(frames)
    assert ask(peer, "still here") == "still here"
    stranger.close()
    context.term()


def test_closing_ends_the_thread_and_frees_the_port(closing: Callable[[Any], Any]) -> None:
    before = set(threading.enumerate())
    codec = Codec[Any](SECRET, m.Cancel)
    server = ControlServer(0, codec, Echo(), DropLog(metrics.Tally()))
    server.close()
    assert set(threading.enumerate()) <= before
    closing(ControlServer(server.port, codec, Echo(), DropLog(metrics.Tally())))
