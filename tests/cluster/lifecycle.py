"""Up, down and status of the one cluster of this machine.

`up` makes sure of each thing in turn and leaves alone what is right, so that it can be said at any time; `down` asks
nothing and removes all that could be there, so that it works after any crash.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.cluster import binaries, cgroups, ctr, debs, dns, network, sysctls, wait
from tests.cluster.client import Kubectl
from tests.cluster.console import say, step
from tests.cluster.control import Control
from tests.cluster.errors import ClusterError
from tests.cluster.layout import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    HOST_ADDRESS,
    NODES,
    SERVICE_ADDRESS,
    SERVICE_RANGE,
    Node,
    state_folder,
)
from tests.cluster.node import PROXY_USER, NodeDaemons, remove_own_folders, user
from tests.cluster.process import Daemon

CONTROL_GROUP = "control"


def control() -> Control:
    return Control(
        folder=state_folder() / "control",
        address=HOST_ADDRESS,
        port=API_PORT,
        etcd_port=ETCD_PORT,
        etcd_peer_port=ETCD_PEER_PORT,
        service_range=SERVICE_RANGE,
        service_address=SERVICE_ADDRESS,
        users=(PROXY_USER, dns.USER, *(user(node) for node in NODES)),
        prefix=partial(cgroups.prefix, CONTROL_GROUP),
    )


def kubeconfig() -> Path:
    return control().kubectl.kubeconfig


@contextmanager
def _only_one() -> Iterator[None]:
    """One `up`, `down` or `load` at a time. The lock is on the folder above, since ours comes and goes."""
    state_folder().parent.mkdir(parents=True, exist_ok=True)
    parent = os.open(state_folder().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)
        yield
    finally:
        os.close(parent)


def up(count: int) -> None:
    debs.require()
    binaries.ensure()
    nodes = [node for node in NODES if node.number <= count or node.exists]
    with _only_one(), step(f"making sure of {len(nodes)} node(s)"):
        _refuse_other_binaries()
        sysctls.remember()
        network.ensure_host()
        _start_control()
        for node in nodes:
            with step(f"starting {node.name}"):
                NodeDaemons(node, control()).start()
        _await_nodes(nodes)
        _await_default_account()


def _refuse_other_binaries() -> None:
    """Daemons are told apart by their command lines, so those of another version would be started beside the old."""
    stamp = state_folder() / "binaries"
    if stamp.exists() and stamp.read_text() != str(binaries.bin_dir()):
        raise ClusterError("this machine runs a cluster of other versions: `python -m tests.cluster down` first")
    state_folder().mkdir(parents=True, exist_ok=True)
    stamp.write_text(str(binaries.bin_dir()))


def _control_daemons() -> list[Daemon]:
    plane = control()
    return [plane.etcd(), plane.apiserver(), plane.manager(), plane.scheduler(), dns.daemon(plane)]


def _start_control() -> None:
    plane = control()
    plane.prepare()
    dns.write_config(plane)
    etcd, apiserver, manager, scheduler, coredns = _control_daemons()
    with step("starting the control plane"):
        etcd.start()
        apiserver.start()
        plane.await_ready(apiserver)
        manager.start()
        scheduler.start()
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=_list_of(dns.RBAC))
        coredns.start()
        coredns.ready("cluster DNS answers", dns.answers)


def _list_of(items: Sequence[object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _await_nodes(nodes: Sequence[Node]) -> None:
    kubectl = control().kubectl
    for node in nodes:
        daemons = NodeDaemons(node, control())
        ready = partial(_is_ready, kubectl, node)
        wait.until(f"{node.name} is Ready", ready, blame=daemons.kubelet.tail)
        say(f"{node.name} is Ready")


def _is_ready(kubectl: Kubectl, node: Node) -> bool:
    """Its last word may be of before a crash, so the kubelet has to answer now as well."""
    with suppress(ClusterError):  # it has not registered yet
        kubectl("get", "--raw", f"/api/v1/nodes/{node.name}/proxy/healthz", timeout_s=5)
        found = json.loads(kubectl("get", "node", node.name, "-o", "json"))
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", ())}
        return conditions.get("Ready") == "True"
    return False


def _await_default_account() -> None:
    """Until it is there every pod is refused."""
    kubectl = control().kubectl

    def exists() -> bool:
        with suppress(ClusterError):
            return bool(kubectl("get", "serviceaccount", "default"))
        return False

    manager = control().manager()
    wait.until("the default service account exists", exists, blame=manager.tail)


def down() -> None:
    """Leaves nothing, whatever state the machine is in."""
    debs.require_root()
    with _only_one(), step("removing the cluster"):
        cgroups.kill()
        cgroups.remove()
        for node in NODES:
            network.remove_node(node)
        network.remove_host()
        sysctls.restore()
        shutil.rmtree(state_folder(), ignore_errors=True)
        remove_own_folders()


def load(archives: Sequence[Path], names: Sequence[str]) -> None:
    nodes = [node for node in NODES if node.exists and (not names or node.name in names)]
    if not nodes:
        raise ClusterError(f"no such node runs: {' '.join(names) or 'none at all'}")
    with _only_one():
        for archive in archives:
            for node in nodes:
                ctr.load(node, archive)


def images() -> None:
    for node in NODES:
        for image in ctr.images(node) if node.exists else ():
            print(f"{node.name}  {image.digest[:19]}  {image.name}")


def status() -> bool:
    """Prints what runs. False unless everything that should run does."""
    if not state_folder().exists():
        print("no cluster")
        return False
    rows = [("control plane", daemon) for daemon in _control_daemons()]
    rows += [(node.name, daemon) for node in NODES if node.exists for daemon in NodeDaemons(node, control()).all]
    for where, daemon in rows:
        print(f"{where:14} {daemon.name:24} {f'pid {daemon.pid}' if daemon.pid else 'NOT RUNNING':12} {daemon.log}")
    with suppress(ClusterError):
        print(control().kubectl("get", "nodes", "-o", "wide", timeout_s=10))
    return all(daemon.pid for _, daemon in rows)
