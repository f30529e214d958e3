"""The prefill pods that decode knows: discovered by DNS or a list, asked for their state, chosen from.

`PodTable` is the state, written by the poller and read by the scheduler half; `Poller` is the I/O, one asyncio task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import zmq
import zmq.asyncio

from layercast_connector.control import DropLog
from layercast_connector.decode.choose import PodLoad, choose, prefix_key
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import MAX_BYTES, BadMessage, Codec
from layercast_connector.settings import PodAddress, PrefillPods, url_host

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_SILENT_SECONDS = 3.5
"""A pod whose last answer is older gets no prompts."""


@dataclass
class _Pod:
    address: PodAddress
    status: m.Status | None = None
    seen: float = 0.0
    sent_tokens: int = 0
    """Prompt tokens that this engine has under way there."""


class PodTable:
    """Thread-safe view of the pods.

    Args:
        compatibility: only pods with this key are used.
        clock: monotonic seconds.
    """

    def __init__(self, compatibility: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._compatibility = compatibility
        self._clock = clock
        self._lock = threading.Lock()
        self._pods: dict[str, _Pod] = {}
        self._refused: set[str] = set()

    def set_addresses(self, addresses: Iterable[PodAddress]) -> None:
        """Replaces the set of known pods, keeping what is known of those that stay."""
        with self._lock:
            self._pods = {
                name: self._pods.get(name) or _Pod(address)
                for address in addresses
                for name in [f"{address.host}:{address.api_port}"]
            }

    def addresses(self) -> list[tuple[str, PodAddress]]:
        """(name, address) of every known pod."""
        with self._lock:
            return [(name, pod.address) for name, pod in self._pods.items()]

    def answered(self, name: str, status: m.Status) -> None:
        """A pod told its state."""
        with self._lock:
            pod = self._pods.get(name)
            if pod is None:
                return
            pod.status = status
            pod.seen = self._clock()
            if status.compatibility == self._compatibility or name in self._refused:
                return
            self._refused.add(name)
        logger.warning("Not using pod %s: it has [%s], we have [%s]", name, status.compatibility, self._compatibility)

    def any_ready(self) -> bool:
        """Whether some pod can take a prompt now."""
        with self._lock:
            return any(self._ready(pod) for pod in self._pods.values())

    def take(self, token_ids: Sequence[int]) -> tuple[str, PodAddress] | None:
        """Chooses a pod for a prompt and counts the prompt against it until `give_back`."""
        with self._lock:
            loads = [
                PodLoad(name, pod.sent_tokens + (pod.status.outstanding_tokens if pod.status else 0))
                for name, pod in self._pods.items()
                if self._ready(pod)
            ]
            name = choose(loads, prefix_key(token_ids), len(token_ids))
            if name is None:
                return None
            self._pods[name].sent_tokens += len(token_ids)
            return name, self._pods[name].address

    def give_back(self, name: str, tokens: int, *, unreachable: bool = False) -> None:
        """A prompt is over there; an unreachable pod is skipped until it answers again."""
        with self._lock:
            pod = self._pods.get(name)
            if pod is not None:
                pod.sent_tokens = max(0, pod.sent_tokens - tokens)
                pod.seen = 0.0 if unreachable else pod.seen

    def _ready(self, pod: _Pod) -> bool:
        return (
            pod.status is not None
            and not pod.status.draining
            and pod.status.version == m.PROTOCOL_VERSION
            and pod.status.compatibility == self._compatibility
            and self._clock() - pod.seen < _SILENT_SECONDS
        )


class Poller:
    """Discovers the pods and asks each for its state, once a second."""

    def __init__(self, table: PodTable, where: PrefillPods, codec: Codec[m.Status], drops: DropLog) -> None:
        self._table = table
        self._where = where
        self._codec = codec
        self._drops = drops
        self._context = zmq.asyncio.Context()
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        self._unusable: set[str] = set()

    async def run(self) -> None:
        """Polls until cancelled."""
        try:
            while True:
                await asyncio.gather(asyncio.sleep(_POLL_SECONDS), self._turn())
        finally:
            self._context.destroy(linger=0)

    async def _turn(self) -> None:
        """Looks where the pods are, and asks them all. Whatever is wrong with one must not end the polling."""
        addresses = await self._resolve()
        if addresses is not None:
            self._table.set_addresses(addresses)
        known = self._table.addresses()
        self._forget({name for name, _ in known})
        outcomes = await asyncio.gather(*(self._ask(*pod) for pod in known), return_exceptions=True)
        for (name, _), outcome in zip(known, outcomes, strict=True):
            if isinstance(outcome, Exception) and name not in self._unusable:
                self._unusable.add(name)
                logger.warning("Can't ask prefill pod %s for its state: %s", name, outcome)

    async def _resolve(self) -> list[PodAddress] | None:
        """The pods' addresses; None while the name doesn't resolve: then the known ones stay, silent if they are."""
        where = self._where
        if not where.dns:
            return where.static
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(where.dns, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return None
        hosts = sorted({str(info[4][0]) for info in found})
        return [PodAddress(host, where.api_port, where.control_port) for host in hosts]

    async def _ask(self, name: str, address: PodAddress) -> None:
        """One question and its answer; a pod that doesn't answer in time just stays as old as it is.

        Its connection is dropped then: a pod that hung and goes on answers all that it was asked meanwhile, and each
        of those answers would pass for a fresh one, long after the pod is gone.
        """
        sock = self._sockets.get(name) or self._connect(name, address)
        try:
            await sock.send(self._codec.seal(m.StatusRequest()), zmq.NOBLOCK)
            async with asyncio.timeout(_POLL_SECONDS):
                data = await sock.recv()
        except (zmq.Again, TimeoutError):
            self._sockets.pop(name).close()
            return
        try:
            self._table.answered(name, self._codec.open(data))
        except BadMessage as error:
            self._drops.dropped(error)

    def _connect(self, name: str, address: PodAddress) -> zmq.asyncio.Socket:
        sock = self._context.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, 2)
        sock.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        sock.setsockopt(zmq.IPV6, 1 if ":" in address.host else 0)
        try:
            sock.connect(f"tcp://{url_host(address.host)}:{address.control_port}")
        except zmq.ZMQError:
            sock.close()
            raise
        self._sockets[name] = sock
        return sock

    def _forget(self, keep: set[str]) -> None:
        for name in set(self._sockets) - keep:
            self._sockets.pop(name).close()
