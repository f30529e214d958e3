"""The locked third-party environment at /opt/venv, and our wheels in it."""

from __future__ import annotations

import configparser
import io
import os
import platform
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from images import tools
from images.layers import add_file, add_tree, keep_venv, matches
from images.spec import GLIBC, PYTHON, REPO, SITE_PACKAGES, SUITE, VENV, ImageSpec

_PYTHON_NAME = f"python{PYTHON[0]}.{PYTHON[1]}"
_SCRIPT = """#!/{venv}/bin/python3
import sys

from {module} import {function}

sys.exit({function}())
"""


@contextmanager
def locked_env(spec: ImageSpec, cache: Path) -> Iterator[Path]:
    """A folder that holds opt/venv as the image will; removed afterwards (its files are links into uv's cache)."""
    stage = cache / "stage" / spec.name
    shutil.rmtree(stage, ignore_errors=True)
    venv = stage / VENV
    try:
        with tools.step(f"{spec.name}: packages of the lock"):
            _install(spec, venv)
        with tools.step(f"{spec.name}: bytecode"):
            _compile(stage)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def add_env(tar: tarfile.TarFile, spec: ImageSpec, stage: Path) -> None:
    """Add the environment without what the image's `prune.txt` names, relative to site-packages."""
    site = SITE_PACKAGES.removeprefix(f"{VENV}/")
    prune = [f"{site}/{pattern}" for pattern in spec.lines("prune.txt")]
    add_tree(tar, stage / VENV, VENV, lambda path: keep_venv(path) and not matches(path, prune), ours=True)


def _host_python() -> str:
    """A Python of the image's version: it makes the bytecode, and wheels are picked for it."""
    found = sys.executable if sys.version_info[:2] == PYTHON else shutil.which(_PYTHON_NAME)
    if found is None:
        raise tools.BuildError(
            f"{_PYTHON_NAME} is missing: the images hold Debian {SUITE}'s and are made with the same"
        )
    return found


def _install(spec: ImageSpec, venv: Path) -> None:
    uv = tools.uv()
    tools.run([uv, "venv", "-q", "--no-project", "--relocatable", "--python", _host_python(), str(venv)], timeout=120)
    lock = str(spec.folder / "requirements.txt")
    # `sync` installs the lock as it stands: resolving again would ask for what the overrides replaced. Wheels
    # only, and such as suit the image's C library, which may be older than this machine's.
    choice = ["--require-hashes", "--no-build", "--python-platform", f"{platform.machine()}-manylinux_{GLIBC}"]
    tools.run([uv, "pip", "sync", "-q", *choice, "--python", str(venv / "bin/python"), lock], timeout=1800)
    binary = venv / "bin" / "python"
    binary.unlink()
    binary.symlink_to(f"/usr/bin/{_PYTHON_NAME}")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def _compile(stage: Path) -> None:
    """Bytecode that is not checked against its source: the root may be read-only, and the image's times say nothing."""
    jobs = str(min(2, os.cpu_count() or 1))
    command = [_host_python(), "-m", "compileall", "-q", "-j", jobs, "--invalidation-mode", "unchecked-hash"]
    try:
        tools.run([*command, "-s", str(stage), "-p", "/", str(stage / SITE_PACKAGES)], timeout=1200)
    except tools.BuildError as error:
        # Some packages carry templates and code for other Pythons; the rest is compiled all the same.
        if "SyntaxError" not in str(error) and "Error compiling" not in str(error):
            raise


def build_wheel(project: str) -> bytes:
    """The wheel of one of our distributions, by the build back end of the locked development environment."""
    with TemporaryDirectory() as out:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
        tools.run(command, cwd=REPO / project, timeout=120)
        return next(Path(out).glob("*.whl")).read_bytes()


def add_wheel(tar: tarfile.TarFile, wheel: bytes) -> None:
    """Install a pure Python wheel: unpacked into site-packages, a script for each of its entry points."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in sorted(archive.namelist()):
            data = archive.read(name)
            add_file(tar, f"{SITE_PACKAGES}/{name}", data)
            if name.endswith(".dist-info/entry_points.txt"):
                _add_scripts(tar, data.decode())


def _add_scripts(tar: tarfile.TarFile, entry_points: str) -> None:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(entry_points)
    for name, target in parser["console_scripts"].items() if "console_scripts" in parser else ():
        module, function = (part.strip() for part in target.split(":"))
        script = _SCRIPT.format(venv=VENV, module=module, function=function)
        add_file(tar, f"{VENV}/bin/{name}", script.encode(), executable=True)
