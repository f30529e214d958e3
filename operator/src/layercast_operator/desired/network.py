"""The Services: one for clients, and per revision one that lets decode pods find their prefill pods."""

from layercast_operator.api.kinds import LABEL_REVISION, LABEL_ROLE, LABEL_SERVES, SERVICE
from layercast_operator.api.observed import Manifest
from layercast_operator.api.spec import Endpoint, Role
from layercast_operator.desired.names import Names
from layercast_operator.presets.preset import Preset


def public_service(names: Names, endpoint: Endpoint, serving: str) -> Manifest:
    """Stable for clients; it points to the decode pods of one revision, so that none is mixed in early."""
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.name,
        "metadata": {"name": names.service, "labels": {**names.labels(), LABEL_SERVES: serving}},
        "spec": {
            "type": endpoint.service_type,
            "selector": names.selector(Role.DECODE, serving),
            "ports": [{"name": "http", "port": endpoint.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def prefill_service(names: Names, revision: str, preset: Preset) -> Manifest:
    """Headless: its DNS name resolves to the ready prefill pods of this revision."""
    ports = preset.ports(Role.PREFILL)
    numbers = {"http": ports.http, "control": ports.control}
    labels = {**names.labels(), LABEL_ROLE: Role.PREFILL.value, LABEL_REVISION: revision}
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.name,
        "metadata": {"name": names.prefill_service(revision), "labels": labels},
        "spec": {
            "clusterIP": "None",
            "selector": names.selector(Role.PREFILL, revision),
            "ports": [
                {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
                for name, number in numbers.items()
            ],
        },
    }
