"""Waiting for a condition, always with a bound; the only place in the harness that sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class WaitTimeout(AssertionError):
    """The condition did not come true in time."""


def until(what: str, condition: Callable[[], bool], *, within: float, interval: float = 0.2) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise WaitTimeout(f"not within {within:g} s: {what}")
        time.sleep(interval)


async def until_async(
    what: str, condition: Callable[[], Awaitable[bool]], *, within: float, interval: float = 0.1
) -> None:
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            raise WaitTimeout(f"not within {within:g} s: {what}")
        await asyncio.sleep(interval)
