"""Fills the store before anything acts, and finds deletions that no event told of.

A pass over a resource must never run while some kinds of children have not been listed yet: it would take
a rollout for a first start. kopf does not say when its listings are over, so `prime` lists by itself.

After an expired watch kopf lists again, and says nothing of what is no longer in the list. So whenever a
listing shows (an event without a type), and from time to time in any case, everything is listed once more
and the store forgets what isn't there. Reads only.
"""

import asyncio
import logging
from collections.abc import Sequence

from layercast_operator.api.kinds import CHILD_KINDS, RESOURCE, Kind
from layercast_operator.api.observed import Key
from layercast_operator.engine.apply import Api, ApiFailure, Changed
from layercast_operator.engine.metrics import Metrics
from layercast_operator.engine.projection import project
from layercast_operator.engine.queue import WorkQueue
from layercast_operator.engine.store import Store

_log = logging.getLogger(__name__)


class Sweeper:
    def __init__(
        self,
        api: Api,
        store: Store,
        queue: WorkQueue[Key],
        namespaces: Sequence[str],
        metrics: Metrics,
        period_s: float,
    ) -> None:
        self._api = api
        self._store = store
        self._queue = queue
        self._scopes: Sequence[str | None] = namespaces or [None]
        self._metrics = metrics
        self._period_s = period_s
        self._asked = asyncio.Event()

    async def prime(self) -> None:
        """Everything that exists into the store, and every resource into the queue."""
        for kind in (*CHILD_KINDS, RESOURCE):
            await self._prime(kind)

    async def _prime(self, kind: Kind) -> None:
        for scope in self._scopes:
            try:
                async for raw in self._api.objects(kind, scope):
                    seen = project(kind, raw)
                    self._store.observe(seen)
                    if kind is RESOURCE:
                        self._queue.add((seen.id.namespace, seen.id.name))
            except Changed:
                if kind is not RESOURCE:
                    raise
                _log.warning("the CustomResourceDefinition %s.%s is not installed yet", kind.plural, kind.group)

    def ask(self) -> None:
        """Sweep soon. Asking often is cheap."""
        self._asked.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._period_s):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            await self._sweep_all()

    async def _sweep_all(self) -> None:
        try:
            for kind in (RESOURCE, *CHILD_KINDS):
                await self._sweep(kind)
        except ApiFailure as error:
            _log.warning("sweep failed, trying again: %s", error)
            asyncio.get_running_loop().call_later(1.0, self.ask)

    async def _sweep(self, kind: Kind) -> None:
        before = self._store.of_kind(kind)
        listed = {uid for scope in self._scopes async for uid in self._api.uids(kind, scope)}
        for gone in self._store.sweep(before, listed):
            self._metrics.swept.labels(kind.name).inc()
            if gone.owner is not None:
                self._queue.add(gone.owner)
