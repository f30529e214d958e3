"""What somebody may do, asked of the apiserver itself."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.controlplane import ControlPlane

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
_VERDICT = '{{.status.allowed}}{{"\\n"}}'


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource ("pods/exec" is one too), anywhere if no namespace is named."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}".rstrip(".") + (f" {self.name}" if self.name else "")
        return f"{self.verb} {what} in {self.namespace or 'any namespace'}"


class Rights:
    def __init__(self, control_plane: ControlPlane, user: str) -> None:
        self._control_plane = control_plane
        self._user = user

    def granted(self, rights: Iterable[Right]) -> set[Right]:
        """Which of these the user has: what `kubectl auth can-i` says, for many at once."""
        asked = list(rights)
        reviews = "\n---\n".join(json.dumps(self._review(right)) for right in asked)
        arguments = ["create", "--validate=false", "-f", "-", "-o", f"go-template={_VERDICT}"]
        verdicts = self._control_plane.kubectl(*arguments, stdin=reviews).split()
        assert len(verdicts) == len(asked) and set(verdicts) <= {"true", "false"}, verdicts
        return {right for right, verdict in zip(asked, verdicts, strict=True) if verdict == "true"}

    def _review(self, right: Right) -> dict[str, Any]:
        resource, _, subresource = right.resource.partition("/")
        attributes = {
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": right.namespace,
            "name": right.name,
        }
        groups = [
            "system:serviceaccounts",
            f"system:serviceaccounts:{self._user.split(':')[2]}",
            "system:authenticated",
        ]
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": self._user, "groups": groups, "resourceAttributes": attributes},
        }

    def all_in(self, namespace: str) -> set[Right]:
        """Everything that the user may do with objects in a namespace, whole."""
        review = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1"}
        arguments = ["create", "--raw", _REVIEWS, "-f", "-", f"--as={self._user}"]
        body = json.dumps(review | {"spec": {"namespace": namespace}})
        status = json.loads(self._control_plane.kubectl(*arguments, stdin=body))["status"]
        assert not status["incomplete"], status
        return {right for rule in status["resourceRules"] for right in expand(rule, namespace)}


def expand(rule: dict[str, Any], namespace: str) -> list[Right]:
    """A role's rule as single rights."""
    names: Sequence[str] = rule.get("resourceNames") or [""]
    return [
        Right(verb, resource, group, namespace, name)
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in names
    ]
