"""One side of the control channel in the test's own hands: what it says, and when."""

from __future__ import annotations

import contextlib
from typing import Any

import zmq
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec
from layercast_connector.transport.tails import Proof

from tests.connector.component.rig import KEY, SECRET, Attempt
from tests.connector.component.wire import KvMemory, Wire, WireTransport


class FakeDecode:
    """A decode worker that says only what the test tells it to."""

    def __init__(self, wire: Wire, memory: KvMemory, port: int = 0, incarnation: str = "fake") -> None:
        self.incarnation = incarnation
        self.memory = memory
        transport = WireTransport(wire, f"session-of-{incarnation}")
        transport.register(memory.regions())
        self.table = m.Regions(incarnation, transport.session, Proof.TAILS, memory.regions())
        self._codec = Codec[m.ToDecode](SECRET, m.ToDecode)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self.peer = b""

    @property
    def place(self) -> m.Worker:
        return m.Worker(f"tcp://127.0.0.1:{self.port}", self.incarnation)

    def hears(self, kind: type, seconds: float = 20.0) -> Any:
        """The next message of that kind; others before it are passed over."""
        while self._socket.poll(int(seconds * 1000)):
            self.peer, data = self._socket.recv_multipart()
            message = self._codec.open(data)
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def hears_nothing(self, seconds: float) -> None:
        assert not self._socket.poll(int(seconds * 1000))

    def says(self, message: Any) -> None:
        self.says_bytes(self._codec.seal(message))

    def says_bytes(self, data: bytes) -> None:
        self._socket.send_multipart((self.peer, data))

    def greets(self) -> None:
        self.hears(m.Hello)
        self.says(self.table)

    def grants(self, attempt: Attempt, ask: m.Ask, lease: float = 10.0) -> None:
        self.says(grant(attempt, ask, lease))

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def grant(attempt: Attempt, ask: m.Ask, lease: float = 10.0, block_ids: bytes | None = None) -> m.Grant:
    ids = attempt.dst.astype("<u4").tobytes() if block_ids is None else block_ids
    return m.Grant(attempt.nonce, ask.number, lease, ids)


class FakePrefill:
    """A peer of a decode worker that says only what the test tells it to."""

    def __init__(self, port: int, identity: str = "fake/0", secret: bytes = SECRET) -> None:
        self._codec = Codec[m.ToPrefill](secret, m.ToPrefill)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTING_ID, identity.encode())
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def says(self, message: Any) -> None:
        self.says_bytes(self._codec.seal(message))

    def says_bytes(self, data: bytes) -> None:
        self._socket.send(data)

    def greets(self, compatibility: str = KEY, version: int = m.PROTOCOL_VERSION) -> Any:
        self.says(m.Hello(version, compatibility, "fake", 0))
        return self.hears(m.Regions | m.Refused)

    def asks(self, attempt: Attempt, incarnation: str, number: int = 1, sent_cells: int = 0) -> None:
        self.says(m.Ask(attempt.nonce, incarnation, number, sent_cells))

    def hears(self, kind: Any, seconds: float = 20.0) -> Any:
        assert self._socket.poll(int(seconds * 1000)), f"no {kind} came"
        message = self._codec.open(self._socket.recv())
        assert isinstance(message, kind), message
        return message

    def close(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._socket.close()
        self._context.term()
