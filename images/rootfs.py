"""The operating system's part: Debian packages in a folder, kept by suite and package list."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from images import tools
from images.layers import add_file, add_folders, add_tree, keep_os
from images.spec import SUITE, USER_ID, ImageSpec, rootfs_key

# Names a mirror of the reader's choice; debootstrap's own default otherwise.
MIRROR_VARIABLE = "LAYERCAST_DEBIAN_MIRROR"


def rootfs(spec: ImageSpec, cache: Path) -> Path:
    """A folder with Debian's minimal system and the image's packages."""
    packages = spec.lines("packages.txt")
    target = cache / "rootfs" / rootfs_key(packages)
    if target.is_dir():
        return target
    if os.geteuid():
        raise tools.BuildError(
            "debootstrap needs root; without it, use the Containerfiles in images/ with your builder"
        )
    debootstrap = tools.need("debootstrap", "debootstrap")
    debs = cache / "debs"
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in (partial, debs):
        folder.mkdir(parents=True, exist_ok=True)
    with tools.step(f"{spec.name}: Debian {SUITE} with {', '.join(packages)}"):
        mirror = os.environ.get(MIRROR_VARIABLE)
        tools.run(
            [
                debootstrap,
                "--variant=minbase",
                f"--cache-dir={debs}",
                f"--include={','.join(packages)}",
                SUITE,
                str(partial),
                *([mirror] if mirror else []),
            ],
            timeout=900,
        )
    _finish(partial)
    partial.rename(target)
    return target


def _finish(root: Path) -> None:
    """The user that the images run as, and no trace of the machine that built them."""
    for name, line in (
        ("passwd", f"layercast:x:{USER_ID}:{USER_ID}::/tmp:/usr/sbin/nologin\n"),
        ("group", f"layercast:x:{USER_ID}:\n"),
    ):
        with (root / "etc" / name).open("a") as file:
            file.write(line)
    for name in ("hostname", "resolv.conf"):
        (root / "etc" / name).write_text("")


def add_rootfs(tar: tarfile.TarFile, root: Path) -> None:
    add_tree(tar, root, "", keep_os, ours=False)


def busybox(cache: Path) -> bytes:
    """A static busybox out of its Debian package, which needs not be installed for it."""
    folder = cache / "busybox"
    binary = folder / "bin" / "busybox"
    if not binary.is_file():
        apt, dpkg = tools.need("apt-get", "apt"), tools.need("dpkg-deb", "dpkg")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            tools.run([apt, "download", "-q", "busybox-static"], timeout=120, cwd=folder)
        except tools.BuildError:  # no package lists yet
            tools.run([apt, "update", "-q"], timeout=300)
            tools.run([apt, "download", "-q", "busybox-static"], timeout=120, cwd=folder)
        deb = next(folder.glob("busybox-static_*.deb"))
        tools.run([dpkg, "-x", str(deb), str(folder)], timeout=60)
        deb.unlink()
    return binary.read_bytes()


def add_busybox(tar: tarfile.TarFile, cache: Path) -> None:
    add_folders(tar, "bin")
    add_file(tar, "bin/busybox", busybox(cache), executable=True)
