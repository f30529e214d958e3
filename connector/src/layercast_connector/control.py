"""The listening end of the control channel: one thread, one ROUTER socket, typed messages in and out.

It knows no protocol: a handler gets messages and returns messages. What can't be opened is dropped, counted, and
logged once per reason; it never reaches the handler.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import msgspec
import zmq

from layercast_connector import metrics
from layercast_connector.protocol.envelope import MAX_BYTES, BadMessage, Codec

logger = logging.getLogger(__name__)

In = TypeVar("In", contravariant=True)
T = TypeVar("T")

Outbox = Iterable[tuple[bytes, msgspec.Struct]]
_BURST = 256
"""Messages taken before time-driven work gets its turn: a flood must not starve leases."""


class Handler(Protocol[In]):
    """What answers the messages."""

    def on_message(self, peer: bytes, message: In) -> Outbox:
        """Takes one message from the peer with this identity; returns what to send."""

    def tick(self) -> Outbox:
        """Time-driven work; returns what to send."""

    def wait_seconds(self) -> float:
        """How long to wait for messages before the next `tick`."""


class DropLog:
    """Counts dropped messages and logs the first of each reason."""

    def __init__(self, tally: metrics.Tally) -> None:
        self._tally = tally
        self._seen: set[str] = set()

    def dropped(self, error: BadMessage) -> None:
        """Counts one."""
        self._tally.count(metrics.DROPPED, error.drop)
        if error.drop not in self._seen:
            self._seen.add(error.drop)
            logger.warning("Dropping a control message (further ones are only counted): %s", error)


class ControlServer(Generic[T]):
    """Serves one handler on a TCP port until `close`.

    Args:
        port: TCP port on all addresses; 0 takes a free one, see `port`.
        codec: seals and opens the messages.
        handler: answers them, in the server's thread.
        drops: counts what couldn't be opened.

    Raises:
        OSError: the port is taken; the message says which setting to change.
    """

    def __init__(self, port: int, codec: Codec[T], handler: Handler[T], drops: DropLog) -> None:
        self._codec = codec
        self._handler = handler
        self._drops = drops
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(f"tcp://*:{port}" if port else "tcp://*:*")
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise OSError(f"control port {port} can't be bound ({error}); set another control_port") from None
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self._thread = threading.Thread(target=self._run, name="layercast-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and frees the port."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if self._socket.poll(int(self._handler.wait_seconds() * 1000)):
                    self._receive_burst()
                self._guarded(self._handler.tick)
        finally:
            self._socket.close()
            self._context.term()

    def _receive_burst(self) -> None:
        for _ in range(_BURST):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = self._codec.open(b"".join(frames))
            except BadMessage as error:
                self._drops.dropped(error)
                continue
            self._guarded(self._handler.on_message, peer, message)

    def _guarded(self, call: Callable[..., Outbox], *args: object) -> None:
        """A fault in one message or tick must not end the thread that renews everyone's leases."""
        try:
            for peer, message in call(*args):
                self._send(peer, message)
        except Exception:
            logger.exception("A control message or tick failed")

    def _send(self, peer: bytes, message: msgspec.Struct) -> None:
        try:
            self._socket.send_multipart((peer, self._codec.seal(message)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            logger.debug("Can't send to a peer: %s", error)
