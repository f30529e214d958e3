"""One resource on the apiserver, and what tests do to it and its children in the words of its users."""

from dataclasses import dataclass
from typing import Any

from layercast_operator.api.kinds import CHILD_KINDS, DEPLOYMENT, LABEL_MANAGED_BY, LABEL_REVISION, RESOURCE, Kind
from layercast_operator.api.observed import Manifest
from layercast_operator.api.spec import Role

from tests.operator.apiserver.kube import Kube, Object
from tests.operator.builders import manifest, spec

# ServiceAccount, connector Secret, revision record, two Services, two Deployments.
CHILDREN = 7


@dataclass(frozen=True)
class Scene:
    kube: Kube
    namespace: str
    name: str = "tiny"

    def create(self, **changes: Any) -> Object:
        return self.kube.create(manifest(self.name, self.namespace, **changes))

    def change(self, **changes: Any) -> Object:
        return self.kube.patch(RESOURCE, self.namespace, self.name, {"spec": spec(**changes)})

    def delete(self) -> None:
        self.kube.delete(RESOURCE, self.namespace, self.name)

    def resource(self) -> Object:
        return self.kube.get(RESOURCE, self.namespace, self.name)

    def children(self, kind: Kind | None = None) -> list[Object]:
        kinds = CHILD_KINDS if kind is None else (kind,)
        return [each for kind in kinds for each in self.kube.all(kind, self.namespace) if self._is_child(each)]

    def _is_child(self, found: Object) -> bool:
        owners = found["metadata"].get("ownerReferences") or [{}]
        return bool(owners[0].get("name") == self.name)

    def wait_for(self, condition: str, status: str, reason: str = "", generation: int | None = None) -> Object:
        """The resource, once a condition is as said (and about a generation)."""

        def reached(found: list[Object]) -> bool:
            conditions = [
                each
                for resource in found
                if resource["metadata"]["name"] == self.name
                for each in resource.get("status", {}).get("conditions", [])
            ]
            return any(
                each["type"] == condition
                and each["status"] == status
                and reason in ("", each["reason"])
                and each["observedGeneration"] >= (generation or 0)
                for each in conditions
            )

        self.kube.wait(RESOURCE, self.namespace, reached, f"{self.name} gets {condition}={status} {reason}")
        return self.resource()

    def wait_for_children(self, kind: Kind, count: int, timeout_s: float = 60) -> list[Object]:
        def reached(found: list[Object]) -> bool:
            return sum(map(self._is_child, found)) == count

        self.kube.wait(kind, self.namespace, reached, f"{self.name} has {count} {kind.plural}", timeout_s)
        return self.children(kind)

    def revision(self) -> str:
        revision: str = self.resource()["status"]["currentRevision"]
        return revision

    def make_available(self, revision: str) -> None:
        """Plays the Deployment controller and the kubelet: both roles of a revision are up."""
        for role in Role:
            name = f"{self.name}-{role.value}-{revision}"
            deployment = self.kube.get(DEPLOYMENT, self.namespace, name)
            self.kube.patch(DEPLOYMENT, self.namespace, name, available(deployment), subresource="status")

    def start(self, **changes: Any) -> str:
        """A resource that serves; its revision."""
        self.create(**changes)
        self.wait_for_children(DEPLOYMENT, 2)
        self.wait_for("Progressing", "True")
        revision = self.revision()
        self.make_available(revision)
        self.wait_for("Ready", "True")
        return revision


def available(deployment: Object) -> Manifest:
    replicas = deployment["spec"]["replicas"]
    counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), replicas)
    return {"status": {**counts, "observedGeneration": deployment["metadata"]["generation"]}}


def revision_of(child: Object) -> str:
    revision: str = child["metadata"]["labels"].get(LABEL_REVISION, "")
    return revision


WITHOUT_LABEL: Manifest = {"metadata": {"labels": {LABEL_MANAGED_BY: None}}}
