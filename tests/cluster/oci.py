"""Small OCI archives written with the standard library: a few files FROM scratch, the same bytes every time."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAME_ANNOTATION = "org.opencontainers.image.ref.name"
MEDIA = "application/vnd.oci.image"


def write_image(
    target: Path,
    name: str,
    *,
    files: Mapping[str, Path],
    links: Mapping[str, str] | None = None,
    command: Sequence[str],
) -> None:
    """One executable per entry of `files`, one symbolic link per entry of `links` (path → where it points)."""
    layer = _layer(files, links or {})
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    runtime = {"Cmd": list(command), "Env": ["PATH=/bin"]}
    root = {"type": "layers", "diff_ids": [diff_id]}
    config = _json({"architecture": "amd64", "os": "linux", "config": runtime, "rootfs": root})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": _descriptor(config, f"{MEDIA}.config.v1+json"),
            "layers": [_descriptor(layer, f"{MEDIA}.layer.v1.tar")],
        }
    )
    listed = _descriptor(manifest, f"{MEDIA}.manifest.v1+json") | {"annotations": {NAME_ANNOTATION: name}}
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        for blob in (layer, config, manifest):
            _add(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": [listed]}))


def _layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for parent in sorted({parent for path in (*files, *links) for parent in Path(path).parents} - {Path()}):
            folder = tarfile.TarInfo(str(parent))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(folder)
        for path, source in sorted(files.items()):
            _add(layer, path, source.read_bytes(), mode=0o755)
        for path, points_to in sorted(links.items()):
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, points_to
            layer.addfile(link)
    return content.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
