"""Where the demo runs: the local cluster that it starts itself, or the one that `KUBECONFIG` names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, lifecycle
from tests.cluster.client import Kubectl, environment
from tests.cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "layercast"
SYSTEM_NAMESPACE = "layercast-system"
_IMAGES = ("operator", "engine-cpu")


@dataclass(frozen=True)
class Place:
    """A cluster to run in. `local` is ours: its Service addresses are reachable from here."""

    kubectl: Kubectl
    local: bool

    def install_chart(self, *values: str) -> None:
        """`helm upgrade --install`, until the operator runs. `values` are `--set` arguments."""
        command = [str(binaries.path("helm")), f"--kubeconfig={self.kubectl.kubeconfig}"]
        command += ["upgrade", "--install", "layercast", str(CHART)]
        command += ["--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"]
        command += [part for value in values for part in ("--set", value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            pods = self.kubectl("get", "pods", "-n", SYSTEM_NAMESPACE, "-o", "wide")
            raise ClusterError(f"helm install: {done.stderr.strip()}\n{pods}")

    @contextmanager
    def address(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """A URL at which `target` (`svc/NAME` or `pod/NAME`) answers while the context lasts."""
        if self.local:
            path = "{.spec.clusterIP}" if target.startswith("svc/") else "{.status.podIP}"
            host = self.kubectl("get", target, "-n", namespace, "-o", f"jsonpath={path}").strip()
            yield f"http://{host}:{port}"
            return
        with _forward(self.kubectl, namespace, target, port) as url:
            yield url


def open_place(nodes: int = 1) -> Place:
    """The user's cluster if `KUBECONFIG` is set, else ours, started if need be."""
    binaries.ensure()
    theirs = os.environ.get("KUBECONFIG")
    if theirs and Path(theirs) != lifecycle.kubeconfig():  # ours may be exported, as the demo itself suggests
        place = Place(Kubectl(Path(theirs)), local=False)
        place.kubectl("get", "nodes")
        return place
    lifecycle.up(nodes)
    return Place(Kubectl(lifecycle.kubeconfig()), local=True)


def load_images(place: Place) -> dict[str, str]:
    """Builds the images and loads them into our cluster; on another one, says what has to be there.

    Returns each image's digest.
    """
    command = [sys.executable, "-m", "images.build", *_IMAGES]
    built = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise ClusterError("the images can't be built; see above")
    archives = [Path(line.split()[0]) for line in built.stdout.splitlines()]
    if place.local:
        lifecycle.load(archives, [])
    else:
        print("Your cluster must have these images (load the archives into its nodes or a registry of yours):")
        for name, archive in zip(_IMAGES, archives, strict=True):
            print(f"  layercast.local/{name}:dev  {archive}")
    return {name: line.split()[1] for name, line in zip(_IMAGES, built.stdout.splitlines(), strict=True)}


@contextmanager
def _forward(kubectl: Kubectl, namespace: str, target: str, port: int) -> Iterator[str]:
    """`kubectl port-forward` on a port that it chooses and prints."""
    command = [str(binaries.path("kubectl")), f"--kubeconfig={kubectl.kubeconfig}", "-n", namespace]
    command += ["port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "127.0.0.1:" not in line:
                raise ClusterError(f"port-forward to {target} failed; see above")
            yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split(' ')[0]}"
        finally:
            process.terminate()
