"""Answers over pushed KV equal those of a local prefill, for 200 prompts, 16 at once.

The local prefill is the prefill engine's own: asked directly, with salts of its own, it is a plain vLLM with the same
chunk size, and nothing of what it computes there is ever pushed.
"""

import asyncio
from dataclasses import dataclass, replace

import pytest

from tests.engines.client import Client, Reply
from tests.engines.compare import difference, differences
from tests.engines.fleet import LOCAL, MIN_REMOTE_TOKENS, REMOTE, Pair
from tests.engines.metrics import Metrics
from tests.engines.prompts import Case, Plan, make_plan

pytestmark = pytest.mark.engine

AT_ONCE = 16
HITS = "vllm:prefix_cache_hits_total"


@dataclass(frozen=True)
class Run:
    """What was asked, what came back from either side, and what each engine counted while decode was asked."""

    plan: Plan
    local: list[Reply]
    remote: list[Reply]
    decode: Metrics
    prefill: Metrics

    def triples(self) -> list[tuple[str, Reply, Reply]]:
        names = [case.name for case in self.plan.cases()]
        return list(zip(names, self.local, self.remote, strict=True))


@pytest.fixture(scope="module")
def run(pair: Pair) -> Run:
    return asyncio.run(_run(pair, make_plan(pair.salt())))


async def _run(pair: Pair, plan: Plan) -> Run:
    own_salts = [replace(case.ask, salt=pair.salt()) for case in plan.cases()]
    async with Client(pair.prefill.url) as prefill, Client(pair.decode.url) as decode:
        local = await prefill.ask_all(own_salts, at_once=AT_ONCE)
        await prefill.ask_all(plan.warm_prefill, at_once=AT_ONCE)
        before = pair.decode.metrics(), pair.prefill.metrics()
        remote = []
        for part in (plan.first, plan.second):
            remote += await decode.ask_all([case.ask for case in part], at_once=AT_ONCE)
        after = pair.decode.metrics(), pair.prefill.metrics()
    return Run(plan, local, remote, after[0].since(before[0]), after[1].since(before[1]))


def _is_remote(case: Case) -> bool:
    return case.uncached() >= MIN_REMOTE_TOKENS


def test_every_answer_equals_that_of_a_local_prefill(run: Run) -> None:
    worst = max((difference(*each) for each in run.triples()), key=lambda each: each.worst)
    print(f"the worst of {len(run.remote)}: {worst}")
    found = differences(run.triples())
    assert not found, f"{len(found)} of {len(run.remote)} differ:\n" + "\n".join(map(str, found[:20]))


def test_the_answers_are_worth_comparing(run: Run) -> None:
    """Prompts that all fell into one output loop would be equal whatever the KV held."""
    answers = {answer.token_ids for reply in run.local for answer in reply.answers}
    assert len(answers) > 0.9 * len(run.local)


def test_requests_for_two_choices_get_two(run: Run) -> None:
    asked = [case.ask.n for case in run.plan.cases()]
    assert [len(reply.answers) for reply in run.remote] == asked
    assert asked.count(2) == 20


def test_every_long_enough_prompt_was_prefilled_remotely_and_no_other(run: Run) -> None:
    """Each choice of an `n=2` request is a request of its own: the second may find the first one's blocks, or not."""
    asks = [(case.ask.n, _is_remote(case)) for case in run.plan.cases()]
    remote, local = run.decode.total(REMOTE), run.decode.total(LOCAL)
    assert sum(is_remote for _, is_remote in asks) <= remote <= sum(n for n, is_remote in asks if is_remote)
    assert remote + local == sum(n for n, _ in asks), run.decode.by(LOCAL, "reason")
    assert local >= sum(n for n, is_remote in asks if not is_remote) > 0


def test_prefix_caches_were_hit_on_either_side(run: Run) -> None:
    cases = run.plan.cases()
    assert run.decode.total(HITS) >= sum(case.decode_cached for case in cases) > 0
    assert run.prefill.total(HITS) >= sum(case.prefill_cached for case in cases) > 0


def test_chunks_split_prompts(run: Run, pair: Pair) -> None:
    chunk = pair.spec.max_batched_tokens
    assert sum(case.uncached() > chunk for case in run.plan.cases()) >= 20
