"""A decode worker as a prefill worker sees it: its connection, its memory once it has answered, the pushes to it."""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass, field

import zmq

from layercast_connector.prefill.push import Push
from layercast_connector.prefill.sender import Sender, Target
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import MAX_BYTES
from layercast_connector.recent import remember

PeerKey = tuple[str, str]
"""(address, incarnation) of a decode worker."""

_REPORTS = 1024
_LINGER_MS = 2000
"""How long a last report may still leave after its connection was given up; nobody waits for that."""


@dataclass(eq=False)
class Peer:
    """One decode worker of one incarnation."""

    address: str
    incarnation: str
    sender: Sender
    socket: zmq.Socket[bytes]
    target: Target | None = None
    """Known once it has answered the greeting."""
    num_blocks: int = 0
    greeted: float = -math.inf
    """When it was last greeted: a greeting, or its answer, can get lost with a connection."""
    pushes: dict[bytes, Push] = field(default_factory=dict)
    ended: collections.OrderedDict[bytes, m.Report] = field(default_factory=collections.OrderedDict)

    def keep_report(self, report: m.Report) -> None:
        """Remembers the report of a push, in case decode asks for it again."""
        remember(self.ended, report.attempt, report, _REPORTS)

    def close(self) -> None:
        """Gives the connection up."""
        self.socket.close(linger=_LINGER_MS)


def connect(context: zmq.Context[zmq.Socket[bytes]], key: PeerKey, hello: m.Hello, sender: Sender) -> Peer:
    """A connection to the decode worker at (address, incarnation).

    The identity holds both incarnations: after a restart of decode at the same address the old connection, which
    reconnects there too, must not take the new one's name.

    Raises:
        zmq.ZMQError: the address can't be connected to, whoever listens there.
    """
    address, incarnation = key
    socket = context.socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.ROUTING_ID, f"{hello.incarnation}/{hello.rank}/{incarnation}".encode()[:250])
        socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        socket.connect(address)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return Peer(address, incarnation, sender, socket)
