"""One node: its namespaces, and the daemons in them.

A process that does nothing holds the mount namespace. In it /run is a file system of its own, and the folders that
kubelet and the CNI plugins have hard-wired are the node's own: two nodes, or a kubelet that somebody else runs, can't
meet there. When the node's processes die, all its mounts and its pods' network namespaces go with them.
"""

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.cluster import binaries, cgroups, ctr, network, nodeconfig
from tests.cluster.control import Control
from tests.cluster.layout import PAUSE_IMAGE, Node
from tests.cluster.oci import write_image
from tests.cluster.pki import User
from tests.cluster.process import Daemon

PROXY_USER = User("system:kube-proxy")
OWN_FOLDERS = {
    Path("/var/lib/kubelet"): "kubelet",
    Path("/var/lib/cni"): "cni",
    Path("/var/log/pods"): "pod-logs",
    Path("/var/log/containers"): "container-logs",
}
# Private first and shared then: volumes may propagate inside the node, and nothing does to the host.
HOLD_MOUNTS = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-ec"]
MOUNT_OWN = """\
mount --make-rshared /
mount -t tmpfs -o mode=755 lc-run /run
{binds}
exec "$0" "$@"
"""


def user(node: Node) -> User:
    return User(f"system:node:{node.name}", ("system:nodes",))


class NodeDaemons:
    """The daemons of one node, in the order in which they start."""

    def __init__(self, node: Node, control: Control) -> None:
        self.node = node
        self._control = control
        self.holder = Daemon("namespaces", ["sleep", "infinity"], folder=node.folder / "run", prefix=self._hold)
        self.containerd = self._daemon("containerd", ["containerd", "--config", node.folder / "containerd.toml"])
        self.kubelet = self._daemon("kubelet", self._kubelet_command())
        proxy_config = f"--config={node.folder / 'kube-proxy.json'}"
        self.proxy = self._daemon("kube-proxy", [binaries.path("kube-proxy"), proxy_config])

    def _daemon(self, name: str, argv: list[str | Path]) -> Daemon:
        return Daemon(name, [str(part) for part in argv], folder=self.node.folder / "run", prefix=self._enter)

    def _hold(self) -> list[str]:
        """The prefix that makes the namespaces' holder."""
        binds = "\n".join(f"mount --bind {self.node.folder / name} {folder}" for folder, name in OWN_FOLDERS.items())
        make_mounts = [*HOLD_MOUNTS, MOUNT_OWN.format(binds=binds)]
        return [*cgroups.prefix(self.node.name), *network.enter(self.node), *make_mounts]

    def _enter(self) -> list[str]:
        """The prefix that puts a daemon beside the holder."""
        enter = ["nsenter", "--target", str(self.holder.pid), "--mount", "--net", "--"]
        return [*cgroups.prefix(self.node.name), *enter]

    def _kubelet_command(self) -> list[str | Path]:
        return [
            binaries.path("kubelet"),
            f"--config={self.node.folder / 'kubelet.json'}",
            f"--kubeconfig={self._control.kubeconfig(user(self.node))}",
            f"--hostname-override={self.node.name}",
            f"--node-ip={self.node.address}",
        ]

    @property
    def all(self) -> list[Daemon]:
        return [self.holder, self.containerd, self.kubelet, self.proxy]

    @property
    def is_whole(self) -> bool:
        """Whether daemons can be started into it: the namespaces are there, with whoever holds them."""
        return network.is_whole(self.node) and self.holder.pid is not None

    def start(self) -> None:
        if not self.is_whole:
            self.stop()
        network.ensure_node(self.node)
        cgroup_root = cgroups.make_node_root(self.node.name)
        nodeconfig.write(
            self.node,
            self._control.pki,
            cgroup_root=cgroup_root,
            proxy_kubeconfig=self._control.kubeconfig(PROXY_USER),
        )
        self._make_own_folders()
        self.holder.start()
        self.containerd.start()
        self.containerd.ready(f"containerd of {self.node.name} answers", partial(ctr.answers, self.node))
        self._ensure_pause_image()
        self.kubelet.start()
        self.proxy.start()

    def _make_own_folders(self) -> None:
        for folder, name in OWN_FOLDERS.items():
            folder.mkdir(parents=True, exist_ok=True)
            (self.node.folder / name).mkdir(parents=True, exist_ok=True)

    def _ensure_pause_image(self) -> None:
        if ctr.digest(self.node, PAUSE_IMAGE) is None:
            archive = self.node.folder / "pause.oci.tar"
            busybox = shutil.which("busybox") or "/bin/busybox"
            sleep = ["/bin/busybox", "tail", "-f", "/dev/null"]
            write_image(archive, PAUSE_IMAGE, files={"bin/busybox": Path(busybox)}, command=sleep)
            ctr.load(self.node, archive)
            archive.unlink()

    def stop(self) -> None:
        """Ends everything that runs on the node at once, pods included. Its images and its pods' records stay."""
        cgroups.kill(self.node.name)
        shutil.rmtree(self.node.folder / "cni", ignore_errors=True)  # or the dead pods' addresses stay taken
        cgroups.remove(self.node.name)
        network.remove_node(self.node)


def remove_own_folders() -> None:
    """The places that nodes mount over. Somebody else's content stays.

    To remove a folder unmounts what another mount namespace has there: not while another instance runs.
    """
    if cgroups.instances():
        return
    for folder in OWN_FOLDERS:
        with suppress(OSError):
            folder.rmdir()
