"""Images on the nodes' containerds, by containerd's own client. Nothing is ever pulled.

A layer is unpacked once: another node gets the unpacked files as hard links. A layer's files are never written to,
since a container writes to a layer of its own, so the nodes can share them, and the page cache with them.
"""

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.cluster import wait
from tests.cluster.archive import Archive, Image, Layer
from tests.cluster.console import say, step
from tests.cluster.errors import ClusterError
from tests.cluster.layout import NODES, Node
from tests.cluster.process import run

KNOWN_TO_KUBELET = "io.cri-containerd.image=managed"
CONTENT = "containerd/io.containerd.content.v1.content/blobs"


def _command(node: Node, *args: str) -> list[str]:
    return ["ctr", "--address", str(node.containerd_socket), "--namespace", "k8s.io", *args]


def answers(node: Node) -> bool:
    with suppress(ClusterError):
        run(_command(node, "version"), timeout_s=5)
        return True
    return False


def _listed(node: Node) -> list[list[str]]:
    return [line.split() for line in run(_command(node, "images", "list")).splitlines()[1:]]


def images(node: Node) -> list[Image]:
    """The images by name; containerd lists each by its digests too."""
    found = [Image(row[0], row[2]) for row in _listed(node)]
    return [image for image in found if not image.name.startswith("sha256:") and "@" not in image.name]


def digest(node: Node, name: str) -> str | None:
    return next((image.digest for image in images(node) if image.name == name), None)


def load(node: Node, path: Path) -> None:
    """Imports an OCI archive, unless the node holds the same images already."""
    archive = Archive(path)
    held = images(node)
    names = ", ".join(image.name for image in archive.images)
    if all(image in held for image in archive.images):
        say(f"{names} is on {node.name} already")
        return
    with step(f"loading {names} on {node.name}"):
        _import(node, archive)
        for image in archive.images:
            wait.until(f"{image.name} is on {node.name}", partial(_is_known, node, image))


def _import(node: Node, archive: Archive) -> None:
    _share_unpacked(node, archive.layers)
    unpacked = {layer.digest for layer in archive.layers if _has_unpacked(node, layer)}

    def is_there(blob: str) -> bool:
        return blob in unpacked or (node.folder / CONTENT / blob.replace(":", "/", 1)).exists()

    command = _command(node, "images", "import", "-")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as importer:
        assert importer.stdin is not None and importer.stdout is not None
        with suppress(BrokenPipeError):  # its message says why
            archive.copy_without(is_there, importer.stdin)
            importer.stdin.close()
        said = importer.stdout.read().decode(errors="replace")
    if importer.returncode != 0:
        raise ClusterError(f"importing {archive.path} on {node.name} failed:\n{said}")


def _share_unpacked(node: Node, layers: Sequence[Layer]) -> None:
    """Takes from the other nodes what they have unpacked already, from the lowest layer up."""
    for layer in layers:
        holder = next((one for one in NODES if one.exists and _has_unpacked(one, layer)), None)
        if holder is None:
            return
        if not _has_unpacked(node, layer):
            _link_layer(holder, node, layer)


def _has_unpacked(node: Node, layer: Layer) -> bool:
    with suppress(ClusterError):
        return bool(run(_command(node, "snapshots", "info", layer.chain)))
    return False


def _link_layer(source: Node, target: Node, layer: Layer) -> None:
    parent = [layer.parent] if layer.parent else []
    view, draft = f"lc-view-{layer.chain}", f"lc-draft-{layer.chain}"
    _forget(source, view)  # a load that was killed may have left them
    _forget(target, draft)
    files = _mounted_folder(run(_command(source, "snapshots", "view", "--mounts", view, layer.chain)))
    copy = _mounted_folder(run(_command(target, "snapshots", "prepare", "--mounts", draft, *parent)))
    run(["cp", "--archive", "--link", f"{files}/.", f"{copy}/"], timeout_s=600)
    run(_command(target, "snapshots", "commit", layer.chain, draft))
    _forget(source, view)


def _forget(node: Node, snapshot: str) -> None:
    """containerd itself collects a view as soon as it likes; the layer that it shows stays."""
    with suppress(ClusterError):
        run(_command(node, "snapshots", "remove", snapshot))


def _mounted_folder(mounts: str) -> str:
    """The topmost folder of a snapshot, out of the mount that it would take."""
    (mount,) = json.loads(mounts)
    options = dict(option.partition("=")[::2] for option in mount["Options"])
    folders: str = options.get("upperdir") or options.get("lowerdir") or mount["Source"]
    return folders.split(":")[0]


def _is_known(node: Node, image: Image) -> bool:
    """containerd tells its Kubernetes side of a new image by an event: only after that the kubelet finds it."""
    rows = [row for row in _listed(node) if row[0] == image.name and row[2] == image.digest]
    return any(KNOWN_TO_KUBELET in part for row in rows for part in row[3:])
