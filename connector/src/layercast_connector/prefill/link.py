"""The control connections of a prefill worker: one thread, one DEALER socket per decode worker.

It greets each decode worker once per incarnation, asks for grants and renews them well before they end, passes
cancels on, and sends the reports. It must stay quick: a renewal that comes late stops a push.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import zmq

from layercast_connector.control import DropLog
from layercast_connector.plan.regions import LayoutError, pair_regions
from layercast_connector.prefill.peer import Peer, PeerKey, connect
from layercast_connector.prefill.push import Grant, Push
from layercast_connector.prefill.sender import Sender, Target, Wake
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import BadMessage, Codec
from layercast_connector.settings import Timeouts
from layercast_connector.transport.tails import Proof

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Add:
    peer_key: PeerKey
    push: Push
    sender: Sender


@dataclass(frozen=True)
class _Drop:
    peer_key: PeerKey


@dataclass(frozen=True)
class _Ended:
    push: Push
    report: m.Report


class Link:
    """See the module.

    Args:
        hello: this worker's greeting.
        regions: this worker's memory, to pair with each peer's.
        proof: how arrival is proven here; decode must do the same.
        codec: seals and opens.
        waits: bounds.
        drops: counts what couldn't be opened.
    """

    def __init__(
        self,
        hello: m.Hello,
        regions: Sequence[m.Region],
        proof: Proof,
        codec: Codec[m.ToPrefill],
        waits: Timeouts,
        drops: DropLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hello = hello
        self._regions = regions
        self._proof = proof
        self._codec = codec
        self._waits = waits
        self._drops = drops
        self._clock = clock
        self._peers: dict[PeerKey, Peer] = {}
        self._inbox: queue.SimpleQueue[_Add | _Drop | _Ended | None] = queue.SimpleQueue()
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._doorbell_in = self._context.socket(zmq.PAIR)
        self._doorbell_out = self._context.socket(zmq.PAIR)
        self._doorbell_in.bind("inproc://doorbell")
        self._doorbell_out.connect("inproc://doorbell")
        self._poller.register(self._doorbell_in, zmq.POLLIN)
        self._ring_lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="layercast-link", daemon=True)
        self._thread.start()

    def add(self, peer_key: PeerKey, push: Push, sender: Sender) -> None:
        """A new push to the decode worker at (address, incarnation)."""
        self._ring(_Add(peer_key, push, sender))

    def ended(self, push: Push, report: m.Report) -> None:
        """A sender closed a push."""
        self._ring(_Ended(push, report))

    def drop(self, peer_key: PeerKey) -> None:
        """A decode worker has no pushes any more and probably never will."""
        self._ring(_Drop(peer_key))

    def close(self) -> None:
        """Ends the thread and its sockets."""
        self._ring(None)
        self._thread.join(timeout=5)

    def _ring(self, item: _Add | _Drop | _Ended | None) -> None:
        self._inbox.put(item)
        with self._ring_lock, contextlib.suppress(zmq.Again):  # senders and the model thread ring, one at a time;
            if not self._over:
                self._doorbell_out.send(b"", zmq.NOBLOCK)  # a full bell is ringing already

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
            except Exception:
                logger.exception("A turn of the control link failed")
        with self._ring_lock:
            self._over = True
        self._context.destroy(linger=200)

    def _turn(self) -> bool:
        busy = any(peer.pushes for peer in self._peers.values())
        ready = dict(self._poller.poll(int(self._waits.lease * 1000 / 8) if busy else 5000))
        if self._doorbell_in in ready:
            self._doorbell_in.recv()
            if not self._empty_inbox():
                return False
        for peer in list(self._peers.values()):
            if peer.socket in ready:
                self._receive(peer)
        self._renew()
        return True

    # From the worker's own threads.

    def _empty_inbox(self) -> bool:
        """Takes everything that is in the inbox. Returns whether the link goes on."""
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return True
            if item is None:
                return False
            self._take(item)

    def _take(self, item: _Add | _Drop | _Ended) -> None:
        if isinstance(item, _Add):
            self._add(item)
            return
        if isinstance(item, _Drop):
            self._forget(item.peer_key)
            return
        for peer in self._peers.values():
            if peer.pushes.pop(item.push.attempt, None) is not None:
                peer.keep_report(item.report)
                self._send(peer, item.report)
                return

    def _add(self, item: _Add) -> None:
        peer = self._peers.get(item.peer_key)
        if peer is None:
            try:
                peer = connect(self._context, item.peer_key, self._hello, item.sender)
            except zmq.ZMQError as error:
                logger.error("Can't connect to decode at %s: %s", item.peer_key[0], error)
                item.push.stop_reason = item.push.stop_reason or "decode's address is unusable"
                item.sender.put(Wake(item.push))
                return
            self._peers[item.peer_key] = peer
            self._poller.register(peer.socket, zmq.POLLIN)
            self._greet(peer)
        peer.pushes[item.push.attempt] = item.push
        if peer.target is not None:
            self._ask(peer, item.push)

    def _greet(self, peer: Peer) -> None:
        peer.greeted = self._clock()
        self._send(peer, self._hello)

    # From decode.

    def _receive(self, peer: Peer) -> None:
        while True:
            try:
                message = self._codec.open(peer.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            except BadMessage as error:
                self._drops.dropped(error)
                continue
            self._on_message(peer, message)

    def _on_message(self, peer: Peer, message: m.ToPrefill) -> None:
        if isinstance(message, m.Regions):
            self._on_regions(peer, message)
        elif isinstance(message, m.Refused):
            logger.error("Decode at %s refused the handshake: %s", peer.address, message.reason)
            self._stop_all(peer, "handshake refused")
        elif isinstance(message, m.Grant):
            self._on_grant(peer, message)
        else:
            self._on_stop(peer, message)

    def _on_regions(self, peer: Peer, table: m.Regions) -> None:
        if table.incarnation != peer.incarnation:
            self._stop_all(peer, "decode was restarted")
            return
        try:
            pairs = pair_regions(self._regions, table.regions)
        except LayoutError as error:
            logger.error("Decode at %s has another KV layout: %s", peer.address, error)
            self._stop_all(peer, "layouts differ")
            return
        if table.proof != self._proof:
            logger.error("Decode at %s proves arrival by %s, we by %s", peer.address, table.proof, self._proof)
            self._stop_all(peer, "another proof of arrival; give both sides the same protocol")
            return
        peer.target = Target(table.session, pairs)
        peer.num_blocks = min(region.num_blocks for region in table.regions)
        peer.sender.aim(peer.target)
        for push in peer.pushes.values():
            self._ask(peer, push)

    def _on_grant(self, peer: Peer, message: m.Grant) -> None:
        push = peer.pushes.get(message.attempt)
        asked_at = push.asks.get(message.number) if push is not None else None
        if push is None or asked_at is None:
            return
        fits = len(message.block_ids) == 4 * push.request.num_blocks
        blocks = np.frombuffer(message.block_ids if fits else b"", "<u4").astype(np.int64)
        if not fits or (blocks >= peer.num_blocks).any():
            self._stop(push, peer, "the grant names blocks that the request or the cache doesn't have")
            return
        if push.grant is not None:
            blocks = push.grant.blocks  # a renewal changes the lease only
        push.asks = {number: at for number, at in push.asks.items() if number > message.number}
        push.grant = Grant(blocks, asked_at + min(message.lease, self._waits.lease))
        peer.sender.put(Wake(push))

    def _on_stop(self, peer: Peer, message: m.Deny | m.Cancel) -> None:
        push = peer.pushes.get(message.attempt)
        if push is not None:
            self._stop(push, peer, message.reason)
        elif message.attempt in peer.ended:
            self._send(peer, peer.ended[message.attempt])

    # Time.

    def _renew(self) -> None:
        now = self._clock()
        for peer in self._peers.values():
            if peer.pushes and peer.target is None and now - peer.greeted > self._waits.lease / 3:
                self._greet(peer)
            for push in peer.pushes.values():
                self._renew_push(peer, push, now)

    def _renew_push(self, peer: Peer, push: Push, now: float) -> None:
        """Asks again in time; gives up what decode hasn't granted, or renewed, for `done` seconds."""
        until = push.grant.until if push.grant else push.started
        if now - until > self._waits.done and push.stop_reason is None:
            self._stop(push, peer, "decode gave no grant")
        quiet = now - max(push.asks.values(), default=-math.inf) > self._waits.lease / 3
        if peer.target is not None and quiet and until - now < self._waits.lease * 2 / 3:
            self._ask(peer, push)

    def _ask(self, peer: Peer, push: Push) -> None:
        if push.stop_reason is None:
            push.asked += 1
            push.asks[push.asked] = self._clock()
            self._send(peer, m.Ask(push.attempt, peer.incarnation, push.asked, int(push.sent.sum())))

    def _stop(self, push: Push, peer: Peer, reason: str) -> None:
        push.stop_reason = push.stop_reason or reason or "stopped"
        peer.sender.put(Wake(push))

    def _stop_all(self, peer: Peer, reason: str) -> None:
        for push in peer.pushes.values():
            self._stop(push, peer, reason)

    def _forget(self, key: PeerKey) -> None:
        peer = self._peers.pop(key, None)
        if peer is not None:
            self._poller.unregister(peer.socket)
            peer.close()

    def _send(self, peer: Peer, message: msgspec.Struct) -> None:
        try:
            peer.socket.send(self._codec.seal(message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            logger.debug("Can't send to %s: %s", peer.address, error)
