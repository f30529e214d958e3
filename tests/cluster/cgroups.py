"""Every process of the cluster, pods included, is below one cgroup: that is how a crash is cleaned up after.

Under cgroup v1 the pids hierarchy is the one that counts heads; the others hold only what kubelet and runc make.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.cluster import wait
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CGROUP, CGROUPS_OF_ALL

DAEMONS = "daemons"


def _mounts() -> Iterator[tuple[Path, str, set[str]]]:
    """(mount point, file system, options) of each cgroup hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield Path(mount_point), kind, set(options.split(","))


def _hierarchies() -> list[Path]:
    return [mount_point for mount_point, _, _ in _mounts()]


def _counted() -> Path:
    """The hierarchy that all processes of the cluster are in."""
    for mount_point, kind, options in _mounts():
        if kind == "cgroup" and "pids" in options:
            return mount_point
    for mount_point, kind, _ in _mounts():
        if kind == "cgroup2":
            return mount_point
    raise ClusterError("no cgroup file system is mounted, neither v1 with the pids controller nor v2")


def prefix(group: str) -> list[str]:
    """A command prefix that puts what follows into a group of ours, without a moment outside it."""
    folder = _counted() / CGROUP / group / DAEMONS
    folder.mkdir(parents=True, exist_ok=True)
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(folder / "cgroup.procs")]


def make_node_root(node: str) -> str:
    """The kubelet's cgroup root, which has to exist in every hierarchy before it starts."""
    for hierarchy in _hierarchies():
        for folder in (hierarchy / CGROUP, hierarchy / CGROUP / node):
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
    return f"/{CGROUP}/{node}"


def _inherit_cpuset(folder: Path) -> None:
    """A new v1 cpuset is empty, and nothing can run in it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, parents = folder / name, folder.parent / name
        if own.exists() and parents.exists() and not own.read_text().strip():
            own.write_text(parents.read_text())


def processes(group: str = "") -> list[int]:
    """Processes of one group (a node, or the control plane) or of the whole cluster."""
    pids: list[int] = []
    for folder, _, _ in os.walk(_counted() / CGROUP / group):
        with suppress(OSError):
            pids += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    return pids


def kill(group: str = "") -> None:
    """SIGKILL to all, again and again until none is left: one of them may be starting another."""
    _thaw(group)

    def none_left() -> bool:
        for pid in processes(group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not processes(group)

    wait.until(f"no process is left in {CGROUP}/{group}", none_left, blame=lambda: str(processes(group)))


def _thaw(group: str) -> None:
    """A frozen v1 cgroup doesn't even die."""
    for hierarchy in _hierarchies():
        for state in (hierarchy / CGROUP / group).rglob("freezer.state"):
            with suppress(OSError):
                state.write_text("THAWED")


def remove(group: str = "") -> None:
    """The kernel holds a group for a moment after its last process."""
    folders = [hierarchy / CGROUP / group for hierarchy in _hierarchies()]
    for folder in folders:
        wait.until(f"{folder} is removed", partial(_remove_tree, folder))


def _remove_tree(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
    return not top.exists()


def instances() -> set[str]:
    """The clusters that this machine has at the moment, by their cgroups' names."""
    return {folder.name for hierarchy in _hierarchies() for folder in hierarchy.glob(CGROUPS_OF_ALL)}
