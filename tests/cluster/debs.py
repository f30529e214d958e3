"""The Debian packages that the cluster and the images need, told apart from what is there already by what they bring.

A machine may have the same commands from elsewhere (a containerd of Docker's, say), and then nothing is installed.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.console import say, step
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CNI_PLUGINS

COMMANDS = {
    "containerd": "containerd-shim-runc-v2",
    "runc": "runc",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "nftables": "nft",
    "iproute2": "ip",
    "busybox-static": "busybox",
    "util-linux": "nsenter",
    "mount": "mount",
    "openssl": "openssl",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
LISTS = Path("/var/lib/apt/lists")
LISTS_FRESH_S = 24 * 3600
SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    packages = [package for package, command in COMMANDS.items() if shutil.which(command) is None]
    if not any((folder / "ptp").exists() for folder in CNI_PLUGINS):
        packages.append("containernetworking-plugins")
    return packages


def require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the local Kubernetes needs root; without it, use a cluster that you have: KUBECONFIG=…")


def require() -> None:
    """Raises unless everything is there and somebody with the right to use it asks."""
    require_root()
    if packages := missing():
        raise ClusterError(f"missing: {' '.join(packages)}. `python -m tests.cluster debs` installs them")


def install() -> None:
    packages = missing()
    if not packages:
        say("all Debian packages are there")
        return
    if os.geteuid() != 0:
        raise ClusterError(f"missing, and only root may install them: apt-get install {' '.join(packages)}")
    with step(f"installing {' '.join(packages)}"), _no_services():
        if not _lists_are_fresh():
            _apt("update")
        try:
            _apt("install", "--no-install-recommends", *packages)
        except ClusterError:
            _apt("update")  # a list from this morning may name a version that has been replaced
            _apt("install", "--no-install-recommends", *packages)


def _lists_are_fresh() -> bool:
    ages = [time.time() - file.stat().st_mtime for file in LISTS.glob("*Packages*")]
    return bool(ages) and min(ages) < LISTS_FRESH_S


@contextmanager
def _no_services() -> Iterator[None]:
    """Keeps a package from starting its service: the cluster runs a containerd of its own."""
    if SERVICE_POLICY.exists():
        yield
        return
    SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n")
    SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        SERVICE_POLICY.unlink(missing_ok=True)


def _apt(*args: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-y", *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")
