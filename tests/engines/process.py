"""A command in its own process group, with its output in a file and a guard that ends it when we end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


class Process:
    """Started when made. `stop()` is polite and bounded; `kill()` is neither; both leave no process behind."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, str(GUARD), *command],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert self._guard.stdout is not None
        first = self._guard.stdout.readline()
        if not first:
            raise RuntimeError(f"{command[0]} did not start:\n{self.log_tail()}")
        self.group = int(first)

    def running(self) -> bool:
        return self._guard.poll() is None

    def returncode(self) -> int | None:
        return self._guard.poll()

    def pause(self) -> None:
        """SIGSTOP to every process of the group, as a node that hangs would do."""
        os.killpg(self.group, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.group, signal.SIGCONT)

    def stop(self, timeout: float = 20.0) -> None:
        """SIGTERM to the first process, then, when it takes too long, SIGKILL to all."""
        if self.running():
            os.kill(self.group, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to every process of the group, done when this returns."""
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard.wait()

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
