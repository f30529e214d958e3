"""Up twice, up after a crash, down after a crash: one cluster, and nothing left."""

import subprocess

import pytest

from tests.cluster.client import Kubectl
from tests.cluster.testbed import (
    NODES,
    STATE,
    Pod,
    cli,
    eventually,
    kill_everything,
    left_behind,
    processes,
    running_pods,
    start_cli,
)

pytestmark = pytest.mark.cluster


def test_up_again_starts_nothing(pods: dict[str, Pod]) -> None:
    before = processes()
    cli("up", "--nodes", "1")
    assert processes() == before


def test_after_a_crash_up_goes_on_where_it_was(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    kill_everything()
    cli("up")
    old = {pod.name for pod in pods.values()}

    def answers_again() -> bool:
        now = running_pods(kubectl)
        asked = [["curl", "-s", "--max-time", "2", f"http://{pod.address}:8080"] for pod in now.values()]
        return {subprocess.run(ask, capture_output=True, text=True).stdout.strip() for ask in asked} == old

    eventually(answers_again)


def test_after_a_crash_down_leaves_nothing_and_up_works(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    assert left_behind()
    kill_everything()
    cli("down")
    assert left_behind() == []
    cli("up")
    assert kubectl("get", "nodes", "-o", "name").split() == [f"node/{NODES[0]}"]


def test_down_leaves_nothing_of_an_up_that_was_killed(kubectl: Kubectl) -> None:
    cli("down")
    with start_cli("up") as begun:
        eventually((STATE / NODES[0] / "containerd.sock").exists)
        begun.kill()
    cli("down")
    assert left_behind() == []
