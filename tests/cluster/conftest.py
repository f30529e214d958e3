"""A cluster of two nodes for each test module that asks for one, in an instance beside the machine's own cluster."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Kubectl
from tests.cluster.oci import write_image
from tests.cluster.testbed import APPLETS, IMAGE, Pod, cli, manifests, running_pods


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("image") / "busybox.oci.tar"
    links = {f"bin/{applet}": "busybox" for applet in APPLETS}
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    write_image(archive, IMAGE, files={"bin/busybox": busybox}, links=links, command=["sh"])
    return archive


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    if os.geteuid() != 0:
        pytest.skip("the local Kubernetes needs root")
    cli("debs")
    cli("down")
    cli("up", "--nodes", "2")
    yield Kubectl(Path(cli("kubeconfig").strip()))
    cli("down")


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl, image: Path) -> dict[str, Pod]:
    """A web server's pod on each node: its name and its address."""
    cli("load", str(image))
    kubectl("apply", "-f", "-", stdin=manifests())
    kubectl("rollout", "status", "daemonset/web", "--timeout=180s", timeout_s=190)
    return running_pods(kubectl)
