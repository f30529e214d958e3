"""The operator as the chart would start it: its arguments, config, secret and account, on this machine."""

import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from tests.chart.release import Release
from tests.cluster.client import environment
from tests.cluster.process import Daemon
from tests.ports import free_ports

# The image's entrypoint (images/spec.py).
_ENTRYPOINT = Path(sys.executable).with_name("layercast-operator")


class OperatorProcess:
    def __init__(self, release: Release, folder: Path) -> None:
        self._release = release
        self.port = free_ports(1)
        container = release.manifests.pod()["spec"]["containers"][0]
        config = self._config(folder, container["args"][1])
        variables = {
            **environment(),
            "KUBECONFIG": str(release.kubeconfig(folder)),
            "POD_NAME": "operator-0",
            "POD_NAMESPACE": release.namespace,
        }
        assert {each["name"] for each in container["env"]} == {"POD_NAME", "POD_NAMESPACE"}
        prefix = ["/usr/bin/env", "--ignore-environment", *(f"{name}={value}" for name, value in variables.items())]
        argv = [sys.executable, str(_ENTRYPOINT), container["args"][0], str(config)]
        self.daemon = Daemon("layercast-operator", argv, folder=folder, prefix=lambda: prefix)

    def _config(self, folder: Path, mounted_at: str) -> Path:
        """The ConfigMap as it is in the cluster; but paths are of this machine, and the port is a free one."""
        data = self._release.get("configmap", self._release.manifests.one("ConfigMap")["metadata"]["name"])["data"]
        config = yaml.safe_load(data[Path(mounted_at).name])
        secret = folder / "root-secret"
        secret.write_bytes(self._release.root_secret())
        here = {"rootSecretFile": str(secret), "http": {"host": "127.0.0.1", "port": self.port}}
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config | here))
        return path

    def answers(self, path: str) -> bool:
        """Whether it says 200 at one of the probes' paths."""
        no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with no_proxy.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
