"""Images on the nodes' containerds, by containerd's own client. Nothing is ever pulled."""

import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.cluster import wait
from tests.cluster.archive import Archive, Image
from tests.cluster.console import say, step
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Node
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
            wait.until(f"{image.name} is on {node.name}", partial(_is_known, node, image), timeout_s=30)


def _import(node: Node, archive: Archive) -> None:
    command = _command(node, "images", "import", "-")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as importer:
        assert importer.stdin is not None and importer.stdout is not None
        with suppress(BrokenPipeError):  # its message says why
            archive.copy_without(partial(_holds, node), importer.stdin)
            importer.stdin.close()
        said = importer.stdout.read().decode(errors="replace")
    if importer.returncode != 0:
        raise ClusterError(f"importing {archive.path} on {node.name} failed:\n{said}")


def _holds(node: Node, blob: str) -> bool:
    return (node.folder / CONTENT / blob.replace(":", "/", 1)).exists()


def _is_known(node: Node, image: Image) -> bool:
    """containerd tells its Kubernetes side of a new image by an event: only after that the kubelet finds it."""
    rows = [row for row in _listed(node) if row[0] == image.name and row[2] == image.digest]
    return any(KNOWN_TO_KUBELET in part for row in rows for part in row[3:])
