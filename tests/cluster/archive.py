"""OCI archives: what is in one, and a shorter one that leaves out what a node has already.

A 6 GB image whose last layer changed is loaded in the time that this layer takes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.cluster.errors import ClusterError
from tests.cluster.oci import NAME_ANNOTATION

CONTAINERD_NAME_ANNOTATION = "io.containerd.image.name"
DEFAULT_REGISTRY = "docker.io"
BLOBS = "blobs/"


@dataclass(frozen=True)
class Image:
    """An image as an archive offers it, or as a node holds it."""

    name: str
    digest: str


@dataclass(frozen=True)
class Layer:
    """A layer's blob, and the chain that names the file system made of it and of all layers below it."""

    digest: str
    chain: str
    parent: str | None


class Archive:
    """One OCI archive, open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index: dict[str, Any] = json.loads(self._read("index.json"))
        self._name_fully()

    def _read(self, name: str) -> bytes:
        try:
            with tarfile.open(self.path, "r:") as archive:
                content = archive.extractfile(name)
                assert content is not None
                return content.read()
        except FileNotFoundError:
            raise ClusterError(f"{self.path} does not exist") from None
        except (tarfile.ReadError, KeyError):
            raise ClusterError(f"{self.path} is not an OCI archive (`buildah push … oci-archive:FILE:NAME`)") from None

    def _name_fully(self) -> None:
        """containerd takes a name from an annotation of its own, and the kubelet asks for full names only."""
        for manifest in self._index["manifests"]:
            annotations = manifest.setdefault("annotations", {})
            name = annotations.get(CONTAINERD_NAME_ANNOTATION) or annotations.get(NAME_ANNOTATION, "")
            if not name.strip("0123456789.-_v") or name == "latest":
                message = f"{self.path} says no image name, only {name!r}: push it to oci-archive:FILE:NAME:TAG"
                raise ClusterError(message)
            annotations[CONTAINERD_NAME_ANNOTATION] = full_name(name)

    @property
    def images(self) -> list[Image]:
        manifests = self._index["manifests"]
        return [Image(one["annotations"][CONTAINERD_NAME_ANNOTATION], one["digest"]) for one in manifests]

    @property
    def layers(self) -> list[Layer]:
        """Of all its images, each image's lowest layer first."""
        return [layer for image in self.images for layer in self._layers(image)]

    def _layers(self, image: Image) -> list[Layer]:
        manifest = self._blob(image.digest)
        diff_ids = self._blob(manifest["config"]["digest"])["rootfs"]["diff_ids"]
        digests = [layer["digest"] for layer in manifest["layers"]]
        chains = _chains(diff_ids)
        return [Layer(*layer) for layer in zip(digests, chains, [None, *chains[:-1]], strict=True)]

    def _blob(self, digest: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._read(BLOBS + digest.replace(":", "/", 1)))
        return content

    def copy_without(self, is_there: Callable[[str], bool], to: IO[bytes]) -> None:
        """Writes the archive to a stream, without the blobs whose digest is there already."""
        with tarfile.open(self.path, "r:") as archive, tarfile.open(fileobj=to, mode="w|") as shorter:
            for member in archive:
                if member.name == "index.json":
                    continue
                digest = member.name.removeprefix(BLOBS).replace("/", ":", 1)
                if member.isfile() and not (member.name.startswith(BLOBS) and is_there(digest)):
                    shorter.addfile(member, archive.extractfile(member))
            index = json.dumps(self._index).encode()
            named = tarfile.TarInfo("index.json")
            named.size = len(index)
            shorter.addfile(named, io.BytesIO(index))


def _chains(diff_ids: list[str]) -> list[str]:
    """Chain identifiers as the OCI image specification defines them."""
    chains: list[str] = []
    for diff_id in diff_ids:
        below = f"{chains[-1]} {diff_id}".encode() if chains else b""
        chains.append(f"sha256:{hashlib.sha256(below).hexdigest()}" if below else diff_id)
    return chains


def full_name(name: str) -> str:
    """`a/b` is docker.io/a/b:latest, as everywhere."""
    first, slash, _ = name.partition("/")
    has_registry = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    if not has_registry:
        name = f"{DEFAULT_REGISTRY}/{name}" if slash else f"{DEFAULT_REGISTRY}/library/{name}"
    has_tag = ":" in name.rsplit("/", 1)[-1]
    return name if has_tag else f"{name}:latest"
