"""The pod of one role: what a revision is made of.

Nothing in here may depend on replica counts, on the public Service or on the clock: whatever changes this
template is a new revision, with new pods.
"""

from dataclasses import replace

from layercast_operator.api.model import Scheme
from layercast_operator.api.observed import Manifest
from layercast_operator.api.spec import Role
from layercast_operator.desired.command import launch_script, preflight_script
from layercast_operator.desired.engine import (
    CACHE_FOLDER,
    ENGINE_MODULE,
    MODEL_FOLDER,
    SECRET_FOLDER,
    SECRET_KEY,
    PodInput,
    engine_args,
    engine_env,
)
from layercast_operator.presets.preset import HostFile

_HOST_ROOT = "/host"  # where the preflight sees the node's folders
_TERMINATION_GRACE_SECONDS = 60
_PROBE_PERIOD_SECONDS = 5


def pod_template(pod: PodInput) -> Manifest:
    labels = {**pod.names.labels(), **pod.names.selector(pod.role, pod.revision)}
    return {"metadata": {"labels": labels}, "spec": _pod_spec(pod)}


def _pod_spec(pod: PodInput) -> Manifest:
    scheduling = pod.spec.role(pod.role).scheduling
    spec: Manifest = {
        "serviceAccountName": pod.names.account,
        "automountServiceAccountToken": False,
        # A Service named `vllm` would set VLLM_PORT, which the engine reads.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _TERMINATION_GRACE_SECONDS,
        "affinity": _spread(pod) if scheduling.affinity is None else scheduling.affinity,
        "containers": [_engine_container(pod)],
        "volumes": _volumes(pod),
    }
    if pod.preset.host_files:
        spec["initContainers"] = [_preflight_container(pod)]
    if pod.preset.host_network:
        # The default policy would take the node's resolver, and discovery would fail in silence.
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if pod.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": ref.name} for ref in pod.spec.image_pull_secrets]
    if scheduling.node_selector:
        spec["nodeSelector"] = scheduling.node_selector
    if scheduling.tolerations:
        spec["tolerations"] = list(scheduling.tolerations)
    return spec


def _spread(pod: PodInput) -> Manifest:
    """Prefer a node without another pod of this resource, whatever its role; never insist."""
    term = {
        "labelSelector": {"matchLabels": pod.names.labels()},
        "topologyKey": "kubernetes.io/hostname",
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _image(pod: PodInput) -> Manifest:
    return {"image": pod.spec.image or pod.preset.image, "imagePullPolicy": pod.preset.image_pull_policy}


def _engine_container(pod: PodInput) -> Manifest:
    container: Manifest = {
        "name": "engine",
        **_image(pod),
        "command": ["/bin/bash", "-c", launch_script(pod.preset.sources, pod.preset.preload), "engine"],
        "args": ["python3", "-m", ENGINE_MODULE, *engine_args(pod)],
        "env": engine_env(pod),
        "ports": _container_ports(pod),
        "resources": _resources(pod),
        "volumeMounts": _mounts(pod),
        # Loading a model takes minutes to an hour, so only the startup probe is patient.
        "startupProbe": _probe(pod, failures=max(1, pod.preset.startup_seconds // _PROBE_PERIOD_SECONDS)),
        "readinessProbe": _probe(pod, failures=2),
        "livenessProbe": _probe(pod, failures=12),
        # The engine's last words land in the pod's status, where the operator's users look first.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if pod.preset.security_context:
        container["securityContext"] = pod.preset.security_context
    return container


def _container_ports(pod: PodInput) -> list[Manifest]:
    ports, ranks = pod.preset.ports(pod.role), pod.spec.role(pod.role).parallelism.tensor
    numbers = {"http": ports.http, "control": ports.control}
    numbers |= {f"control-{rank}": ports.control + 1 + rank for rank in range(ranks)}
    return [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in numbers.items()]


def _probe(pod: PodInput, failures: int) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": pod.preset.ports(pod.role).http},
        "periodSeconds": _PROBE_PERIOD_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _resources(pod: PodInput) -> Manifest:
    role, preset = pod.spec.role(pod.role), pod.preset
    requests = {**preset.resources.requests, **role.resources.requests}
    limits = {**preset.resources.limits, **role.resources.limits}
    if preset.accelerator:
        # Extended resources are asked for by limit; the request follows.
        limits = {preset.accelerator.resource_name: role.parallelism.tensor, **limits}
    both = {"requests": requests, "limits": limits}
    return {name: {key: str(value) for key, value in values.items()} for name, values in both.items() if values}


def _volumes(pod: PodInput) -> list[Manifest]:
    return [
        {
            "name": "connector-secret",
            "secret": {"secretName": pod.names.secret, "items": [{"key": SECRET_KEY, "path": SECRET_KEY}]},
        },
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pod.preset.shared_memory}},
        {"name": "cache", "emptyDir": {}},
        *_model_volumes(pod),
        *({"name": name, "hostPath": {"path": root, "type": "Directory"}} for root, name in _roots(pod).items()),
    ]


def _model_volumes(pod: PodInput) -> list[Manifest]:
    source = pod.source
    if source.scheme is Scheme.CLAIM:
        return [{"name": "model", "persistentVolumeClaim": {"claimName": source.claim, "readOnly": True}}]
    if source.scheme is Scheme.NODE_PATH:
        return [{"name": "model", "hostPath": {"path": source.path, "type": "Directory"}}]
    return []


def _mounts(pod: PodInput) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "connector-secret", "mountPath": SECRET_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "cache", "mountPath": CACHE_FOLDER},
    ]
    if _model_volumes(pod):
        mounts.append({"name": "model", "mountPath": MODEL_FOLDER, "readOnly": True})
    return mounts + [_host_mount(pod, file) for file in pod.preset.host_files]


def _host_mount(pod: PodInput, file: HostFile) -> Manifest:
    return {"name": _roots(pod)[file.root], "mountPath": file.full_path, "subPath": file.path, "readOnly": True}


def _roots(pod: PodInput) -> dict[str, str]:
    """Node folder → volume name."""
    return {file.root: f"host{file.root.replace('/', '-')}" for file in pod.preset.host_files}


def _preflight_container(pod: PodInput) -> Manifest:
    """Fails the pod on a node that lacks what the engine needs, before the engine answers garbage."""
    return {
        "name": "preflight",
        **_image(pod),
        "command": ["/bin/sh", "-c", preflight_script(_HOST_ROOT), "preflight"],
        "args": [file.full_path for file in pod.preset.host_files],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": name, "mountPath": f"{_HOST_ROOT}{root}", "readOnly": True} for root, name in _roots(pod).items()
        ],
    }


def role_pods(pod: PodInput) -> dict[str, Manifest]:
    """Both roles' templates of one revision; `pod.role` does not matter."""
    return {role.value: pod_template(replace(pod, role=role)) for role in Role}
