"""What an uninstall leaves on a real apiserver, and what the next install makes of it."""

import pytest

from tests.chart.conftest import Install
from tests.chart.helm import CRD_NAME, RELEASE
from tests.chart.release import Release
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.apiserver
LABEL = f"app.kubernetes.io/instance={RELEASE}"
DEFINITION = f"customresourcedefinition.apiextensions.k8s.io/{CRD_NAME}"


def left_over(control_plane: ControlPlane, release: Release) -> set[str]:
    """Everything in the release's namespace, and everything in the cluster that is labelled as the release's."""
    labelled = control_plane.kubectl("get", _kinds(control_plane), "-A", "-l", LABEL, "-o", "name")
    in_namespace = release.kubectl("get", _kinds(control_plane, "--namespaced"), "-o", "name")
    return {*labelled.split(), *in_namespace.split()}


def _kinds(control_plane: ControlPlane, *scope: str) -> str:
    """All but ours, which the apiserver still names for a moment after its definition has gone."""
    kinds = control_plane.kubectl("api-resources", "--verbs=list", "--output=name", *scope).split()
    return ",".join(kind for kind in kinds if not kind.endswith(".layercast.dev"))


def test_an_uninstall_leaves_only_the_definition_and_the_next_install_takes_it_over(
    control_plane: ControlPlane, install_for_test: Install
) -> None:
    release = install_for_test()

    release.uninstall()
    assert left_over(control_plane, release) == {DEFINITION}

    release.install({})
    assert DEFINITION in left_over(control_plane, release)


def test_an_uninstall_takes_the_definition_too_when_asked_to(
    control_plane: ControlPlane, install_for_test: Install
) -> None:
    release = install_for_test({"crds": {"keep": False}})

    release.uninstall()

    assert left_over(control_plane, release) == set()
