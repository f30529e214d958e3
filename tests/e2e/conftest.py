"""The whole thing on a cluster of two nodes: chart, operator, resource, real vLLM pods, real Mooncake between nodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.demo.ask import await_remote
from examples.demo.cluster import ROOT, Place, load_images, open_place
from examples.demo.resource import Resource
from tests.cluster import lifecycle

NAMESPACE, NAME, PORT = "layercast-e2e", "tiny", 8000


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """Two nodes with our images and our chart. A cluster that ran before stays, one that we started goes."""
    ran_before = lifecycle.status()
    place = open_place(nodes=2)
    digests = load_images(place)
    place.install_chart(f"podAnnotations.image={digests['operator']}")
    yield place
    if not ran_before:
        lifecycle.down()


@pytest.fixture(scope="session")
def manifest(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with prefill on the first node and decode on the second."""
    nodes = place.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    resource: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "tiny-cpu.yaml").read_text())
    for role, node in zip(("prefill", "decode"), nodes, strict=False):
        selector = {"kubernetes.io/hostname": node}
        resource["spec"].setdefault(role, {})["scheduling"] = {"nodeSelector": selector}
    path = tmp_path_factory.mktemp("e2e") / "tiny.json"
    path.write_text(json.dumps(resource))
    return path


@pytest.fixture(scope="session")
def resource(place: Place, manifest: Path) -> Resource:
    """The resource, Ready. Its deletion is a test."""
    resource = Resource(place, NAMESPACE, NAME)
    resource.apply(manifest)
    resource.await_ready()
    return resource


@pytest.fixture
async def public(resource: Resource) -> Any:
    """The public Service's URL, once decode has found its prefill pod."""
    with resource.place.address(NAMESPACE, f"svc/{NAME}", PORT) as url:
        await await_remote(resource, url)
        yield url
