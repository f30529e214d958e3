"""Running other programs: found or installed, bounded in time, and heard only when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_TAIL = 30


class BuildError(Exception):
    """Something that the reader can act on; printed without a traceback."""


def say(text: str) -> None:
    print(f"[images] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    say(f"{text} …")
    started = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - started:.1f} s")


def run(
    command: Sequence[str], *, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run to its end; on failure raise with the end of what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        raise BuildError(f"{command[0]} took more than {timeout:.0f} s") from late
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL:])
        raise BuildError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")


def need(program: str, package: str) -> str:
    """The program's path; installs its Debian package when it is missing and we may."""
    path = _find(program)
    if path is None:
        _install(package)
        path = _find(program)
    if path is None:
        raise BuildError(f"the Debian package {package} was installed, but brought no {program}")
    return path


def _find(program: str) -> str | None:
    # Debian keeps some of these out of an ordinary user's PATH.
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _install(package: str) -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        raise BuildError(f"the Debian package {package} is missing: install it (as root), then try again")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {package}"):
        run(["apt-get", "update", "-q"], timeout=300, env=quiet)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", package], timeout=600, env=quiet)


def uv() -> str:
    """The uv of the locked development environment, or one on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise BuildError("uv is missing: `make env` installs it")
    return found
