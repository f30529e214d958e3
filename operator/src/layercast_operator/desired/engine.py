"""The engine's command line, environment and connector configuration (docs/contracts.md).

Pure text building. User arguments come before the operator's, so that argparse's "the last one wins"
favours the operator even if a spelling slipped through the refusal in `api.flags`.
"""

import json
from dataclasses import dataclass
from typing import Any

from layercast_operator.api.model import ModelSource, Scheme, parse_model_uri
from layercast_operator.api.observed import Manifest
from layercast_operator.api.spec import EnvVar, LayerSync, Role, Spec, Timeouts
from layercast_operator.desired.names import Names
from layercast_operator.presets.preset import Preset

ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
CONNECTOR_CLASS = "LayercastConnector"
CONNECTOR_MODULE = "layercast_connector.connector"
SECRET_FOLDER = "/var/run/secrets/layercast"
SECRET_KEY = "secret"
MODEL_FOLDER = "/models"
CACHE_FOLDER = "/var/cache/layercast"

_LAYER_SYNC = {
    LayerSync.RELOCATED: "relocated",
    LayerSync.SENDER_EVENT: "sender_event",
    LayerSync.SENDER_STREAM: "sender_stream",
}
_KV_ROLE = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}


@dataclass(frozen=True)
class PodInput:
    """Everything that a role's pods are made from."""

    resource: str
    namespace: str
    names: Names
    spec: Spec
    preset: Preset
    role: Role
    revision: str

    @property
    def source(self) -> ModelSource:
        return parse_model_uri(self.spec.model.uri)


def model_argument(source: ModelSource) -> str:
    if source.scheme is Scheme.CLAIM:
        return f"{MODEL_FOLDER}/{source.path}".rstrip("/")
    if source.scheme is Scheme.NODE_PATH:
        return MODEL_FOLDER
    return source.path


def engine_args(pod: PodInput) -> list[str]:
    spec, role = pod.spec, pod.spec.role(pod.role)
    owned: dict[str, object] = {
        "--model": model_argument(pod.source),
        "--served-model-name": spec.model.served_name or pod.resource,
        "--host": "0.0.0.0",
        "--port": pod.preset.ports(pod.role).http,
        "--tensor-parallel-size": role.parallelism.tensor,
        "--revision": spec.model.revision,
        "--max-model-len": spec.engine.max_model_len,
        "--block-size": spec.engine.block_size,
        "--kv-cache-dtype": spec.engine.kv_cache_dtype,
        "--kv-transfer-config": json.dumps(kv_transfer_config(pod), sort_keys=True, separators=(",", ":")),
    }
    args = [*pod.preset.engine_args, *spec.engine.args, *role.engine_args]
    for flag, value in owned.items():
        args += [] if value is None else [flag, str(value)]
    return args


def kv_transfer_config(pod: PodInput) -> dict[str, Any]:
    return {
        "kv_connector": CONNECTOR_CLASS,
        "kv_connector_module_path": CONNECTOR_MODULE,
        "kv_role": _KV_ROLE[pod.role],
        "kv_load_failure_policy": pod.spec.connector.on_prefill_failure.value.lower(),
        "kv_connector_extra_config": connector_config(pod),
    }


def connector_config(pod: PodInput) -> dict[str, Any]:
    connector = pod.spec.connector
    config: dict[str, Any] = {
        "role": pod.role.value,
        "control_port": pod.preset.ports(pod.role).control,
        "layer_sync": _LAYER_SYNC[connector.layer_sync],
        "lookahead": connector.lookahead,
        "min_remote_tokens": connector.min_remote_tokens,
        "on_prefill_failure": connector.on_prefill_failure.value.lower(),
        "protocol": pod.preset.mooncake_protocol,
        "secret_file": f"{SECRET_FOLDER}/{SECRET_KEY}",
    }
    if connector.report_in_response:
        config["report_in_response"] = True
    if timeouts := _timeouts(connector.timeouts):
        config["timeouts"] = timeouts
    if pod.role is Role.DECODE:
        config["prefill_pods"] = _prefill_pods(pod)
    return config


def _prefill_pods(pod: PodInput) -> dict[str, Any]:
    ports = pod.preset.ports(Role.PREFILL)
    service = pod.names.prefill_service(pod.revision)
    return {"dns": f"{service}.{pod.namespace}.svc", "api_port": ports.http, "control_port": ports.control}


def _timeouts(timeouts: Timeouts) -> dict[str, int]:
    values = {name: getattr(timeouts, f"{name}_seconds") for name in _TIMEOUT_NAMES}
    return {name: value for name, value in values.items() if value is not None}


_TIMEOUT_NAMES = tuple(name.removesuffix("_seconds") for name in Timeouts.__struct_fields__)


def engine_env(pod: PodInput) -> list[Manifest]:
    """Preset, then user, then what the operator owns; one entry per name (a double one fails an apply)."""
    entries = {name: {"name": name, "value": value} for name, value in pod.preset.env.items()}
    entries |= {name: _pod_ip(name) for name in pod.preset.pod_ip_env}
    entries |= {entry.name: _user_env(entry) for entry in pod.spec.engine.env}
    entries |= {entry["name"]: entry for entry in _owned_env(pod)}
    return [entries[name] for name in sorted(entries)]


def _owned_env(pod: PodInput) -> list[Manifest]:
    entries: list[Manifest] = [
        _pod_ip("VLLM_HOST_IP"),
        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
        {"name": "DO_NOT_TRACK", "value": "1"},
        {"name": "HF_HOME", "value": f"{CACHE_FOLDER}/huggingface"},
    ]
    if pod.source.scheme is not Scheme.HUGGING_FACE:
        entries.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if token := pod.spec.model.token_secret_ref:
        entries.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}})
    return entries


def _pod_ip(name: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}


def _user_env(entry: EnvVar) -> Manifest:
    source = entry.value_from
    if source is None:
        return {"name": entry.name, "value": entry.value or ""}
    refs = {"secretKeyRef": source.secret_key_ref, "configMapKeyRef": source.config_map_key_ref}
    value_from = {kind: {"name": ref.name, "key": ref.key} for kind, ref in refs.items() if ref is not None}
    return {"name": entry.name, "valueFrom": value_from}
