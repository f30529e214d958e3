"""Names, addresses and folders: all that the cluster makes on the machine, in one place.

Every name begins with `lc-`, and there is one cluster a machine: whoever finds such a name knows whose it is.
"""

import os
from dataclasses import dataclass
from pathlib import Path

BRIDGE = "lc-nodes"
GUARD_TABLE = "lc-guard"
CGROUP = "lc-cluster"

HOST_ADDRESS = "10.233.0.1"
NODE_RANGE_BITS = 24
POD_RANGE = "10.231.0.0/16"
SERVICE_RANGE = "10.232.0.0/20"
SERVICE_ADDRESS = "10.232.0.1"
DNS_ADDRESS = HOST_ADDRESS
API_PORT, ETCD_PORT, ETCD_PEER_PORT = 6443, 23790, 23800
MAX_NODES = 2

CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
PAUSE_IMAGE = "localhost/layercast-pause:1"


def state_folder() -> Path:
    return Path(os.environ.get("LAYERCAST_STATE") or "/var/lib/layercast-cluster")


@dataclass(frozen=True)
class Node:
    """A node is a network namespace and a mount namespace, with a containerd, a kubelet and a kube-proxy inside."""

    number: int

    @property
    def name(self) -> str:
        """Also of its network namespace, and of the host's end of its link: `ip link set … down` cuts it off."""
        return f"lc-node{self.number}"

    @property
    def address(self) -> str:
        return f"10.233.0.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.231.{self.number}.0/24"

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
