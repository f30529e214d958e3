"""The queue: once in line, never twice at a time, later and later after failures."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.engine.queue import WorkQueue


def queue(**settings: float) -> WorkQueue[str]:
    return WorkQueue[str](first_delay=0.001, longest_delay=0.004, jitter=lambda: 1.0)


async def test_a_key_that_is_added_often_waits_once() -> None:
    work = queue()
    for key in ("a", "b", "a", "a"):
        work.add(key)
    assert [await work.take(), await work.take()] == ["a", "b"]
    assert len(work) == 0


async def test_a_key_that_is_worked_on_comes_again_only_afterwards() -> None:
    work = queue()
    work.add("a")
    await work.take()
    work.add("a")
    assert len(work) == 0, "nobody else may take it now"
    work.done("a")
    assert await work.take() == "a"
    work.done("a")
    assert len(work) == 0


async def test_a_failed_key_comes_back_by_itself() -> None:
    work = queue()
    work.add("a")
    await work.take()
    assert work.failed("a") == 0.001
    assert await asyncio.wait_for(work.take(), 5) == "a"


async def test_an_event_makes_a_failed_key_come_back_at_once_and_once() -> None:
    work = WorkQueue[str](first_delay=3600)
    work.add("a")
    await work.take()
    work.failed("a")
    work.add("a")
    assert await work.take() == "a"
    work.done("a")
    assert len(work) == 0


async def test_success_forgives_earlier_failures() -> None:
    work = queue()
    delays = []
    for _ in range(4):
        work.add("a")
        await work.take()
        delays.append(work.failed("a"))
    assert delays == [0.001, 0.002, 0.004, 0.004]
    work.add("a")
    await work.take()
    work.done("a")
    work.add("a")
    await work.take()
    assert work.failed("a") == 0.001


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_delays_stay_between_half_and_the_limit(failures: int, jitter: float) -> None:
    work = WorkQueue[str](first_delay=0.2, longest_delay=60, jitter=lambda: jitter)
    assert 0.1 <= work.delay(failures) <= 60
