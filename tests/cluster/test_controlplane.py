"""The control plane that other tests rest on: its data outlives its apiserver, and it goes with whoever made it."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.controlplane import FOLDER_PREFIX, GARBAGE_COLLECTION, ControlPlane
from tests.cluster.errors import ClusterError

pytestmark = pytest.mark.apiserver

KILLED_IN_THE_MIDDLE = """
import os
from tests.cluster.controlplane import ControlPlane
with ControlPlane() as control_plane:
    print(control_plane.control.folder, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=GARBAGE_COLLECTION) as running:
        yield running


def processes_of(folder: Path) -> list[str]:
    lines = [file.read_bytes().decode(errors="replace") for file in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if str(folder) in line]


def test_it_says_the_version_that_go_mod_states(control_plane: ControlPlane) -> None:
    assert "Server Version: v1.34." in control_plane.kubectl("version")


def test_what_was_written_outlives_a_killed_apiserver(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept")
    control_plane.kill_apiserver()
    with pytest.raises(ClusterError, match="refused"):
        control_plane.kubectl("get", "configmap", "kept")
    control_plane.start_apiserver()
    assert "kept" in control_plane.kubectl("get", "configmap", "kept")


def test_a_paused_apiserver_hangs_and_goes_on(control_plane: ControlPlane) -> None:
    with control_plane.paused_apiserver(), pytest.raises(ClusterError, match="not done within"):
        control_plane.kubectl("get", "namespaces", timeout_s=2)
    assert "default" in control_plane.kubectl("get", "namespaces")


def test_rbac_refuses_what_nobody_allowed(control_plane: ControlPlane) -> None:
    with pytest.raises(ClusterError, match="cannot list resource"):
        control_plane.kubectl("get", "secrets", "--as=somebody")


def test_owned_objects_go_with_their_owner(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "owner")
    uid = control_plane.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    reference = f'[{{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "{uid}"}}]'
    control_plane.kubectl("create", "configmap", "owned")
    patch = f'{{"metadata": {{"ownerReferences": {reference}}}}}'
    control_plane.kubectl("patch", "configmap", "owned", "--patch", patch)
    control_plane.kubectl("delete", "configmap", "owner")
    control_plane.kubectl("wait", "--for=delete", "configmap/owned", "--timeout=60s", timeout_s=70)


def test_it_leaves_nothing() -> None:
    with ControlPlane() as one:
        folder = one.control.folder
        assert processes_of(folder)
    assert processes_of(folder) == []
    assert not folder.exists()


def test_the_next_one_ends_what_a_killed_test_left() -> None:
    command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    folder = Path(killed.stdout.strip())
    assert folder.name.startswith(FOLDER_PREFIX) and folder.parent == Path(tempfile.gettempdir())
    assert processes_of(folder)
    with ControlPlane():
        assert processes_of(folder) == []
    assert not folder.exists()
