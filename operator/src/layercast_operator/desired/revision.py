"""Revisions: what pods are made of, rendered once and kept.

A revision's name is a hash of its pods, so equal pods mean an equal name and any difference a new one.
What was rendered is pinned in a ControllerRevision together with a hash of the part of the spec that it
came from: as long as that part is unchanged, the pinned pods are used, so that upgrading the operator or
changing a preset restarts no fleet.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from layercast_operator.api.kinds import LABEL_REVISION, REVISION_RECORD
from layercast_operator.api.observed import Manifest, RevisionRecord
from layercast_operator.api.spec import Spec
from layercast_operator.desired.engine import PodInput
from layercast_operator.desired.names import REVISION_LENGTH
from layercast_operator.desired.pod import role_pods

# What may change without new pods.
_NOT_IN_PODS = (("endpoint",), ("prefill", "replicas"), ("decode", "replicas"))


def digest(value: Any) -> str:
    """A hash that depends on content only, not on the order of keys."""
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:REVISION_LENGTH]


def spec_hash(spec: Spec) -> str:
    """Hash of the part of the spec that pods are made from. Defaults count as absent."""
    data = msgspec.to_builtins(spec)
    for *parents, leaf in _NOT_IN_PODS:
        place = data
        for parent in parents:
            place = place.get(parent, {})
        place.pop(leaf, None)
    return digest({key: value for key, value in data.items() if value != {}})


def resolve(pod: PodInput, records: Iterable[RevisionRecord]) -> RevisionRecord:
    """The pinned revision of this spec, or a new one rendered now."""
    wanted = spec_hash(pod.spec)
    pinned = (record for record in records if record.spec_hash == wanted)
    return next(pinned, None) or render(pod)


def render(pod: PodInput) -> RevisionRecord:
    # The pods carry their revision in labels and names, so it is hashed without itself.
    revision = digest(role_pods(replace(pod, revision="")))
    return RevisionRecord(revision, spec_hash(pod.spec), role_pods(replace(pod, revision=revision)))


def record_manifest(pod: PodInput, record: RevisionRecord) -> Manifest:
    return {
        "apiVersion": REVISION_RECORD.api_version,
        "kind": REVISION_RECORD.name,
        "metadata": {
            "name": pod.names.record(record.revision),
            "labels": {**pod.names.labels(), LABEL_REVISION: record.revision},
        },
        "revision": 1,  # required by the API; here the name tells revisions apart
        "data": {"specHash": record.spec_hash, "pods": record.pods},
    }


def read_record(revision: str, data: Any) -> RevisionRecord | None:
    """The record in a ControllerRevision's data, or None when it isn't one of this version."""
    if not isinstance(data, dict) or not isinstance(data.get("pods"), dict) or "specHash" not in data:
        return None
    return RevisionRecord(revision, str(data["specHash"]), data["pods"])
