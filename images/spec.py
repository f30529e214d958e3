"""What goes into each image, and the keys that say when a part must be made anew."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from images.layers import OS_DROP, VENV_DROP

REPO = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
PYTHON = (3, 11)  # bookworm's, which runs the environments
GLIBC = "2_36"  # bookworm's
USER_ID = 65532
VENV = "opt/venv"
SITE_PACKAGES = f"{VENV}/lib/python{PYTHON[0]}.{PYTHON[1]}/site-packages"
MODEL = "opt/layercast/models/tiny"

# Raised when code changes what the lower layers hold in a way that their keys don't see: cached ones are made anew.
FORMAT = 1

BASE_ENV = {
    "PATH": f"/{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # the one place that is writable under a read-only root (an emptyDir)
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",  # bytecode is in the image already
}


@dataclass(frozen=True)
class ImageSpec:
    """One image. Its folder `images/NAME` holds `packages.txt`, `requirements.txt` and, where needed, `prune.txt`."""

    name: str
    project: str | None = None  # folder of our distribution that goes on top
    tiny_model: bool = False
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return REPO / "images" / self.name

    @property
    def reference(self) -> str:
        return f"layercast.local/{self.name}:dev"

    def lines(self, file: str) -> tuple[str, ...]:
        """The entries of one of the folder's lists; none when the image has no such list."""
        path = self.folder / file
        rows = (row.strip() for row in path.read_text().splitlines()) if path.is_file() else ()
        return tuple(row for row in rows if row and not row.startswith("#"))


SPECS = {
    spec.name: spec
    for spec in (
        ImageSpec(
            "engine-cpu",
            project="connector",
            tiny_model=True,
            command=("python3", "-m", "vllm.entrypoints.openai.api_server"),
            env=BASE_ENV,
        ),
        ImageSpec("operator", project="operator", entrypoint=("layercast-operator",), env=BASE_ENV),
        # The pod sandbox's process: holds the namespaces, does nothing.
        ImageSpec("pause", entrypoint=("/bin/busybox", "sleep", "inf")),
    )
}


def cache_dir() -> Path:
    base = os.environ.get("LAYERCAST_CACHE") or Path.home() / ".cache" / "layercast"
    return Path(base).absolute()


def digest_of(parts: Iterable[str | bytes]) -> str:
    """A hash of the parts in their order; lengths are hashed too, so that moving a border changes it."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(f"{len(data)}:".encode() + data)
    return state.hexdigest()


def rootfs_key(packages: Iterable[str]) -> str:
    return digest_of([str(FORMAT), SUITE, *sorted(set(packages))])[:16]


def base_key(spec: ImageSpec) -> str:
    """The key of all layers below ours: the operating system's packages, the lock, what is left out of it."""
    lock = spec.folder / "requirements.txt"
    return digest_of(
        [
            str(FORMAT),
            spec.name,
            rootfs_key(spec.lines("packages.txt")),
            lock.read_bytes() if lock.is_file() else b"",
            "\n".join(sorted((*spec.lines("prune.txt"), *OS_DROP, *VENV_DROP))),
        ]
    )
