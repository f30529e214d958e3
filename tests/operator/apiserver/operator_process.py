"""The operator as a real process, under the rights of the chart's roles and nothing more."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from layercast_operator.api.kinds import OPERATOR_NAME

from tests.cluster.wait import until
from tests.operator.apiserver.kube import LEASE, Kube
from tests.operator.builders import ROOT, platforms_data
from tests.ports import free_ports

_RULES = ROOT / "charts/layercast/files/operator-rules.yaml"


class OperatorProcess:
    """One operator. Its Lease is in `namespace`, so that operators of other tests don't matter."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str, name: str = "operator-0", **config: Any) -> None:
        self.name, self.namespace = name, namespace
        self.port = free_ports(1)
        self._kubeconfig = kubeconfig
        self._log = folder / f"{name}.log"
        self._config = folder / f"{name}.yaml"
        secret = folder / "root-secret"
        secret.write_text("0123456789abcdef0123456789abcdef")
        content = {
            "platforms": platforms_data(),
            "rootSecretFile": str(secret),
            "http": {"host": "127.0.0.1", "port": self.port},
            "leaderElection": {"leaseSeconds": 120, "renewSeconds": 100, "periodSeconds": 2},
            **config,
        }
        self._config.write_text(yaml.safe_dump(content))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "OperatorProcess":
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAME": self.name,
            "POD_NAMESPACE": self.namespace,
        }
        command = [sys.executable, "-m", "layercast_operator.wiring.main", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wait_until_leading(self, kube: Kube) -> None:
        kube.wait(
            LEASE,
            self.namespace,
            lambda leases: any(lease["spec"].get("holderIdentity") == self.name for lease in leases),
            f"{self.name} leads",
        )

    def wait_until_up(self) -> None:
        until(f"{self.name} answers", self._is_up, timeout_s=60, blame=self.text)

    def _is_up(self) -> bool:
        try:
            return self.get("/healthz") == "ok\n"
        except OSError:
            return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def logs(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def text(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


def rules(name: str) -> list[dict[str, Any]]:
    """One list of the chart's rules."""
    content: list[dict[str, Any]] = yaml.safe_load(_RULES.read_text())[name]
    return content


def role(kind: str, namespace: str, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A Role or ClusterRole for the operator's service account (of the namespace `default`), and its binding."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": OPERATOR_NAME, **({"namespace": namespace} if kind == "Role" else {})}
    return [
        {"apiVersion": f"{api}/v1", "kind": kind, "metadata": metadata, "rules": content},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": kind, "name": OPERATOR_NAME},
            "subjects": [{"kind": "ServiceAccount", "name": OPERATOR_NAME, "namespace": "default"}],
        },
    ]
