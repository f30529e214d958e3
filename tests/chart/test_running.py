"""The operator process with the chart's account, config and secret: its rights are enough, and the Lease is its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart.conftest import Install
from tests.chart.helm import ROOT
from tests.chart.installs import Values
from tests.chart.operator_process import OperatorProcess
from tests.chart.release import Release
from tests.cluster.audit import Audit
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.apiserver

# On a busy machine a test must not lose the Lease.
PATIENT: Values = {"leaderElection": {"leaseSeconds": 120, "renewSeconds": 100, "periodSeconds": 2}}
EXAMPLE = ROOT / "examples/tiny-cpu.yaml"
CHILDREN = "serviceaccounts,secrets,controllerrevisions,services,deployments"
OURS = "app.kubernetes.io/managed-by=layercast-operator"
BOUND = "--timeout=60s"

Start = Callable[[Release], OperatorProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the operator of a release; what it wrote is shown when the test fails."""
    started: list[OperatorProcess] = []

    def make(release: Release) -> OperatorProcess:
        process = OperatorProcess(release, tmp_path)
        started.append(process)
        process.daemon.start()
        return process

    yield make
    for process in started:
        print(process.daemon.tail())
        process.daemon.kill()


def reconciled(control_plane: ControlPlane, namespace: str) -> None:
    """A resource gets its children, and a child deleted by hand comes back."""

    def kubectl(*args: str) -> str:
        return control_plane.kubectl(*args, f"--namespace={namespace}", timeout_s=90)

    kubectl("apply", "-f", str(EXAMPLE))
    kubectl("wait", "dllm/tiny", "--for=jsonpath={.status.observedGeneration}=1", BOUND)
    kinds = [line.split("/")[0] for line in kubectl("get", CHILDREN, "-l", OURS, "-o", "name").split()]
    assert sorted(kinds) == [
        "controllerrevision.apps",
        "deployment.apps",
        "deployment.apps",
        "secret",
        "service",
        "service",
        "serviceaccount",
    ]
    kubectl("delete", "service", "tiny")
    kubectl("wait", "service/tiny", "--for=create", BOUND)


@pytest.mark.parametrize("scope", ["cluster-wide", "namespaced"])
def test_the_chart_s_operator_reconciles(
    control_plane: ControlPlane,
    audit: Audit,
    install_for_test: Install,
    make_namespace: Callable[[], str],
    start: Start,
    scope: str,
) -> None:
    models = make_namespace()
    release = install_for_test(PATIENT | ({"watchNamespaces": [models]} if scope == "namespaced" else {}))
    operator = start(release)
    reconciled(control_plane, models)
    user = release.user

    assert operator.answers("/healthz") and operator.answers("/metrics")
    assert release.get("lease", "layercast-operator")["spec"]["holderIdentity"] == "operator-0"
    assert audit.requests(user) and audit.refused(user) == []

    # Its children stay (nothing restarts), the Lease goes though its holder still renews it.
    release.uninstall()

    assert release.kubectl("get", "leases", "-o", "name") == ""
    assert "deployment.apps/tiny" in control_plane.kubectl("get", "deployments", "-n", models, "-o", "name")
