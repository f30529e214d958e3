"""What the tests of this package know of the instance that they run in: from outside, as a person would look."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.client import Kubectl

INSTANCE = 7
PREFIX = f"lc-{INSTANCE}-"
NODES = (f"{PREFIX}node1", f"{PREFIX}node2")
HOST_ADDRESS = "10.254.0.1"
STATE = Path(f"{os.environ.get('LAYERCAST_STATE') or '/var/lib/layercast-cluster'}-{INSTANCE}")
REPOSITORY = Path(__file__).parents[2]
IMAGE = "localhost/lc-test-busybox:1"
APPLETS = ("sh", "cat", "hostname", "httpd", "mkdir", "nc", "nslookup", "sleep", "wget")
SERVER = "mkdir /www && hostname > /www/index.html && echo started && exec httpd -f -p 8080 -h /www"


def cli(*args: str) -> str:
    """The command line of this package, on the instance under test."""
    with start_cli(*args) as command:
        answer, error = command.communicate()
    assert command.returncode == 0, error
    return answer


def start_cli(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", *args],
        cwd=REPOSITORY,
        env=os.environ | {"LAYERCAST_INSTANCE": str(INSTANCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shell(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def eventually(condition: Callable[[], bool], *, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.2)


def manifests() -> str:
    container = {
        "name": "web",
        "image": IMAGE,
        "command": ["sh", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    labels = {"app": "web"}
    pods = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": pods}
    ports = [{"port": 80, "targetPort": 8080}]
    items = [
        ("apps/v1", "DaemonSet", "web", {"selector": {"matchLabels": labels}, "template": template}),
        ("v1", "Service", "web", {"selector": labels, "ports": ports}),
        ("v1", "Service", "headless", {"selector": labels, "ports": ports, "clusterIP": "None"}),
    ]
    listed = [{"apiVersion": api, "kind": k, "metadata": {"name": name}, "spec": spec} for api, k, name, spec in items]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})


@dataclass(frozen=True)
class Pod:
    name: str
    address: str


def running_pods(kubectl: Kubectl) -> dict[str, Pod]:
    """The web servers by their nodes; one that has no address yet is left out."""
    listed = json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    return {
        one["spec"]["nodeName"]: Pod(one["metadata"]["name"], one["status"]["podIP"])
        for one in listed
        if "podIP" in one["status"]
    }


def fetch(address: str) -> str:
    return shell("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "5", address).strip()


def processes() -> set[str]:
    """Command lines that name the instance's folder."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if f"{STATE}/" in line:
            found.add(f"{file.parent.name} {line}")
    return found


def left_behind() -> list[str]:
    """All of the instance that there is on the machine."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found = [line for line in mounts if PREFIX in line or f"{STATE}/" in line]
    found += [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(PREFIX)]
    found += [path.name for path in Path("/run/netns").glob(f"{PREFIX}*")]
    found += [line for line in shell("nft", "list", "tables").splitlines() if PREFIX in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{PREFIX}*")]
    found += [line for line in shell("ip", "route").splitlines() if PREFIX in line]
    return [*found, *processes(), *(str(path) for path in (STATE,) if path.exists())]


def kill_everything() -> None:
    """As the kernel's OOM killer at its worst: every process of the cluster and of its pods, at once."""
    for file in Path("/sys/fs/cgroup").glob(f"**/{PREFIX}cluster/**/cgroup.procs"):
        for pid in file.read_text().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
