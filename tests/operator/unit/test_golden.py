"""What both platforms render to, whole. A change shows as a diff of these files.

After a change on purpose: `pytest tests/operator/unit/test_golden.py --update`, then read the diff.
"""

from pathlib import Path

import pytest
import yaml
from layercast_operator.api.observed import Observed, Resource
from layercast_operator.desired.build import build_desired

from tests.operator.builders import ROOT, example, platforms

GOLDEN = ROOT / "tests/operator/golden"


def rendered(file: str) -> str:
    data = example(file)
    resource = Resource("default", data["metadata"]["name"], "uid", 1, deleting=False, spec=data["spec"], status={})
    children = build_desired(resource, Observed(), platforms(), "connector-secret").children
    for child in children:
        child.pop("data", None)  # the record's pods are those of the Deployments; the secret is the connector's
    return yaml.safe_dump_all(children, sort_keys=True, width=110)


@pytest.mark.parametrize("file", ["tiny-cpu.yaml", "ascend-minimal.yaml"])
def test_golden(file: str, request: pytest.FixtureRequest) -> None:
    path: Path = GOLDEN / file
    if request.config.getoption("--update", default=False):
        path.write_text(rendered(file))
    assert rendered(file) == path.read_text()
