"""Leader election by a Lease: at most one operator writes.

A holder renews; everybody else waits until it has seen the same renewal for the lease's whole duration, by
its own monotonic clock (clocks of machines are never compared). A holder that could not renew stops
*before* others may start: `run` then raises, and the process is expected to exit. Each call is bounded, so
that an API that hangs is an API that fails.

The library's own lock can't be used: its create fails, and with a hung apiserver it acted on after the
lease was over.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, CoordinationV1Api

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseSettings:
    name: str
    namespace: str
    identity: str
    duration_s: float  # others wait this long for a renewal
    deadline_s: float  # the holder gives up after this long without one; less than the duration
    period_s: float  # between two tries


class LeadershipLost(Exception):
    """Another operator may act now: stop."""


@dataclass(frozen=True)
class _Record:
    """The lease as read; `version` is needed to replace exactly that."""

    holder: str
    transitions: int
    duration_s: float
    version: str


class Lease:
    def __init__(
        self, client: ApiClient, settings: LeaseSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = CoordinationV1Api(client)
        self._settings = settings
        self._monotonic = monotonic
        self._observed: _Record | None = None
        self._observed_at = 0.0

    async def run(self, leading: asyncio.Event) -> None:
        """Sets `leading` once the lease is held; raises LeadershipLost when it no longer surely is."""
        asked = await self._acquire()
        _log.info("leading", extra={"identity": self._settings.identity})
        leading.set()
        await self._hold(asked + self._settings.deadline_s)

    async def release(self) -> None:
        """Lets another operator start at once. For a clean end, after all writes have ended."""
        record = self._observed
        if record is None or record.holder != self._settings.identity:
            return
        try:
            await self._write(record, holder="")
        except (ApiException, OSError, aiohttp.ClientError, TimeoutError) as error:
            _log.warning("the lease was not released: %s", error)

    async def _acquire(self) -> float:
        """Waits for the lease; when it was asked for, which is earlier than when it was given."""
        while True:
            asked = self._monotonic()
            if await self._try():
                return asked
            await asyncio.sleep(self._settings.period_s)

    async def _hold(self, deadline: float) -> None:
        while True:
            await asyncio.sleep(self._settings.period_s)
            started = self._monotonic()
            try:
                async with asyncio.timeout(max(0.0, deadline - started)):
                    held = await self._try()
            except TimeoutError:
                held = False
            if held:
                deadline = started + self._settings.deadline_s
            elif self._monotonic() >= deadline or self._held_by_other():
                raise LeadershipLost(f"the lease {self._settings.name} was not renewed in time")

    def _held_by_other(self) -> bool:
        return self._observed is not None and self._observed.holder not in ("", self._settings.identity)

    async def _try(self) -> bool:
        """Takes or renews the lease if that is allowed now. A failed call is a no."""
        try:
            record = await self._read()
            if not self._may_take(record):
                return False
            await self._write(record, self._settings.identity)
            return True
        except ApiException as error:
            if error.status not in (404, 409):
                _log.warning("the lease can't be read or written: %s %s", error.status, error.reason)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            _log.warning("the lease can't be reached: %s", type(error).__name__)
        return False

    def _may_take(self, record: _Record | None) -> bool:
        if record is None or record.holder in ("", self._settings.identity):
            return True
        return self._monotonic() >= self._observed_at + record.duration_s

    async def _read(self) -> _Record | None:
        try:
            lease = await self._api.read_namespaced_lease(
                self._settings.name, self._settings.namespace, _request_timeout=self._settings.period_s
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return self._remember(lease)

    def _remember(self, lease: Any) -> _Record:
        spec = lease.spec  # None in a Lease that nobody has held yet
        record = _Record(
            holder=(spec and spec.holder_identity) or "",
            transitions=(spec and spec.lease_transitions) or 0,
            duration_s=float((spec and spec.lease_duration_seconds) or self._settings.duration_s),
            version=lease.metadata.resource_version,
        )
        if self._observed is None or record.version != self._observed.version:
            self._observed, self._observed_at = record, self._monotonic()
        return record

    async def _write(self, before: _Record | None, holder: str) -> None:
        body = self._body(before, holder)
        settings, timeout = self._settings, self._settings.period_s
        if before is None:
            lease = await self._api.create_namespaced_lease(settings.namespace, body, _request_timeout=timeout)
        else:
            lease = await self._api.replace_namespaced_lease(
                settings.name, settings.namespace, body, _request_timeout=timeout
            )
        self._remember(lease)

    def _body(self, before: _Record | None, holder: str) -> dict[str, Any]:
        # Microseconds are written out even when they are zero: the API refuses a time without them.
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        transitions = before.transitions if before else 0
        if before is not None and before.holder != self._settings.identity:
            transitions += 1
        metadata = {"name": self._settings.name, "namespace": self._settings.namespace}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "resourceVersion": before.version} if before else metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(self._settings.duration_s),
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
