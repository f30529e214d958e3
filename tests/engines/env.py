"""Makes `.venv-engine`, the environment that test engines run in: the CPU engine image's lock plus our connector.

    python -m tests.engines.env

Nothing is done when it is already there with the same lock. The connector is an editable install, so a change to its
code needs no new environment. It is built with the hatchling of the calling environment: nothing unlocked is fetched.
"""

import ctypes
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import tools

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "images" / "engine-cpu" / "requirements.txt"
CONNECTOR = ROOT / "connector"
VENV = ROOT / ".venv-engine"
STAMP = VENV / "layercast-stamp"
PYTHON_VARIABLE = "LAYERCAST_ENGINE_PYTHON"  # an interpreter to use as it is instead: somebody else's environment

# Mooncake's extension module links against it, whatever the transport.
LIBRARY, DEBIAN_PACKAGE = "libibverbs.so.1", "libibverbs1"


class EnvError(RuntimeError):
    """What is missing, and what to do about it."""


def engine_python() -> Path:
    """The interpreter of the engine environment, made first when it isn't there yet."""
    if chosen := os.environ.get(PYTHON_VARIABLE):
        return Path(chosen)
    ensure()
    return VENV / "bin" / "python"


def ensure() -> None:
    """Bring the environment up to the lock; quick when it already is."""
    ensure_library()
    with _only_one():
        wanted = stamp_for(LOCK, CONNECTOR / "pyproject.toml")
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return
        STAMP.unlink(missing_ok=True)
        _make()
        STAMP.write_text(wanted)  # last: an environment without it is an unfinished one


def stamp_for(*inputs: Path) -> str:
    """One line per input that decides what the environment holds."""
    lines = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    lines += [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}" for path in inputs]
    return "\n".join(lines) + "\n"


def ensure_library() -> None:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        if os.geteuid() != 0:
            raise EnvError(f"{LIBRARY} is missing; as root: apt-get install {DEBIAN_PACKAGE}") from error
        _run("Debian package " + DEBIAN_PACKAGE, "apt-get", "update", "-q")
        _run("Debian package " + DEBIAN_PACKAGE, "apt-get", "install", "-y", "-q", DEBIAN_PACKAGE)


def _make() -> None:
    try:
        uv = os.environ.get("UV") or tools.uv()
    except tools.BuildError as error:
        raise EnvError(f"{error}; or set UV to the program") from error
    python = str(VENV / "bin" / "python")
    if not Path(python).exists():
        _run("engine environment", uv, "venv", "-q", "--python", sys.executable, str(VENV))
    _run("engine packages (6 GB when cold)", uv, "pip", "sync", "-q", "--python", python, "--require-hashes", str(LOCK))
    with tempfile.TemporaryDirectory() as folder:
        build = "import sys, hatchling.build as b; b.build_editable(sys.argv[1])"
        _run("connector", sys.executable, "-c", build, folder, cwd=CONNECTOR)
        wheels = [str(wheel) for wheel in Path(folder).glob("*.whl")]
        _run("connector", uv, "pip", "install", "-q", "--python", python, "--no-deps", "--no-index", *wheels)


def _run(what: str, *command: str, cwd: Path | None = None) -> None:
    print(f"{what}: {' '.join(Path(part).name if '/' in part else part for part in command[:5])} ...", file=sys.stderr)
    begun = time.monotonic()
    if subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode != 0:
        raise EnvError(f"{what}: failed: {' '.join(command)}")
    print(f"{what}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def _only_one() -> Iterator[None]:
    with LOCK.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        print(engine_python())
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
