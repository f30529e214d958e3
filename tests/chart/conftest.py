"""helm without a cluster for what is rendered; one control plane for what is installed."""

import json
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.chart.helm import CRD_NAME, Helm
from tests.chart.installs import INSTALLS, Values
from tests.chart.release import Release
from tests.cluster.audit import Audit
from tests.cluster.controlplane import ControlPlane

Install = Callable[..., Release]
# OpenShift has this one on: with it, making an owner reference that blocks deletion takes a right of its own.
OWNER_REFERENCES = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(params=list(INSTALLS.values()), ids=list(INSTALLS))
def values(request: pytest.FixtureRequest) -> Values:
    chosen: Values = request.param
    return chosen


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="session")
def control_plane(audit: Audit) -> Iterator[ControlPlane]:
    with ControlPlane(apiserver_flags=[*audit.flags(), OWNER_REFERENCES]) as running:
        yield running


@pytest.fixture(scope="session")
def cluster_helm(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"), control_plane.kubeconfig)


@pytest.fixture(scope="session")
def make_namespace(control_plane: ControlPlane) -> Callable[[], str]:
    """A namespace that admits only pods of the strictest Pod Security standard."""

    def make() -> str:
        name = f"test-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        control_plane.kubectl("create", "-f", "-", stdin=json.dumps(namespace))
        return name

    return make


def _installs(control_plane: ControlPlane, helm: Helm, make_namespace: Callable[[], str]) -> Iterator[Install]:
    """Installs the chart in a namespace of its own; afterwards nothing of it is left, the definition included."""
    installed: list[Release] = []

    def make(values: Values | None = None) -> Release:
        release = Release(helm, control_plane, make_namespace())
        installed.append(release)
        release.install(values or {})
        return release

    yield make
    for release in installed:
        release.remove()
    control_plane.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")


@pytest.fixture(scope="module")
def install(control_plane: ControlPlane, cluster_helm: Helm, make_namespace: Callable[[], str]) -> Iterator[Install]:
    yield from _installs(control_plane, cluster_helm, make_namespace)


@pytest.fixture
def install_for_test(
    control_plane: ControlPlane, cluster_helm: Helm, make_namespace: Callable[[], str]
) -> Iterator[Install]:
    yield from _installs(control_plane, cluster_helm, make_namespace)
