"""Free ports on loopback, below the range that the kernel takes outgoing connections' ports from.

An engine binds its control ports half a minute after it was told them, an apiserver is stopped and started again: a
port that `bind(0)` offered could by then be the local end of somebody's connection (also of a client's to that very
port, which then talks to itself).
"""

import contextlib
import random
import socket
from pathlib import Path

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 18000  # above the ports that Mooncake looks for its own in (15000 to 17000)
_random = random.SystemRandom()


def free_ports(count: int, *, tries: int = 100) -> int:
    """The first of `count` consecutive ports that nobody listens on."""
    highest = max(int(EPHEMERAL_RANGE.read_text().split()[0]), LOWEST + 1000) - count
    for _ in range(tries):
        first = _random.randint(LOWEST, highest)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise RuntimeError(f"no {count} consecutive free ports in {LOWEST} to {highest}")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
