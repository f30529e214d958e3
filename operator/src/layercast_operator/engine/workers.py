"""Takes keys from the queue and reconciles them, a bounded number at a time, once this process leads."""

import asyncio
import logging

from layercast_operator.api.observed import Key
from layercast_operator.engine.apply import ApiFailure
from layercast_operator.engine.metrics import Metrics
from layercast_operator.engine.queue import WorkQueue
from layercast_operator.engine.reconcile import NotDone, Reconciler

_log = logging.getLogger(__name__)


class Workers:
    def __init__(self, queue: WorkQueue[Key], reconciler: Reconciler, metrics: Metrics, count: int) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._count = count

    def start(self, group: asyncio.TaskGroup, leading: asyncio.Event) -> list[asyncio.Task[None]]:
        return [group.create_task(self._work(leading), name=f"worker-{number}") for number in range(self._count)]

    async def _work(self, leading: asyncio.Event) -> None:
        await leading.wait()
        while True:
            key = await self._queue.take()
            try:
                with self._metrics.reconcile_seconds.time():
                    await self._reconciler.reconcile(key)
            except Exception as error:  # one resource's trouble must not end the others' worker
                self._report(key, error)
            else:
                self._queue.done(key)

    def _report(self, key: Key, error: Exception) -> None:
        delay = self._queue.failed(key)
        self._metrics.errors.labels(type(error).__name__).inc()
        expected = isinstance(error, ApiFailure | NotDone)
        _log.warning(
            "not done, trying again",
            extra={"namespace": key[0], "resource": key[1], "error": str(error), "retry_s": round(delay, 1)},
            exc_info=None if expected else error,
        )
