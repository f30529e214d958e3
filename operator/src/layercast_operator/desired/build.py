"""All children of a resource, from its spec and what exists: the one door to `desired/`.

Pure: the same input gives the same output, byte for byte, or `Invalid` when the spec can't be built.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from layercast_operator.api.decode import Invalid
from layercast_operator.api.kinds import RESOURCE
from layercast_operator.api.observed import Manifest, Observed, Resource, RevisionRecord
from layercast_operator.api.spec import Role, Spec, parse_spec
from layercast_operator.desired.engine import PodInput
from layercast_operator.desired.names import Names
from layercast_operator.desired.network import prefill_service, public_service
from layercast_operator.desired.revision import record_manifest, resolve
from layercast_operator.desired.support import connector_secret, service_account
from layercast_operator.desired.workload import deployment
from layercast_operator.presets.preset import Preset
from layercast_operator.rollout.planner import Plan, plan


@dataclass(frozen=True)
class Desired:
    spec: Spec
    plan: Plan
    children: tuple[Manifest, ...]  # in the order in which to apply them


def build_desired(
    resource: Resource, observed: Observed, platforms: Mapping[str, Preset], connector_key: str
) -> Desired:
    spec = parse_spec(resource.spec)
    preset = _preset(spec.platform, platforms)
    names = Names.of(resource.name)
    pod = PodInput(resource.name, resource.namespace, names, spec, preset, Role.PREFILL, revision="")
    wanted = resolve(pod, observed.records)
    steps = plan(wanted.revision, observed)
    records = {record.revision: record for record in (*observed.records, wanted)}
    children = [
        service_account(names),
        connector_secret(names, connector_key),
        *(
            child
            for revision in steps.keep
            if revision in records
            for child in _revision_children(pod, records[revision])
        ),
        public_service(names, spec.endpoint, steps.serving),
    ]
    return Desired(spec, steps, tuple(_owned(child, resource) for child in children))


def _preset(platform: str, platforms: Mapping[str, Preset]) -> Preset:
    if platform not in platforms:
        known = ", ".join(sorted(platforms)) or "none"
        raise Invalid(f"platform: this operator has no preset for {platform!r}; it has: {known}")
    return platforms[platform]


def _revision_children(pod: PodInput, record: RevisionRecord) -> list[Manifest]:
    workloads = [
        deployment(
            pod.names,
            role,
            record.revision,
            replicas=pod.spec.role(role).replicas,
            template=record.pods[role.value],
            startup_seconds=pod.preset.startup_seconds,
        )
        for role in Role
    ]
    return [record_manifest(pod, record), prefill_service(pod.names, record.revision, pod.preset), *workloads]


def _owned(child: Manifest, resource: Resource) -> Manifest:
    """The owner reference lets Kubernetes remove the children: no finalizer, nothing that can hang."""
    owner = {
        "apiVersion": RESOURCE.api_version,
        "kind": RESOURCE.name,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {**child["metadata"], "namespace": resource.namespace, "ownerReferences": [owner]}
    return {**child, "metadata": metadata}
