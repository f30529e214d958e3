"""Daemons that outlive the command that starts them, found again by a pid file and an exact command line.

The command line is the identity: a pid that the kernel has given to somebody else, a zombie, and a daemon started with
other flags all read as "not running".
"""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster import wait
from tests.cluster.errors import ClusterError

TAIL_BYTES = 4000
Prefix = Callable[[], Sequence[str]]


class Daemon:
    """One process: its command line, its log, and the prefix (namespace, cgroup) that ends by executing it.

    The prefix is asked for at the start, since it may name a process that doesn't run before.
    """

    def __init__(self, name: str, argv: Sequence[str], *, folder: Path, prefix: Prefix = tuple) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._prefix = prefix
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, if it is this daemon that runs there."""
        with suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            if command_line(pid) == self.argv:
                return pid
        return None

    def start(self) -> None:
        """Starts it unless it runs. Returns once it has been executed, which says nothing of its being ready."""
        if self.pid is not None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._prefix(), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        self._pid_file.write_text(str(self._child.pid))
        wait.until(f"{self.name} starts", self._executed, blame=self.tail)

    def _executed(self) -> bool:
        self.check()
        return self.pid is not None

    def check(self) -> None:
        """Raises with the log's tail if the process that this object started has ended."""
        if self._child is not None and self._child.poll() is not None:
            raise ClusterError(f"{self.name} ended with {self._child.returncode}\n{self.tail()}")

    def ready(self, what: str, condition: wait.Condition) -> None:
        """Waits for a condition that needs this daemon, and stops waiting as soon as it has died."""

        def holds() -> bool:
            self.check()
            return condition()

        wait.until(what, holds, blame=self.tail)

    def signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, *, grace_s: float = 10) -> None:
        """SIGTERM, then SIGKILL after the grace. A stopped (SIGSTOP) process would never see the first."""
        pid = self.pid
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with suppress(ClusterError):
            wait.until(f"{self.name} ends", lambda: self._gone(pid), timeout_s=grace_s)
        self.kill()

    def kill(self) -> None:
        pid = self.pid
        self.signal(signal.SIGKILL)
        wait.until(f"{self.name} is killed", lambda: self._gone(pid))
        self._child = None
        self._pid_file.unlink(missing_ok=True)

    def _gone(self, pid: int | None) -> bool:
        """Whether the process has closed its sockets, so that the next one can have its ports."""
        if self._child is not None:
            return self._child.poll() is not None
        return pid is None or has_ended(pid)

    def tail(self) -> str:
        """The end of the log, for an error message."""
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return f"--- the end of {self.log}:\n{log.read().decode(errors='replace')}"
        return f"--- {self.log} was never written"


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty for a zombie and for none at all."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def has_ended(pid: int) -> bool:
    """Whether every thread of a process is done. An ending process loses its command line before its sockets, and its
    first thread can be a zombie while others still hold them."""
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX" and len(list((process / "task").iterdir())) <= 1
    except OSError:
        return True


def run(argv: Sequence[str | Path], *, stdin: str | None = None, timeout_s: float = 60) -> str:
    """A command that has to succeed; its stdout, or an error with what it said."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s)
    except FileNotFoundError:
        raise ClusterError(
            f"`{command[0]}` is not on PATH: `python -m tests.cluster debs` installs what is needed"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(command)}` did not end within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` ended with {done.returncode}\n{done.stderr}{done.stdout}".rstrip())
    return done.stdout
