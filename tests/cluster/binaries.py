"""The cluster's binaries, built from the Go tool modules in tools/ and kept in a cache keyed by those modules.

The go.mod files are the only place that states a version. A binary is looked for in KUBEBUILDER_ASSETS (taken as it
is: somebody asked for it), in the cache, on PATH (only in the wanted version; linked into the cache), and is built
otherwise.
"""

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.console import step
from tests.cluster.errors import ClusterError

MODULES = Path(__file__).parent / "tools"
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
KUBERNETES_VERSION_VARIABLES = (
    "k8s.io/component-base/version.gitVersion",
    "k8s.io/client-go/pkg/version.gitVersion",
)


@dataclass(frozen=True)
class Tool:
    """A binary: the folder of its Go module, the module that states its version, and its package."""

    name: str
    folder: str
    module: str
    package: str
    version_args: tuple[str, ...] = ("--version",)
    version_variables: tuple[str, ...] = ()

    def version(self) -> str:
        stated = re.search(
            rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", self.go_mod().read_text(), re.MULTILINE
        )
        if stated is None:
            raise ClusterError(f"{self.go_mod()} states no version of {self.module}")
        return stated.group(1)

    def go_mod(self) -> Path:
        return MODULES / self.folder / "go.mod"

    def link_flags(self) -> str:
        """Built outside their own repositories the binaries don't know their version; clients and charts ask for it."""
        version = self.version()
        major, minor, _ = version.lstrip("v").split(".", 2)
        flags = ["-s", "-w", *(f"-X {variable}={version}" for variable in self.version_variables)]
        if self.version_variables == KUBERNETES_VERSION_VARIABLES:
            numbers = "k8s.io/component-base/version.git"
            flags += [f"-X {numbers}Major={major}", f"-X {numbers}Minor={minor}", f"-X {numbers}TreeState=clean"]
        return " ".join(flags)


def _kubernetes(name: str, *version_args: str) -> Tool:
    return Tool(
        name,
        "kubernetes",
        "k8s.io/kubernetes",
        f"k8s.io/kubernetes/cmd/{name}",
        version_args or ("--version",),
        KUBERNETES_VERSION_VARIABLES,
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kubectl", "version", "--client"),
        Tool(
            "helm",
            "helm",
            "helm.sh/helm/v3",
            "helm.sh/helm/v3/cmd/helm",
            ("version", "--short"),
            ("helm.sh/helm/v3/internal/version.version",),
        ),
        Tool(
            "kubeconform",
            "kubeconform",
            "github.com/yannh/kubeconform",
            "github.com/yannh/kubeconform/cmd/kubeconform",
            ("-v",),
            ("main.version",),
        ),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Tool("coredns", "coredns", "github.com/coredns/coredns", "github.com/coredns/coredns", ("-version",)),
    )
}


def cache_root() -> Path:
    return Path(os.environ.get("LAYERCAST_CACHE") or Path.home() / ".cache" / "layercast")


@functools.cache
def bin_dir() -> Path:
    digest = hashlib.sha256()
    for path in sorted(MODULES.glob("*/go.*")):
        digest.update(f"{path.relative_to(MODULES)}\0".encode() + path.read_bytes())
    return cache_root() / f"bin-{digest.hexdigest()[:12]}"


def ensure(names: Iterable[str] = tuple(TOOLS)) -> Path:
    """Makes sure of the named tools, and answers the folder that holds all that don't come from KUBEBUILDER_ASSETS."""
    missing = [TOOLS[name] for name in names if not _from_assets(TOOLS[name]) and not (bin_dir() / name).exists()]
    if missing:
        with _only_builder():
            for tool in missing:
                if not (bin_dir() / tool.name).exists():
                    _provide(tool)
    return bin_dir()


def path(name: str) -> Path:
    """One tool's binary, built now if it must be."""
    return _from_assets(TOOLS[name]) or ensure([name]) / name


@contextmanager
def _only_builder() -> Iterator[None]:
    """Two builds at once would take twice as long: the second waits, and then finds everything there."""
    bin_dir().mkdir(parents=True, exist_ok=True)
    with (cache_root() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _provide(tool: Tool) -> None:
    found = _from_path(tool)
    if found is None:
        with step(f"building {tool.name} {tool.version()}"):
            _build(tool)
    else:
        (bin_dir() / tool.name).unlink(missing_ok=True)  # a link whose target went away
        (bin_dir() / tool.name).symlink_to(found.resolve())


def _from_assets(tool: Tool) -> Path | None:
    assets = os.environ.get(ASSETS_VARIABLE)
    found = Path(assets) / tool.name if assets else None
    return found if found is not None and found.exists() else None


def _from_path(tool: Tool) -> Path | None:
    found = shutil.which(tool.name)
    if found is None:
        return None
    told = subprocess.run([found, *tool.version_args], capture_output=True, text=True, check=False)
    wanted = re.compile(rf"\b{re.escape(tool.version().lstrip('v'))}\b")
    return Path(found) if wanted.search(told.stdout + told.stderr) else None


def _build(tool: Tool) -> None:
    go = shutil.which("go")
    if go is None:
        raise ClusterError(f"{tool.name} {tool.version()} has to be built, and there is no Go: put `go` on PATH")
    unfinished = bin_dir() / f".{tool.name}.unfinished"
    command = ["nice", go, "build", "-buildvcs=false", "-trimpath", "-ldflags", tool.link_flags()]
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    built = subprocess.run(
        [*command, "-o", str(unfinished), tool.package],
        cwd=tool.go_mod().parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise ClusterError(f"go build of {tool.package} failed:\n{built.stderr[-2000:]}")
    unfinished.rename(bin_dir() / tool.name)
