"""The values with which the chart is mostly installed. Everything about the chart as a whole is tested with each."""

from typing import Any

Values = dict[str, Any]

CLUSTER_WIDE: Values = {}
NAMESPACED: Values = {"watchNamespaces": ["team-a", "team-b"], "crds": {"install": False}}
GIVEN: Values = {
    "crds": {"keep": False},
    "rootSecret": {"existingSecret": "from-the-vault", "key": "root"},
    "serviceAccount": {"create": False, "name": "made-by-hand"},
    "rbac": {"create": False},
    "runAsUser": None,
}
SCHEDULED: Values = {
    "replicas": 2,
    "image": {"repository": "registry.example/layercast/operator", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control-plane", "operator": "Exists"}],
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "other"}}}
            ]
        }
    },
    "podLabels": {"team": "serving"},
    "podAnnotations": {"note": "kept"},
    "serviceAccount": {"annotations": {"note": "kept"}},
    "metricsService": {"annotations": {"prometheus.io/scrape": "true"}},
    "fullnameOverride": "serving",
}

INSTALLS = {"cluster-wide": CLUSTER_WIDE, "namespaced": NAMESPACED, "all given": GIVEN, "scheduled": SCHEDULED}
