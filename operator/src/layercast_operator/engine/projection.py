"""From an object of the API to the little of it that is kept in memory.

The only reader of raw objects. It must never keep a Secret's data, and never a whole object.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from layercast_operator.api.kinds import (
    DEPLOYMENT,
    GROUP,
    LABEL_MANAGED_BY,
    LABEL_RESOURCE,
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_SERVES,
    OPERATOR_NAME,
    RESOURCE,
    REVISION_RECORD,
    Kind,
)
from layercast_operator.api.observed import Key, Manifest, Resource, RevisionRecord, Workload
from layercast_operator.api.spec import Role
from layercast_operator.desired.revision import read_record


@dataclass(frozen=True)
class ObjectId:
    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True)
class Seen:
    """One object as last seen. `version` grows with every change of the object."""

    id: ObjectId
    uid: str
    version: int
    owner: Key | None  # the resource that controls it; of a resource, itself
    owner_uid: str
    label: str = ""  # the resource's name in the label that the operator sets
    revision: str = ""
    serves: str = ""
    deleting: bool = False
    fingerprint: str = ""  # of the fields that the operator owns in it
    content: Resource | Workload | RevisionRecord | None = None


def project(kind: Kind, raw: Manifest) -> Seen:
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    owner, owner_uid = _owner(metadata) if kind is not RESOURCE else _self(metadata)
    return Seen(
        id=ObjectId(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=owner,
        owner_uid=owner_uid,
        label=labels.get(LABEL_RESOURCE, "") if labels.get(LABEL_MANAGED_BY) == OPERATOR_NAME else "",
        revision=labels.get(LABEL_REVISION, ""),
        serves=labels.get(LABEL_SERVES, ""),
        deleting="deletionTimestamp" in metadata,
        fingerprint=_fingerprint(metadata),
        content=_content(kind, raw, labels),
    )


def _self(metadata: dict[str, Any]) -> tuple[Key, str]:
    return (metadata["namespace"], metadata["name"]), metadata["uid"]


def _owner(metadata: dict[str, Any]) -> tuple[Key | None, str]:
    for reference in metadata.get("ownerReferences") or []:
        group = reference["apiVersion"].split("/")[0]
        if reference.get("controller") and reference["kind"] == RESOURCE.name and group == GROUP:
            return (metadata["namespace"], reference["name"]), reference["uid"]
    return None, ""


def _fingerprint(metadata: dict[str, Any]) -> str:
    """Changes whenever somebody else changes or removes a field that the operator applied.

    The apiserver keeps the set of fields that each manager owns, and takes a field out of it when another
    writes it. So this needs no copy of the object, and a field of another manager never shows in it.
    """
    for entry in metadata.get("managedFields") or []:
        if entry.get("manager") == OPERATOR_NAME and entry.get("operation") == "Apply" and not entry.get("subresource"):
            encoded = msgspec.json.encode(entry.get("fieldsV1"), order="deterministic")
            return hashlib.sha256(encoded).hexdigest()
    return ""


def _content(kind: Kind, raw: Manifest, labels: dict[str, str]) -> Resource | Workload | RevisionRecord | None:
    if kind is RESOURCE:
        return _resource(raw)
    if kind is DEPLOYMENT:
        return _workload(raw, labels)
    if kind is REVISION_RECORD:
        return read_record(labels.get(LABEL_REVISION, ""), raw.get("data"))
    return None


def _resource(raw: Manifest) -> Resource:
    metadata = raw["metadata"]
    return Resource(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        deleting="deletionTimestamp" in metadata,
        spec=raw.get("spec") or {},
        status=raw.get("status") or {},
    )


def _workload(raw: Manifest, labels: dict[str, str]) -> Workload | None:
    role = labels.get(LABEL_ROLE)
    if role not in {each.value for each in Role}:
        return None
    status, conditions = raw.get("status") or {}, _conditions(raw)
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    exceeded = progressing.get("reason") == "ProgressDeadlineExceeded"
    return Workload(
        role=Role(role),
        revision=labels.get(LABEL_REVISION, ""),
        replicas=raw["spec"].get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        settled=status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= raw["spec"].get("replicas", 1),
        deadline_exceeded=progressing.get("message", "") if exceeded else "",
        not_created=failure.get("message", "") if failure.get("status") == "True" else "",
    )


def _conditions(raw: Manifest) -> dict[str, Any]:
    conditions = (raw.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions}
