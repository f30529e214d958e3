"""What pods, Services and the host can do in the local Kubernetes, and what they can't."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Kubectl
from tests.cluster.testbed import HOST_ADDRESS, IMAGE, NODES, PREFIX, STATE, Pod, cli, eventually, fetch, shell

pytestmark = pytest.mark.cluster

OUTSIDE = "203.0.113"  # set aside for documentation: there is nobody


def test_each_node_runs_a_pod(pods: dict[str, Pod]) -> None:
    assert set(pods) == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_a_headless_name_is_every_pods_address(kubectl: Kubectl, pods: dict[str, Pod], node: str) -> None:
    def answer() -> str:
        look_up = "nslookup headless.default.svc.cluster.local || true"
        return kubectl("exec", pods[node].name, "--", "sh", "-c", look_up)

    # A pod is Ready a moment before DNS has heard of it.
    eventually(lambda: all(pod.address in answer() for pod in pods.values()))


@pytest.mark.parametrize(("here", "there"), [NODES, NODES[::-1]])
def test_a_pod_reaches_the_other_nodes_pod(kubectl: Kubectl, pods: dict[str, Pod], here: str, there: str) -> None:
    address = f"http://{pods[there].address}:8080"
    assert kubectl("exec", pods[here].name, "--", "wget", "-qO-", address).strip() == pods[there].name


@pytest.mark.parametrize("node", NODES)
def test_a_service_answers_with_every_pod_also_with_the_one_that_asks(
    kubectl: Kubectl, pods: dict[str, Pod], node: str
) -> None:
    ask = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do wget -qO- http://web; done || true"
    names = {pod.name for pod in pods.values()}
    eventually(lambda: set(kubectl("exec", pods[node].name, "--", "sh", "-c", ask).split()) == names)


def test_the_host_reaches_services_and_pods(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    address = kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    assert {fetch(f"http://{address}") for _ in range(16)} == {pod.name for pod in pods.values()}
    assert all(fetch(f"http://{pod.address}:8080") == pod.name for pod in pods.values())


@pytest.mark.parametrize("node", NODES)
def test_logs_come_from_both_nodes(kubectl: Kubectl, pods: dict[str, Pod], node: str) -> None:
    assert kubectl("logs", pods[node].name) == "started\n"


@pytest.mark.parametrize("node", NODES)
def test_a_port_can_be_forwarded(kubectl: Kubectl, pods: dict[str, Pod], node: str) -> None:
    command = ["kubectl", "port-forward", f"pod/{pods[node].name}", ":8080"]
    forward = kubectl.start(*command[1:])
    try:
        assert forward.stdout is not None
        port = forward.stdout.readline().split(" -> ")[0].rsplit(":", 1)[1]
        assert fetch(f"http://127.0.0.1:{port}") == pods[node].name
    finally:
        forward.terminate()
        forward.wait()


def test_a_name_outside_does_not_exist(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    look_up = "nslookup example.com 2>&1 || true"
    assert "NXDOMAIN" in kubectl("exec", pods[NODES[0]].name, "--", "sh", "-c", look_up)


def knock_outside(kubectl: Kubectl, pod: str) -> str:
    return kubectl("exec", pod, "--", "sh", "-c", f"nc -w 3 {OUTSIDE}.9 80 2>&1 || true")


@pytest.mark.parametrize("node", NODES)
def test_an_address_outside_is_out_of_reach(kubectl: Kubectl, pods: dict[str, Pod], node: str) -> None:
    said = knock_outside(kubectl, pods[node].name)
    assert "unreachable" in said or "timed out" in said


@pytest.fixture
def way_out() -> Iterator[str]:
    """What a careless host and a privileged pod could make together: a route out, to an interface that is nowhere."""
    interface, bridge = f"{PREFIX}out", f"{PREFIX}nodes"
    shell("ip", "link", "add", interface, "type", "bridge")
    try:
        shell("ip", "address", "add", f"{OUTSIDE}.1/24", "dev", interface)
        shell("ip", "link", "set", interface, "up")
        shell("ip", "-netns", NODES[0], "route", "add", f"{OUTSIDE}.0/24", "via", HOST_ADDRESS)
        Path(f"/proc/sys/net/ipv4/conf/{bridge}/forwarding").write_text("1")
        yield interface
    finally:
        Path(f"/proc/sys/net/ipv4/conf/{bridge}/forwarding").write_text("0")
        subprocess.run(["ip", "-netns", NODES[0], "route", "delete", f"{OUTSIDE}.0/24"], check=False)
        shell("ip", "link", "delete", interface)


def test_the_hosts_rule_drops_what_has_found_a_way_out(kubectl: Kubectl, pods: dict[str, Pod], way_out: str) -> None:
    def got_out() -> bool:
        """A packet that is to be forwarded makes the host ask who has its address."""
        return f"{OUTSIDE}.9 " in shell("ip", "neighbour", "show", "nud", "all", "dev", way_out)

    knock_outside(kubectl, pods[NODES[0]].name)
    assert not got_out()
    shell("nft", "delete", "table", "inet", f"{PREFIX}guard")
    knock_outside(kubectl, pods[NODES[0]].name)
    assert got_out(), "this test would not notice a leak"
    cli("up")


def test_a_second_node_shares_the_unpacked_files(pods: dict[str, Pod]) -> None:
    snapshots = "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/bin/busybox"
    inodes = {node: {path.stat().st_ino for path in (STATE / node).glob(snapshots)} for node in NODES}
    assert inodes[NODES[0]] & inodes[NODES[1]]


def test_a_drained_node_gives_its_pod_to_the_other(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    start = ["create", "deployment", "mover", f"--image={IMAGE}", "--", "sleep", "1000"]
    node_of = ["get", "pods", "-l", "app=mover", "-o", "jsonpath={.items[*].spec.nodeName}"]
    kubectl("cordon", NODES[0])
    kubectl(*start)
    eventually(lambda: kubectl(*node_of) == NODES[1])
    kubectl("uncordon", NODES[0])
    kubectl("drain", NODES[1], "--ignore-daemonsets", "--force", "--grace-period=1", timeout_s=180)
    eventually(lambda: kubectl(*node_of) == NODES[0])
    kubectl("uncordon", NODES[1])
    kubectl("delete", "deployment", "mover", "--wait=false")


@pytest.mark.long
def test_a_node_that_is_cut_off_is_not_ready_and_comes_back(kubectl: Kubectl, pods: dict[str, Pod]) -> None:
    shell("ip", "link", "set", NODES[1], "down")
    kubectl("wait", "--for=condition=Ready=Unknown", f"node/{NODES[1]}", "--timeout=180s", timeout_s=190)
    shell("ip", "link", "set", NODES[1], "up")
    kubectl("wait", "--for=condition=Ready", f"node/{NODES[1]}", "--timeout=180s", timeout_s=190)
