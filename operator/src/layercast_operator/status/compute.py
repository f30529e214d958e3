"""The whole `status` of a resource, from its situation and the status before.

Pure: the clock comes in. Equal situations give an equal status, `lastTransitionTime` included, so that
the caller can compare and write nothing.
"""

from datetime import UTC, datetime
from typing import Any

from layercast_operator.api.conditions import ConditionType
from layercast_operator.api.observed import Resource
from layercast_operator.api.spec import Role
from layercast_operator.desired.names import Names
from layercast_operator.status.checks import Situation, answer

_MESSAGE_LIMIT = 2000


def compute_status(resource: Resource, situation: Situation, now: datetime) -> dict[str, Any]:
    status: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "conditions": [_condition(kind, resource, situation, now) for kind in ConditionType],
        **{role.value: _role_status(role, situation) for role in Role},
    }
    if situation.plan is not None:
        status["currentRevision"] = situation.plan.wanted
    if situation.serving is not None:
        status["servingRevision"] = situation.serving
    if situation.spec is not None:
        service = Names.of(resource.name).service
        status["endpoint"] = f"http://{service}.{resource.namespace}.svc:{situation.spec.endpoint.port}"
    elif "endpoint" in resource.status:
        status["endpoint"] = resource.status["endpoint"]
    return status


def _role_status(role: Role, situation: Situation) -> dict[str, Any]:
    """Of the wanted revision; with a spec that can't be built, of the one that goes on serving."""
    revision = situation.plan.wanted if situation.plan else situation.serving
    workload = situation.observed.workload(role, revision) if revision else None
    if situation.spec is not None:
        replicas = situation.spec.role(role).replicas
    else:
        replicas = workload.replicas if workload else 0
    ready = workload.ready if workload else 0
    return {"replicas": replicas, "readyReplicas": ready, "summary": f"{ready}/{replicas}"}


def _condition(kind: ConditionType, resource: Resource, situation: Situation, now: datetime) -> dict[str, Any]:
    found = answer(kind, situation)
    status = "True" if found.status else "False"
    return {
        "type": kind.value,
        "status": status,
        "observedGeneration": resource.generation,
        "reason": found.reason.value,
        "message": found.message[:_MESSAGE_LIMIT],
        "lastTransitionTime": _since(kind, status, resource) or _timestamp(now),
    }


def _since(kind: ConditionType, status: str, resource: Resource) -> str | None:
    """When the condition came to this status, if it already had it."""
    for before in resource.status.get("conditions") or []:
        if before.get("type") == kind.value and before.get("status") == status:
            return str(before["lastTransitionTime"])
    return None


def _timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
