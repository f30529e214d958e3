"""Names, addresses and folders: all that a cluster makes on the machine, in one place.

Every name begins with `lc-`: whoever finds one knows whose it is. A machine has one cluster unless LAYERCAST_INSTANCE
says otherwise: instance 1 and so on have names, addresses and a folder of their own, and never touch the others. The
tests of this package run in one, so that they destroy nobody's cluster.
"""

import os
from dataclasses import dataclass
from pathlib import Path

INSTANCES = 8
INSTANCE = int(os.environ.get("LAYERCAST_INSTANCE") or 0) % INSTANCES
PREFIX = f"lc-{INSTANCE}-" if INSTANCE else "lc-"
BRIDGE = f"{PREFIX}nodes"
GUARD_TABLE = f"{PREFIX}guard"
CGROUP = f"{PREFIX}cluster"
CGROUPS_OF_ALL = "lc-*cluster"

_PODS, _SERVICES, _NODES = (f"10.{231 + 3 * INSTANCE + offset}" for offset in range(3))
POD_RANGE = f"{_PODS}.0.0/16"
SERVICE_RANGE = f"{_SERVICES}.0.0/20"
SERVICE_ADDRESS = f"{_SERVICES}.0.1"
NODE_RANGE_BITS = 24
HOST_ADDRESS = f"{_NODES}.0.1"
DNS_ADDRESS = HOST_ADDRESS
API_PORT = 6443
ETCD_PORT, ETCD_PEER_PORT = 23790 + INSTANCE, 23800 + INSTANCE
MAX_NODES = 2

CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
PAUSE_IMAGE = "localhost/layercast-pause:1"


def state_folder(instance: int = INSTANCE) -> Path:
    folder = os.environ.get("LAYERCAST_STATE") or "/var/lib/layercast-cluster"
    return Path(f"{folder}-{instance}" if instance else folder)


@dataclass(frozen=True)
class Node:
    """A node is a network namespace and a mount namespace, with a containerd, a kubelet and a kube-proxy inside."""

    number: int

    @property
    def name(self) -> str:
        """Also of its network namespace, and of the host's end of its link: `ip link set … down` cuts it off."""
        return f"{PREFIX}node{self.number}"

    @property
    def address(self) -> str:
        return f"{_NODES}.0.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"{_PODS}.{self.number}.0/24"

    @property
    def folder(self) -> Path:
        return state_folder() / self.name

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def exists(self) -> bool:
        return self.folder.exists()


NODES = tuple(Node(number) for number in range(1, MAX_NODES + 1))
