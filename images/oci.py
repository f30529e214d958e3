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
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from images import tools
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
class Layer:
    """A layer as it is stored, and the digest of its tar (the same where it is not compressed)."""

    blob: Blob
    diff_id: str

    def descriptor(self) -> dict[str, object]:
        return self.blob.descriptor("layer.v1.tar" if self.blob.digest == self.diff_id else "layer.v1.tar+zstd")


@dataclass(frozen=True)
class Record:
    """What an archive holds: its lower layers, where they end, and the manifest written behind them (or none yet)."""

    base_key: str
    base_end: int
    layers: tuple[Layer, ...]
    manifest: str = ""

    @staticmethod
    def path(archive: Path) -> Path:
        return archive.with_suffix(".json")

    @classmethod
    def read(cls, archive: Path) -> Record | None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            raw = json.loads(cls.path(archive).read_text())
            raw["layers"] = tuple(Layer(Blob(**layer["blob"]), layer["diff_id"]) for layer in raw["layers"])
            record = cls(**raw)
            if archive.stat().st_size >= record.base_end:
                return record
        return None

    def write(self, archive: Path) -> None:
        self.path(archive).write_text(json.dumps(asdict(self), indent=2) + "\n")


class _Tee(io.RawIOBase):
    """Writes through to a file, and hashes what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Buffer) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def digest(self) -> str:
        return self._hash.hexdigest()


def add_layer(file: BinaryIO, fill: Fill) -> Layer:
    """Append a layer as it is made: its name and size are known only afterwards, and its header is written last.

    Compressed at the lowest level: containerd takes in about 100 MB/s per core, so that half the bytes load in half
    the time, and each node keeps them twice.
    """
    start = file.tell()
    file.write(bytes(_BLOCK))
    with _zstd(file) as compressor:
        plain = _Tee(compressor)
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as tar:
            fill(tar)
    blob = _blob_behind(file, start + _BLOCK)
    file.write(bytes(-blob.size % _BLOCK))
    end = file.tell()
    file.seek(start)
    file.write(_header(f"blobs/sha256/{blob.digest}", blob.size))
    file.seek(end)
    return Layer(blob, plain.digest())


def _blob_behind(file: BinaryIO, start: int) -> Blob:
    file.seek(start)
    state = hashlib.sha256()
    while data := file.read(_BUFFER):
        state.update(data)
    return Blob(state.hexdigest(), file.tell() - start)


@contextmanager
def _zstd(out: BinaryIO) -> Iterator[IO[bytes]]:
    """A file whose content is appended to `out`, compressed. Several threads give the same bytes as one."""
    command = [tools.need("zstd", "zstd"), "-q", "-1", "-T2", "-c", "--no-sparse"]
    out.flush()  # zstd writes to the same open file, behind what we wrote
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out) as process:
        assert process.stdin
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError as error:
            raise tools.BuildError("zstd stopped: is the disk full?") from error
    if process.returncode:
        raise tools.BuildError(f"zstd ended with {process.returncode}")


def write_tail(file: BinaryIO, spec: ImageSpec, base: Iterable[Layer], ours: Iterable[bytes]) -> str:
    """Write our layers (tars) and the documents behind the lower layers; returns the manifest's digest."""
    ours = list(ours)
    layers = [*base, *(Layer(blob_of(data), blob_of(data).digest) for data in ours)]
    config = _json(_config(spec, layers))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": blob_of(config).descriptor("config.v1+json"),
            "layers": [layer.descriptor() for layer in layers],
        }
    )
    # containerd takes the first name as it is; skopeo and podman read the second.
    names = {"io.containerd.image.name": spec.reference, "org.opencontainers.image.ref.name": spec.reference}
    entry = blob_of(manifest).descriptor("manifest.v1+json", annotations=names, platform=_platform())
    for data in (*ours, config, manifest):
        _add(file, f"blobs/sha256/{blob_of(data).digest}", data)
    _add(file, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    _add(file, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    file.write(bytes(2 * _BLOCK))
    return blob_of(manifest).digest


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def _config(spec: ImageSpec, layers: list[Layer]) -> dict[str, object]:
    run: dict[str, object] = {"User": f"{USER_ID}:{USER_ID}", "Env": [f"{key}={spec.env[key]}" for key in spec.env]}
    if spec.entrypoint:
        run["Entrypoint"] = list(spec.entrypoint)
    if spec.command:
        run["Cmd"] = list(spec.command)
    return {
        **_platform(),
        "created": "1970-01-01T00:00:00Z",  # a time of building would change every digest
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
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
