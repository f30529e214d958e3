"""Without a prefill pod that answers, decode does the work itself, and says so."""

import random

import pytest

from tests.engines.client import Ask, Client, Reply
from tests.engines.compare import difference
from tests.engines.fleet import LOCAL, REMOTE, Pair
from tests.engines.metrics import Metrics
from tests.engines.prompts import VOCABULARY

pytestmark = pytest.mark.engine

PROMPT = tuple(random.Random(4).choices(VOCABULARY, k=900))


async def ask_decode(pair: Pair) -> tuple[Reply, Metrics]:
    """A fresh prompt's answer, and what decode counted meanwhile."""
    before = pair.decode.metrics()
    async with Client(pair.decode.url) as decode:
        reply = await decode.ask(Ask(PROMPT, pair.salt()))
    return reply, pair.decode.metrics().since(before)


@pytest.fixture
async def remote_answer(pair: Pair) -> Reply:
    """While the prefill engine still answers."""
    reply, counted = await ask_decode(pair)
    assert counted.total(REMOTE) == 1
    return reply


def warnings(pair: Pair) -> list[str]:
    """The connector's own warnings in decode's log."""
    lines = pair.decode.process.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "WARNING" in line and "Remote prefill" in line]


async def test_a_prefill_engine_that_hangs_is_done_without(remote_answer: Reply, paused_prefill: Pair) -> None:
    warned = len(warnings(paused_prefill))
    reply, counted = await ask_decode(paused_prefill)
    assert difference("local", remote_answer, reply).worst <= 1e-4
    assert (counted.total(REMOTE), counted.total(LOCAL)) == (0, 1)
    assert list(counted.by(LOCAL, "reason").values()) == [1]
    assert len(warnings(paused_prefill)) == warned + 1


async def test_a_prefill_engine_that_is_gone_is_done_without(remote_answer: Reply, dead_prefill: Pair) -> None:
    """The first prompt may find out, the others needn't try."""
    for reasons in ({"failed_once", "no_prefill_pod"}, {"no_prefill_pod"}, {"no_prefill_pod"}):
        reply, counted = await ask_decode(dead_prefill)
        assert difference("local", remote_answer, reply).worst <= 1e-4
        assert (counted.total(REMOTE), counted.total(LOCAL)) == (0, 1)
        assert set(counted.by(LOCAL, "reason")) <= reasons
