"""How this package talks to an apiserver: kubeconfig files, kubectl, and a look at /readyz without kubectl."""

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, files
from tests.cluster.errors import ClusterError
from tests.cluster.pki import Pki, User

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def write_kubeconfig(path: Path, *, server: str, pki: Pki, user: User) -> None:
    """Written as JSON, which is YAML; readable by its owner only, since it holds a token."""
    authority = base64.b64encode(pki.file("ca.crt").read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "layercast", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user.name, "user": {"token": pki.token(user)}}],
        "contexts": [{"name": "layercast", "context": {"cluster": "layercast", "user": user.name}}],
        "current-context": "layercast",
    }
    files.write(path, json.dumps(content, indent=1), mode=0o600)


def environment() -> Mapping[str, str]:
    """Ours without proxies: every address here is on this machine."""
    return {name: value for name, value in os.environ.items() if name.lower() not in PROXY_VARIABLES}


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig."""

    kubeconfig: Path

    def __call__(self, *args: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Its stdout. A command that fails or takes longer than the bound raises with what it said."""
        try:
            done = subprocess.run(
                self._command(*args),
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
                env=environment(),
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"kubectl {' '.join(args)}: not done within {timeout_s:.0f} s") from None
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, *args: str) -> subprocess.Popen[str]:
        """A command that goes on, such as port-forward or logs --follow."""
        out = subprocess.PIPE
        return subprocess.Popen(
            self._command(*args), stdout=out, stderr=subprocess.STDOUT, text=True, env=environment()
        )

    def _command(self, *args: str) -> list[str]:
        return [str(binaries.path("kubectl")), f"--kubeconfig={self.kubeconfig}", *args]


def answers_ready(server: str, authority: Path) -> bool:
    """Whether /readyz says ok. /readyz is open to everybody, so this needs no token."""
    no_proxy = urllib.request.ProxyHandler({})
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority)))
    try:
        with urllib.request.build_opener(no_proxy, https).open(f"{server}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
