"""One pass over one resource: what is wanted, what is there, and the writes between them.

Level-triggered: it never asks what happened, only what is, so a lost or doubled event changes nothing.
It writes only when something differs: at rest there are no writes. It reads from the store; the one
question to the API is about a name that is not known to be ours yet, so that it never takes over what
somebody else made.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from layercast_operator.api.conditions import Reason
from layercast_operator.api.decode import Invalid
from layercast_operator.api.kinds import CHILD_KINDS, RESOURCE
from layercast_operator.api.observed import Key, Manifest, Resource
from layercast_operator.desired.build import Desired, build_desired
from layercast_operator.desired.names import Names
from layercast_operator.desired.support import derive_secret
from layercast_operator.engine.apply import Api, Changed, Rejected
from layercast_operator.engine.projection import ObjectId, Seen, project
from layercast_operator.engine.store import Store
from layercast_operator.presets.preset import Preset
from layercast_operator.status.checks import Problem, Situation
from layercast_operator.status.compute import compute_status


class NotDone(Exception):
    """Something has to be tried again later; the resource's status says what."""


class NameTaken(Exception):
    """A child's name belongs to an object that is not this resource's."""


@dataclass(frozen=True)
class Applied:
    """What was sent for an object, and how the object looked right after."""

    uid: str
    sent: str
    fingerprint: str


class Reconciler:
    def __init__(
        self,
        api: Api,
        store: Store,
        platforms: Mapping[str, Preset],
        root_secret: bytes,
        clock: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._store = store
        self._platforms = platforms
        self._root_secret = root_secret
        self._clock = clock
        self._applied: dict[Key, dict[ObjectId, Applied]] = {}

    async def reconcile(self, key: Key) -> None:
        resource = self._store.resource(key)
        if resource is None or resource.deleting:
            self._applied.pop(key, None)
            return  # its children go by garbage collection
        desired, problem = self._desired(resource)
        if desired is not None:
            problem = await self._act(resource, desired)
        await self._write_status(resource, desired, problem)
        if problem is not None and problem.reason is not Reason.INVALID_SPEC:
            raise NotDone(problem.message)

    def _desired(self, resource: Resource) -> tuple[Desired | None, Problem | None]:
        observed = self._store.observed(resource.uid)
        secret = derive_secret(self._root_secret, resource.uid)
        try:
            return build_desired(resource, observed, self._platforms, secret), None
        except Invalid as error:
            return None, Problem(Reason.INVALID_SPEC, f"The running pods are left alone. {error}")

    async def _act(self, resource: Resource, desired: Desired) -> Problem | None:
        """Applies, then prunes; prunes nothing unless everything wanted is there."""
        wanted = {_id_of(child): child for child in desired.children}
        remembered = self._applied.get(resource.key, {})
        applied = self._applied[resource.key] = {id: each for id, each in remembered.items() if id in wanted}
        try:
            for id, child in wanted.items():
                applied[id] = await self._apply(id, child, resource, applied.get(id))
        except NameTaken as error:
            return Problem(Reason.NAME_TAKEN, str(error))
        except Rejected as error:
            return Problem(Reason.APPLY_REJECTED, str(error))
        await self._prune(resource, desired.plan.keep, wanted)
        return None

    async def _apply(self, id: ObjectId, child: Manifest, resource: Resource, before: Applied | None) -> Applied:
        sent = _digest(child)
        seen = self._store.get(id)
        if seen is not None and before == Applied(seen.uid, sent, seen.fingerprint):
            return before
        existing = seen or await self._look_up(id)
        if existing is not None:
            _check_ours(existing, resource)
            # With the uid it fails if the object is not the one that was seen: names change hands.
            child = {**child, "metadata": {**child["metadata"], "uid": existing.uid}}
        after = project(id.kind, await self._api.apply(id, child))
        self._store.observe(after)
        return Applied(after.uid, sent, after.fingerprint)

    async def _look_up(self, id: ObjectId) -> Seen | None:
        """What has this name, though no event told of it: nothing, something foreign, or ours without its label."""
        raw = await self._api.get(id)
        return project(id.kind, raw) if raw is not None else None

    async def _prune(self, resource: Resource, keep: Collection[str], wanted: Collection[ObjectId]) -> None:
        for child in reversed(self._store.children(resource.uid)):
            kept = child.id in wanted or child.revision in keep
            if not kept and not child.deleting:
                await self._api.delete(child.id, child.uid)

    async def _write_status(self, resource: Resource, desired: Desired | None, problem: Problem | None) -> None:
        # Read again: the writes of this pass have been answered, and the answers are in the store.
        observed = self._store.observed(resource.uid)
        spec, plan = (desired.spec, desired.plan) if desired else (None, None)
        status = compute_status(resource, Situation(observed, spec, plan, problem), self._clock())
        if status == resource.status:
            return
        id = ObjectId(RESOURCE, resource.namespace, resource.name)
        try:
            after = await self._api.apply_status(id, resource.uid, status)
        except Changed:
            return  # the resource is gone, or another one; its events are on their way
        self._store.observe(project(RESOURCE, after))


_KINDS = {(kind.api_version, kind.name): kind for kind in CHILD_KINDS}


def _id_of(child: Manifest) -> ObjectId:
    kind = _KINDS[child["apiVersion"], child["kind"]]
    return ObjectId(kind, child["metadata"]["namespace"], child["metadata"]["name"])


def _check_ours(existing: Seen, resource: Resource) -> None:
    """Controlled by this very resource; or by nobody, with our labels: then it was orphaned, and is adopted."""
    what = f"{existing.id.kind.name} {existing.id.name}"
    if existing.owner == resource.key and (existing.deleting or existing.owner_uid != resource.uid):
        raise NotDone(f"waiting for {what} to be gone")  # deleted, or left of a resource of the same name
    orphaned = not existing.owner_uid and existing.label == Names.of(resource.name).base
    if existing.owner_uid != resource.uid and not orphaned:
        raise NameTaken(
            f"{what} exists and does not belong to this resource: delete it, or give this resource another name"
        )


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()
