"""One DisaggregatedLLM in a cluster: applied, watched until Ready, and its pods found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.cluster import SYSTEM_NAMESPACE, Place
from tests.cluster import wait
from tests.cluster.errors import ClusterError
from tests.engines.metrics import Metrics, parse

READY_TIMEOUT_S = 600
_IMAGE_ANNOTATION = "demo.layercast.dev/engine-image"


@dataclass(frozen=True)
class Resource:
    """`name` in `namespace`; nothing needs to exist yet."""

    place: Place
    namespace: str
    name: str

    def apply(self, manifest: Path) -> None:
        """`kubectl apply`, in a namespace that is made if need be."""
        kubectl = self.place.kubectl
        found = kubectl("get", "namespace", self.namespace, "--ignore-not-found", "-o", "name")
        if not found:
            kubectl("create", "namespace", self.namespace)
        kubectl("apply", "-n", self.namespace, "-f", str(manifest))

    def use_image(self, digest: str) -> None:
        """Restarts the pods if they run another image under the same name; remembers this one."""
        kubectl, here = self.place.kubectl, ("-n", self.namespace)
        known = self.get()["metadata"].get("annotations", {}).get(_IMAGE_ANNOTATION)
        kubectl("annotate", "dllm", self.name, *here, "--overwrite", f"{_IMAGE_ANNOTATION}={digest}")
        if known not in (None, digest):
            selector = f"layercast.dev/resource={self.name}"
            kubectl("rollout", "restart", "deployment", *here, "-l", selector)
            kubectl("rollout", "status", "deployment", *here, "-l", selector, timeout_s=READY_TIMEOUT_S)

    def get(self) -> dict[str, Any]:
        """The resource as the apiserver has it."""
        found: dict[str, Any] = json.loads(
            self.place.kubectl("get", "dllm", self.name, "-n", self.namespace, "-o", "json")
        )
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, "reason: message") of a condition; "Unknown" before it is there."""
        for condition in self.get().get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], f"{condition['reason']}: {condition['message']}"
        return "Unknown", "the operator has not said anything yet"

    def await_ready(self, say: Callable[[str], None] = print, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits for Ready, saying what it waits for. Raises with the pods' reasons."""
        last = ""
        deadline = time.monotonic() + timeout_s

        def ready() -> bool:
            nonlocal last
            status, why = self.condition("Ready")
            if why != last:
                say(f"Ready={status}  {why}  ({deadline - time.monotonic():.0f} s left)")
                last = why
            return status == "True"

        wait.until(f"{self.name} is Ready", ready, timeout_s=timeout_s, blame=self.reasons)

    def pods(self, role: str) -> list[dict[str, Any]]:
        """The running pods of a role."""
        selector = f"layercast.dev/resource={self.name},layercast.dev/role={role}"
        found = self.place.kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "json")
        return [pod for pod in json.loads(found)["items"] if not pod["metadata"].get("deletionTimestamp")]

    def pod_name(self, role: str) -> str:
        """The only pod of a role."""
        names = [pod["metadata"]["name"] for pod in self.pods(role)]
        if len(names) != 1:
            raise ClusterError(f"expected one {role} pod, found {names}")
        return str(names[0])

    def metrics(self, role: str) -> Metrics:
        """One scrape of a role's only pod, through the apiserver."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod_name(role)}:8000/proxy/metrics"
        return parse(self.place.kubectl("get", "--raw", path))

    def reasons(self) -> str:
        """Why it isn't Ready, as the cluster tells it: pods, their last lines, events, the operator's log."""
        kubectl = self.place.kubectl
        parts = [kubectl("get", "pods", "-n", self.namespace, "-o", "wide")]
        for role in ("prefill", "decode"):
            for pod in self.pods(role):
                name = pod["metadata"]["name"]
                parts.append(f"--- {name}\n" + _try(kubectl, "logs", "-n", self.namespace, name, "--tail=15"))
        parts.append(_try(kubectl, "get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp")[-3000:])
        parts.append(_try(kubectl, "logs", "-n", SYSTEM_NAMESPACE, "deploy/layercast-operator", "--tail=15"))
        return "\n".join(parts)


def _try(kubectl: Callable[..., str], *args: str) -> str:
    try:
        return kubectl(*args)
    except ClusterError as error:
        return str(error)
