"""The Deployments of a revision, one per role."""

from layercast_operator.api.kinds import DEPLOYMENT
from layercast_operator.api.observed import Manifest
from layercast_operator.api.spec import Role
from layercast_operator.desired.names import Names

# On top of the startup probe's patience: scheduling and pulling the image.
_PULL_SECONDS = 900


def deployment(
    names: Names, role: Role, revision: str, *, replicas: int, template: Manifest, startup_seconds: int
) -> Manifest:
    selector = names.selector(role, revision)
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": names.workload(role, revision), "labels": {**names.labels(), **selector}},
        "spec": {
            # Always stated: an apply that leaves it out gives one replica.
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "template": template,
            # The template of a revision never changes; if it is forced to, no second set of accelerators is there.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": startup_seconds + _PULL_SECONDS,
        },
    }
