"""kopf's only job: to watch. Every event updates the store and puts the resource's key into the queue.

No create, update or field handlers, no timers, no daemons: those make kopf write annotations and
finalizers, and an uninstall could hang on them. Errors in an event handler are never retried by kopf, so
these can't fail: the work is the queue's.
"""

from collections.abc import Callable
from typing import Any

import kopf

from layercast_operator.api.kinds import CHILD_KINDS, MANAGED_SELECTOR, RESOURCE, Kind
from layercast_operator.api.observed import Key
from layercast_operator.engine.projection import project
from layercast_operator.engine.queue import WorkQueue
from layercast_operator.engine.store import Store
from layercast_operator.engine.sweep import Sweeper

_CHUNK = 500
_IDLE_S = 0.2  # kopf keeps a task per object for this long after its last event


def registry(store: Store, queue: WorkQueue[Key], sweeper: Sweeper) -> kopf.OperatorRegistry:
    """Our own: the default one is global, and a test or a library could add to it."""
    own = kopf.OperatorRegistry()
    kopf.on.login(registry=own)(_login)
    for kind in (RESOURCE, *CHILD_KINDS):
        handler = _handler(kind, store, queue, sweeper)
        kopf.on.event(kind.group, kind.version, kind.plural, registry=own, id=kind.plural)(handler)
    return own


def settings(namespaced: bool) -> kopf.OperatorSettings:
    own = kopf.OperatorSettings()
    own.posting.enabled = False
    own.queueing.idle_timeout = _IDLE_S
    own.watching.chunk_size = _CHUNK
    # Watching CRDs and namespaces needs rights that a namespaced install doesn't have.
    own.scanning.disabled = namespaced
    own.peering.standalone = True
    for kind in CHILD_KINDS:
        own.watching.label_selectors[kind.group, kind.version, kind.plural] = MANAGED_SELECTOR
    return own


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_via_client(**kwargs)


def _handler(kind: Kind, store: Store, queue: WorkQueue[Key], sweeper: Sweeper) -> Callable[..., Any]:
    async def on_event(event: Any, **_: Any) -> None:
        seen = project(kind, event["object"])
        before = store.get(seen.id)
        if event["type"] == "DELETED":
            store.forget(seen)
        else:
            store.observe(seen)
        if event["type"] is None:
            sweeper.ask()  # kopf has listed anew: it tells what is there, not what is gone
        # The owner before too: a child may have been taken from it.
        owners = {seen.owner, before.owner if before else None}
        for owner in owners - {None}:
            queue.add(owner)  # type: ignore[arg-type]

    return on_event
