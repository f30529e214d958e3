"""One control plane for all tests in here; a namespace and an operator of its own for each test."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from layercast_operator.api.kinds import OPERATOR_NAME, RESOURCE

from tests.cluster.audit import Audit
from tests.cluster.controlplane import GARBAGE_COLLECTION, ControlPlane
from tests.cluster.wait import until
from tests.operator.apiserver.kube import NAMESPACE, Kube, Refused
from tests.operator.apiserver.operator_process import OperatorProcess, role, rules
from tests.operator.builders import CRD

Start = Callable[..., OperatorProcess]


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="session")
def control_plane(audit: Audit) -> Iterator[ControlPlane]:
    with ControlPlane(GARBAGE_COLLECTION, apiserver_flags=audit.flags()) as running:
        running.kubectl("apply", "-f", str(CRD))
        kube = Kube(running.kubeconfig)
        until("the resource is served", lambda: _is_served(kube), timeout_s=30)
        yield running


def _is_served(kube: Kube) -> bool:
    try:
        return kube.all(RESOURCE, "default") == []
    except Refused:
        return False


@pytest.fixture(scope="session")
def kube(control_plane: ControlPlane) -> Kube:
    return Kube(control_plane.kubeconfig)


@pytest.fixture(scope="session")
def operator_kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The credentials of a service account, which has no rights yet."""
    control_plane.kubectl("create", "serviceaccount", OPERATOR_NAME)
    token = control_plane.kubectl("create", "token", OPERATOR_NAME, "--duration=2h").strip()
    config = json.loads(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("kubeconfig") / "operator.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kube.call("DELETE", RESOURCE.path(name))
    kube.delete(NAMESPACE, "", name)


@pytest.fixture
def start_operator(namespace: str, kube: Kube, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts operators that look after the test's namespace only, with the rights of a namespaced install."""
    for manifest in role("Role", namespace, rules("resource") + rules("lease")):
        kube.create(manifest)
    started: list[OperatorProcess] = []

    def start(name: str = "operator-0", **config: Any) -> OperatorProcess:
        settings = {"namespaces": [namespace], **config}
        started.append(OperatorProcess(tmp_path, operator_kubeconfig, namespace, name, **settings).start())
        return started[-1]

    yield start
    for process in started:
        _end(process)


@pytest.fixture(scope="module")
def cluster_operator(
    kube: Kube, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """One operator for all namespaces, with the rights of a cluster-wide install."""
    manifests = [
        *role("ClusterRole", "", rules("resource") + rules("cluster")),
        *role("Role", "default", rules("lease")),
    ]
    for manifest in manifests:
        kube.create(manifest)
    process = OperatorProcess(tmp_path_factory.mktemp("operator"), operator_kubeconfig, "default").start()
    yield process
    _end(process)


def _end(process: OperatorProcess) -> None:
    process.kill()
    print(f"--- log of {process.name}\n{process.text()}")  # pytest shows it when a test failed
