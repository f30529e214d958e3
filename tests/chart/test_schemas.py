"""What helm renders, and the examples, fit the schemas of a real apiserver; unknown fields are refused."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, CRD_NAME, NAMESPACE, ROOT, Helm, Manifests
from tests.chart.installs import Values
from tests.chart.schemas import Schemas
from tests.cluster import wait
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.apiserver
OURS = "apis/layercast.dev/v1alpha1"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def schemas(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schemas]:
    control_plane.kubectl("apply", "--server-side", "-f", str(CHART / "files/crd.yaml"))
    # The definition is published a moment after it was accepted.
    published = f"{OURS} is in /openapi/v3"
    wait.until(published, lambda: OURS in control_plane.kubectl("get", "--raw", "/openapi/v3"), timeout_s=30)
    yield Schemas(control_plane, tmp_path_factory.mktemp("schemas"))
    control_plane.kubectl("delete", "crd", CRD_NAME)


def test_what_helm_renders_fits(helm: Helm, schemas: Schemas, values: Values) -> None:
    assert schemas.complaints(helm.template(values, namespace=NAMESPACE).objects) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_fit(schemas: Schemas, path: Path) -> None:
    assert schemas.complaints(Manifests.parse(path.read_text()).objects) == []


def test_a_field_that_nobody_knows_does_not_fit(helm: Helm, schemas: Schemas) -> None:
    deployment = deepcopy(helm.template().one("Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    resource = yaml.safe_load((ROOT / "examples/tiny-cpu.yaml").read_text())
    resource["spec"]["model"]["url"] = "image:///model"

    ours, theirs = sorted(schemas.complaints([resource, deployment]), key=lambda each: each.startswith("Deployment"))

    assert "at '/spec/model': additional properties 'url' not allowed" in ours
    assert "securityContext': additional properties 'readOnlyRoot' not allowed" in theirs


def test_a_wrong_type_does_not_fit(helm: Helm, schemas: Schemas) -> None:
    deployment = deepcopy(helm.template().one("Deployment"))
    deployment["spec"]["replicas"] = "2"

    (complaint,) = schemas.complaints([deployment])

    assert "got string, want integer" in complaint
