"""What an install and its upgrades leave on a real apiserver."""

import re

import pytest

from tests.chart.conftest import Install
from tests.chart.helm import CRD_NAME, ROOT, HelmRefused
from tests.chart.release import Release
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    return install()


def test_the_notes_name_what_is_there(release: Release) -> None:
    notes = release.told.partition("NOTES:")[2]

    for kind, name in re.findall(r"(deployment)/(\S+)", notes):
        assert release.get(kind, name)
    examples = re.findall(r"apply -f (\S+)", notes)
    assert examples and all((ROOT / example).is_file() for example in examples)
    assert f"kubectl -n {release.namespace} rollout status" in notes


def test_the_root_secret_is_long_enough_and_random(release: Release) -> None:
    assert re.fullmatch(rb"[A-Za-z0-9]{64}", release.root_secret())


def test_an_upgrade_keeps_the_root_secret(release: Release) -> None:
    before = release.root_secret()
    config = release.get("configmap", "layercast-operator")["data"]

    release.upgrade({"operator": {"workers": 3}})

    assert release.root_secret() == before
    assert release.get("configmap", "layercast-operator")["data"] != config


def test_an_upgrade_leaves_the_lease_to_its_holder(release: Release) -> None:
    held = '{"spec": {"holderIdentity": "operator-0", "leaseDurationSeconds": 15}}'
    release.kubectl("patch", "lease", "layercast-operator", "--type=merge", "-p", held)

    release.upgrade({"operator": {"workers": 4}})

    assert release.get("lease", "layercast-operator")["spec"]["holderIdentity"] == "operator-0"


def test_an_upgrade_brings_the_definition_up_to_date(control_plane: ControlPlane, release: Release) -> None:
    aged = '[{"op": "remove", "path": "/spec/names/shortNames"}]'
    control_plane.kubectl("patch", "crd", CRD_NAME, "--type=json", "-p", aged)

    release.upgrade({"operator": {"workers": 5}})

    names = control_plane.kubectl("get", "crd", CRD_NAME, "-o", "jsonpath={.spec.names.shortNames}")
    assert names == '["dllm"]'


def test_a_second_release_is_told_whose_the_definition_is(release: Release, install: Install) -> None:
    with pytest.raises(HelmRefused, match=r"(?s)CustomResourceDefinition.*exists and cannot be imported"):
        install()


def test_a_secret_of_ones_own_is_asked_for_and_the_made_one_goes(release: Release) -> None:
    release.upgrade({"rootSecret": {"existingSecret": "mine"}})
    told, secrets = release.told, release.kubectl("get", "secrets", "--field-selector=type=Opaque", "-o", "name")
    release.upgrade({})

    assert f"kubectl -n {release.namespace} create secret generic mine --from-literal=secret=" in told
    assert secrets == ""
