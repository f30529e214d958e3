"""An OCI archive whose lower layers are written once and whose tail is rewritten in place.

The archive is a tar of blobs. Third-party layers come first; our small layer, the config, the manifest and the index
come last. So a code change cuts the file behind the lower layers and writes a few megabytes, not the gigabytes before.
A record beside the archive says what the file holds. It is removed before the file is touched and written when all is
done: an archive without a record is not to be trusted and is made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from images.layers import Fill
from images.spec import USER_ID, ImageSpec

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK = 512
_BUFFER = 1 << 20
_TYPE = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Blob:
    digest: str
    size: int

    def descriptor(self, kind: str, **more: object) -> dict[str, object]:
        return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{self.digest}", "size": self.size, **more}


@dataclass(frozen=True)
class Record:
    """What an archive holds: its lower layers, where they end, and the manifest written behind them (or none yet)."""

    base_key: str
    base_end: int
    layers: tuple[Blob, ...]
    manifest: str = ""

    @staticmethod
    def path(archive: Path) -> Path:
        return archive.with_suffix(".json")

    @classmethod
    def read(cls, archive: Path) -> Record | None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            raw = json.loads(cls.path(archive).read_text())
            raw["layers"] = tuple(Blob(**layer) for layer in raw["layers"])
            record = cls(**raw)
            if archive.stat().st_size >= record.base_end:
                return record
        return None

    def write(self, archive: Path) -> None:
        self.path(archive).write_text(json.dumps(asdict(self), indent=2) + "\n")


class _Tee(io.RawIOBase):
    """Writes through to a file, and hashes and counts what passes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: Buffer) -> int:
        self._hash.update(data)
        written = self._file.write(data)
        self._size += written
        return written

    def blob(self) -> Blob:
        return Blob(self._hash.hexdigest(), self._size)


def add_layer(file: BinaryIO, fill: Fill) -> Blob:
    """Append a layer as it is made: its name and size are known only afterwards, and its header is written last."""
    start = file.tell()
    file.write(bytes(_BLOCK))
    tee = _Tee(file)
    with tarfile.open(fileobj=tee, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as tar:
        fill(tar)
    blob = tee.blob()
    file.write(bytes(-blob.size % _BLOCK))
    end = file.tell()
    file.seek(start)
    file.write(_header(f"blobs/sha256/{blob.digest}", blob.size))
    file.seek(end)
    return blob


def write_tail(file: BinaryIO, spec: ImageSpec, base: Iterable[Blob], ours: list[tuple[Blob, bytes]]) -> str:
    """Write our layers and the documents behind the lower layers; returns the manifest's digest."""
    layers = [*base, *(blob for blob, _ in ours)]
    config = _json(_config(spec, layers))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": blob_of(config).descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar") for layer in layers],
        }
    )
    # containerd takes the first name as it is; skopeo and podman read the second.
    names = {"io.containerd.image.name": spec.reference, "org.opencontainers.image.ref.name": spec.reference}
    entry = blob_of(manifest).descriptor("manifest.v1+json", annotations=names, platform=_platform())
    for data in (*(data for _, data in ours), config, manifest):
        _add(file, f"blobs/sha256/{blob_of(data).digest}", data)
    _add(file, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    _add(file, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    file.write(bytes(2 * _BLOCK))
    file.truncate()
    return blob_of(manifest).digest


def copy_without(archive: Path, present: Iterable[str], out: IO[bytes]) -> int:
    """Write the archive without the blobs that the receiver has (`sha256:…`); returns the bytes of blobs sent.

    containerd resolves what the tar lacks from its content store, so loading a changed image moves our layer only.
    """
    skip = {f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in present}
    sent = 0
    with (
        tarfile.open(archive, "r:") as source,
        tarfile.open(fileobj=out, mode="w|", bufsize=_BUFFER) as target,
    ):
        for member in source:
            if member.name not in skip:
                target.addfile(member, source.extractfile(member))
                sent += member.size
    return sent


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def _config(spec: ImageSpec, layers: list[Blob]) -> dict[str, object]:
    run: dict[str, object] = {"User": f"{USER_ID}:{USER_ID}", "Env": [f"{key}={spec.env[key]}" for key in spec.env]}
    if spec.entrypoint:
        run["Entrypoint"] = list(spec.entrypoint)
    if spec.command:
        run["Cmd"] = list(spec.command)
    return {
        **_platform(),
        "created": "1970-01-01T00:00:00Z",  # a time of building would change every digest
        "config": run,
        # Uncompressed layers: compressing gigabytes on two cores costs more than moving them within the machine.
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
    }


def _platform() -> dict[str, object]:
    machine = platform.machine()
    return {"os": "linux", "architecture": _ARCHITECTURES.get(machine, machine)}


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _add(file: BinaryIO, name: str, data: bytes) -> None:
    file.write(_header(name, len(data)) + data + bytes(-len(data) % _BLOCK))
