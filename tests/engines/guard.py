"""Runs one command and outlives nobody: kills everything that the command started when its owner is gone.

    python guard.py COMMAND...

vLLM is an API server, an EngineCore and a worker; a SIGKILL to the first leaves the others behind, and a test run that
is killed runs no clean-up of its own. So the owner holds the other end of this process's stdin: when that closes, for
whatever reason, or when the command ends, everything in the command's process group is killed, and waited for (orphans
become this process's children). The command's process id, which is its group's too, is the first line on stdout. The
guard is in another group: a SIGSTOP to the engine leaves it awake.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the owner, which closes our stdin
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
    ) as child:
        try:
            print(child.pid, flush=True)
            _wait_for_either(os.pidfd_open(child.pid), sys.stdin.fileno())
        finally:
            _kill_group(child.pid)
        status = child.wait()
        _reap_orphans()
        return status


def _wait_for_either(child: int, owner: int) -> None:
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(owner, select.POLLIN | select.POLLHUP)
    poll.poll()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _reap_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
