"""One queue of keys between what happens and who acts.

However often a key is added, it waits once; it is never worked on twice at a time; what is added while
it is worked on comes once more afterwards. A failure comes back later and later, with jitter, so that a
broken resource costs little and many of them don't return in step. It knows nothing of what a key means.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")


class WorkQueue(Generic[K]):
    def __init__(
        self, *, first_delay: float = 0.2, longest_delay: float = 60.0, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._jitter = jitter
        self._line: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # the keys in the line
        self._working: set[K] = set()
        self._again: set[K] = set()  # added while worked on
        self._failures: dict[K, int] = {}
        self._retries: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Work on this key soon. A pending retry of it becomes unnecessary."""
        self._cancel_retry(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._line.put_nowait(key)

    async def take(self) -> K:
        """The key that has waited longest; it is the caller's until `done` or `failed`."""
        key = await self._line.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: K) -> float:
        """The key comes back after a delay, which is returned; sooner if it is added meanwhile."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self.delay(failures)
        if not self._release(key):
            self._retries[key] = asyncio.get_running_loop().call_later(delay, self.add, key)
        return delay

    def delay(self, failures: int) -> float:
        """Doubles with each failure up to a limit; half of it is jitter."""
        full = min(self._longest_delay, self._first_delay * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + 0.5 * self._jitter())

    def _release(self, key: K) -> bool:
        self._working.discard(key)
        again = key in self._again
        self._again.discard(key)
        if again:
            self.add(key)
        return again

    def _cancel_retry(self, key: K) -> None:
        timer = self._retries.pop(key, None)
        if timer is not None:
            timer.cancel()
