"""Builders of resources and of what an operator has seen: a row of a table reads as a sentence."""

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from layercast_operator.api.decode import decode
from layercast_operator.api.observed import Observed, Resource, RevisionRecord, Workload
from layercast_operator.api.spec import Role
from layercast_operator.desired.build import build_desired
from layercast_operator.desired.revision import read_record
from layercast_operator.presets.preset import Preset

ROOT = Path(__file__).parents[2]
CRD = ROOT / "charts/layercast/files/crd.yaml"


def platforms_data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / "charts/layercast/values.yaml").read_text())["platforms"]
    return data


@functools.cache
def platforms() -> dict[str, Preset]:
    return {name: decode(data, Preset, name) for name, data in platforms_data().items()}


def example(file: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / "examples" / file).read_text())
    return data


def manifest(name: str = "tiny", namespace: str = "default", **changes: Any) -> dict[str, Any]:
    """The smallest example; `changes` are merged into its spec, with `__` for a step down."""
    data = example("tiny-cpu.yaml")
    data["metadata"] = {"name": name, "namespace": namespace}
    data["spec"] = spec(**changes)
    return data


def spec(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(example("tiny-cpu.yaml")["spec"])
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        place = data
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return data


def resource(name: str = "tiny", **changes: Any) -> Resource:
    return Resource(
        "default", name, uid=f"uid-of-{name}", generation=1, deleting=False, spec=spec(**changes), status={}
    )


def workload(role: Role, revision: str, *, replicas: int = 1, available: int = 1, **more: Any) -> Workload:
    return Workload(role, revision, replicas, ready=available, available=available, settled=True, **more)


def pair(revision: str, *, available: int = 1) -> tuple[Workload, ...]:
    return tuple(workload(role, revision, available=available) for role in Role)


def observed(*workloads: Workload, serving: str | None = None, records: tuple[RevisionRecord, ...] = ()) -> Observed:
    revisions = frozenset(each.revision for each in workloads)
    return Observed(workloads, records, serving, revisions)


def with_status(before: Resource, status: dict[str, Any], generation: int = 1) -> Resource:
    return replace(before, status=status, generation=generation)


def recorded(**changes: Any) -> RevisionRecord:
    """The record of a resource's first revision, as it comes back from the apiserver."""
    desired = build_desired(resource(**changes), Observed(), platforms(), "key")
    data = next(child["data"] for child in desired.children if child["kind"] == "ControllerRevision")
    record = read_record(desired.plan.wanted, json.loads(json.dumps(data)))
    assert record is not None
    return record
