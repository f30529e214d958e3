"""Finds deletions that no event told of.

After an expired watch kopf lists again, and says nothing of what is no longer in the list. So whenever a
listing shows (an event without a type), and from time to time in any case, everything is listed once more
and the store forgets what isn't there. Reads only; pages of metadata only.
"""

import asyncio
import logging
from collections.abc import Sequence

from layercast_operator.api.kinds import CHILD_KINDS, RESOURCE, Kind
from layercast_operator.api.observed import Key
from layercast_operator.engine.apply import Api, ApiFailure
from layercast_operator.engine.metrics import Metrics
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
