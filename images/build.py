"""Makes the images as OCI archives in the cache: `python -m images.build [NAME…]`.

An archive's lower layers (operating system, locked packages) are made when their key changes; ours is made every time,
which takes a second, and the archive's tail is rewritten when that gave other bytes.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from images import oci, tools
from images.layers import Fill, add_tree
from images.python_env import add_env, add_wheel, build_wheel, locked_env
from images.rootfs import add_busybox, add_rootfs, rootfs
from images.spec import MODEL, SPECS, ImageSpec, base_key, cache_dir


def build(spec: ImageSpec, cache: Path) -> Path:
    """Bring one image's archive up to date and print its path and digest."""
    started = time.monotonic()
    archive = cache / "images" / f"{spec.name}.oci.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    key = base_key(spec)
    record = oci.Record.read(archive)
    if record is None or record.base_key != key:
        record = _write_base(spec, cache, archive, key)
    manifest = _write_ours(spec, archive, record)
    state = "unchanged" if manifest == record.manifest else "written"
    size = archive.stat().st_size / 1e6
    tools.say(f"{spec.name}: {state}, {size:.0f} MB, {time.monotonic() - started:.1f} s")
    print(f"{archive} sha256:{manifest}", flush=True)
    return archive


def _write_base(spec: ImageSpec, cache: Path, archive: Path, key: str) -> oci.Record:
    oci.Record.path(archive).unlink(missing_ok=True)
    with ExitStack() as stack:
        fills = _base_fills(spec, cache, stack)
        with tools.step(f"{spec.name}: {len(fills)} lower layers"), archive.open("w+b") as file:
            layers = tuple(oci.add_layer(file, fill) for fill in fills)
            record = oci.Record(key, file.tell(), layers)
    record.write(archive)
    return record


def _base_fills(spec: ImageSpec, cache: Path, stack: ExitStack) -> list[Fill]:
    if not spec.lines("packages.txt"):
        return [partial(add_busybox, cache=cache)]
    root = rootfs(spec, cache)
    stage = stack.enter_context(locked_env(spec, cache))
    return [partial(add_rootfs, root=root), partial(add_env, spec=spec, stage=stage)]


def _write_ours(spec: ImageSpec, archive: Path, record: oci.Record) -> str:
    """Our layer and the documents; the file is left alone when it holds just these."""
    layers = _our_layers(spec)
    scratch = io.BytesIO()
    manifest = oci.write_tail(scratch, spec, record.layers, layers)
    if manifest == record.manifest:
        return manifest
    oci.Record.path(archive).unlink(missing_ok=True)
    with archive.open("r+b") as file:
        file.seek(record.base_end)
        file.write(scratch.getvalue())
        file.truncate()
    oci.Record(record.base_key, record.base_end, record.layers, manifest).write(archive)
    return manifest


def _our_layers(spec: ImageSpec) -> list[bytes]:
    if spec.project is None:
        return []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_wheel(tar, build_wheel(spec.project))
        if spec.tiny_model:
            _add_model(tar)
    return [buffer.getvalue()]


def _add_model(tar: tarfile.TarFile) -> None:
    try:
        from examples.tiny_model import make_tiny_model
    except ImportError as error:
        raise tools.BuildError(f"{error}: run this with the Python of the project's .venv") from error
    with TemporaryDirectory() as folder:
        make_tiny_model(Path(folder))
        add_tree(tar, Path(folder), MODEL, lambda _: True, ours=True)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One build at a time: two would write the same archive."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tools.say("waiting for another build to end …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m images.build", description="Make the images as OCI archives.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SPECS)} (default: all)")
    names = parser.parse_args().names or list(SPECS)
    if unknown := sorted(set(names) - set(SPECS)):
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(SPECS)}")
    cache = cache_dir()
    try:
        with _alone(cache):
            for name in names:
                build(SPECS[name], cache)
    except tools.BuildError as error:
        print(f"[images] failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
