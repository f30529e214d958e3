"""Turns folders into layers: what is kept, and with which owner, mode and time."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

Fill = Callable[[tarfile.TarFile], None]
Keep = Callable[[str], bool]

# Debian's own slim images leave out the same: documentation (licences stay), and what apt and debootstrap leave behind.
OS_DROP = (
    "dev/*",
    "proc/*",
    "sys/*",
    "run/*",
    "tmp/*",
    "debootstrap",
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/locale/*",
    "usr/share/man/*",
)
VENV_DROP = ("bin/activate*", "bin/*.bat", ".gitignore", ".lock", "CACHEDIR.TAG")


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether the path meets a pattern whose `*` stops at a slash, as in a shell."""
    parts = path.split("/")
    return any(
        len(parts) == pattern.count("/") + 1
        and all(fnmatchcase(part, piece) for part, piece in zip(parts, pattern.split("/"), strict=True))
        for pattern in patterns
    )


def keep_os(path: str) -> bool:
    if path.startswith("usr/share/doc/"):
        return path.count("/") == 3 or path.endswith("/copyright")
    return not matches(path, OS_DROP)


def keep_venv(path: str) -> bool:
    return not matches(path, VENV_DROP)


def add_tree(tar: tarfile.TarFile, root: Path, at: str, keep: Keep, *, ours: bool) -> None:
    """Add what lies under `root` as `at/…`, sorted. `ours`: root's, world-readable, without times.

    An operating system keeps its own owners, modes and times (Debian's bytecode is checked against the latter); what we
    install is the same bytes on every machine. A folder that is not kept takes all below it along.
    """

    def visit(folder: Path, inside: str) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            relative = f"{inside}{entry.name}"
            if not keep(relative):
                continue
            info = tar.gettarinfo(entry.path, arcname=f"{at}/{relative}" if at else relative)
            if info is None:  # a socket
                continue
            _normalise(info, ours)
            if info.isreg():
                with open(entry.path, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
            if entry.is_dir(follow_symlinks=False):
                visit(Path(entry.path), f"{relative}/")

    visit(root, "")


def add_file(tar: tarfile.TarFile, name: str, data: bytes, *, executable: bool = False) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755 if executable else 0o644
    tar.addfile(info, io.BytesIO(data))


def add_folders(tar: tarfile.TarFile, *names: str) -> None:
    for name in names:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)


def _normalise(info: tarfile.TarInfo, ours: bool) -> None:
    info.uname = info.gname = ""
    info.mtime = 0 if ours else int(info.mtime)
    if ours:
        info.uid = info.gid = 0
        info.mode = 0o755 if info.isdir() or info.mode & 0o111 else 0o644
