"""The chart installed on a control plane: what it made there, and who its operator is."""

import base64
import json
from pathlib import Path

from tests.chart.helm import CHART, RELEASE, Helm, Manifests, Object
from tests.chart.installs import Values
from tests.cluster.controlplane import ControlPlane


class Release:
    def __init__(self, helm: Helm, control_plane: ControlPlane, namespace: str) -> None:
        self._helm = helm
        self._control_plane = control_plane
        self.namespace = namespace
        self.told = ""  # what helm printed last: the notes
        self._manifests: Manifests | None = None

    def install(self, values: Values) -> None:
        self._send("install", values)

    def upgrade(self, values: Values) -> None:
        self._send("upgrade", values)

    def _send(self, command: str, values: Values) -> None:
        self._manifests = None
        self.told = self._helm(command, RELEASE, str(CHART), self._in_namespace, values=values)

    def uninstall(self) -> None:
        self._helm("uninstall", RELEASE, self._in_namespace)

    def remove(self) -> None:
        """Uninstalls it, if it is there."""
        if RELEASE in self._helm("list", "--all", "--short", self._in_namespace).split():
            self.uninstall()

    @property
    def _in_namespace(self) -> str:
        return f"--namespace={self.namespace}"

    @property
    def manifests(self) -> Manifests:
        """What helm has sent."""
        if self._manifests is None:
            self._manifests = Manifests.parse(self._helm("get", "manifest", RELEASE, self._in_namespace))
        return self._manifests

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self._control_plane.kubectl(*args, self._in_namespace, stdin=stdin)

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def root_secret(self) -> bytes:
        return base64.b64decode(self.get("secret", f"{RELEASE}-root")["data"]["secret"])

    @property
    def account(self) -> str:
        name: str = self.manifests.pod()["spec"]["serviceAccountName"]
        return name

    @property
    def user(self) -> str:
        """The operator, as the apiserver knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def kubeconfig(self, folder: Path) -> Path:
        """The operator's credentials: its ServiceAccount's token."""
        config = json.loads(self._control_plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self.kubectl("create", "token", self.account).strip()}
        path = folder / "operator.kubeconfig"
        path.write_text(json.dumps(config))
        return path
