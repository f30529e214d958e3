"""Bounded waits on conditions. Nothing in this package sleeps for a guessed time and hopes."""

import time
from collections.abc import Callable

from tests.cluster.errors import ClusterError

INTERVAL_S = 0.1
# For what takes a second or so on an idle machine. A bound is there to end a hang, not to judge a busy machine.
PATIENCE_S = 120.0
Condition = Callable[[], bool]


def until(what: str, condition: Condition, *, timeout_s: float = PATIENCE_S, blame: Callable[[], str] = str) -> None:
    """Polls until `condition` holds. Past the bound the error carries what `blame` knows, such as a log's tail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so within {timeout_s:.0f} s\n{blame()}".rstrip())
        time.sleep(INTERVAL_S)
