"""Every way of asking gets the answer of a local prefill: chat, streaming, many at once, with others leaving."""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from tests.engines.client import Ask, AskChat, Client, Reply
from tests.engines.compare import difference, differences
from tests.engines.fleet import LOCAL, REMOTE, Pair
from tests.engines.prompts import VOCABULARY
from tests.engines.wait import until_async

pytestmark = pytest.mark.engine

CHAT = (
    ("system", "Answer in one sentence, and count the layers that carry the tokens."),
    ("user", "A prompt goes in at one end. " * 20 + "What comes out at the other?"),
)
IN_FLIGHT = 40


def make_asks(pair: Pair, lengths: list[int]) -> list[Ask]:
    dice = random.Random(sum(lengths))
    return [Ask(tuple(dice.choices(VOCABULARY, k=length)), pair.salt()) for length in lengths]


async def local_answers(pair: Pair, asks: list[Ask]) -> list[Reply]:
    async with Client(pair.prefill.url) as prefill:
        return await prefill.ask_all([replace(ask, salt=pair.salt()) for ask in asks], at_once=16)


def assert_equal(local: list[Reply], remote: list[Reply]) -> None:
    names = [f"{reply.prompt_tokens} tokens" for reply in local]
    assert differences(zip(names, local, remote, strict=True)) == []


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
async def test_a_chat_request_equals_a_local_one(pair: Pair, streaming: bool) -> None:
    before = pair.decode.metrics().total(REMOTE)
    async with Client(pair.prefill.url) as prefill, Client(pair.decode.url) as decode:
        local = await prefill.ask(AskChat(CHAT, pair.salt()))
        ask = AskChat(CHAT, pair.salt())
        remote = await (decode.ask_streaming(ask) if streaming else decode.ask(ask))
    assert_equal([local], [remote])
    assert remote.answers[0].text == local.answers[0].text != ""
    assert pair.decode.metrics().total(REMOTE) == before + 1


async def test_a_streaming_completion_equals_a_whole_one_and_comes_in_parts(pair: Pair) -> None:
    (ask,) = make_asks(pair, [700])
    before = pair.decode.metrics().total(REMOTE)
    async with Client(pair.decode.url) as decode:
        streamed = await decode.ask_streaming(ask)
    assert_equal(await local_answers(pair, [ask]), [streamed])
    assert streamed.parts > ask.max_tokens // 2
    assert pair.decode.metrics().total(REMOTE) == before + 1


async def test_forty_prefills_are_in_flight_at_once(pair: Pair) -> None:
    """Long prompts of prefill's own keep it busy until what decode sends has queued up there and is counted."""
    asks = make_asks(pair, [70 + 4 * i for i in range(IN_FLIGHT)])
    own = make_asks(pair, [4000] * 4)
    before = pair.decode.metrics()

    async def all_there() -> bool:
        scrape = pair.prefill.metrics()
        there = scrape.total("vllm:num_requests_running") + scrape.total("vllm:num_requests_waiting")
        return there >= len(own) + 32

    async with Client(pair.prefill.url) as prefill, Client(pair.decode.url) as decode:
        busy = asyncio.create_task(prefill.ask_all(own, at_once=len(own)))
        remote = asyncio.create_task(decode.ask_all(asks, at_once=IN_FLIGHT))
        await until_async("32 requests of decode on prefill at one time", all_there, within=60, interval=0.05)
        busy.cancel()
        answers = await remote
    assert_equal(await local_answers(pair, asks), answers)
    counted = pair.decode.metrics().since(before)
    assert (counted.total(REMOTE), counted.total(LOCAL)) == (IN_FLIGHT, 0), counted.by(LOCAL, "reason")


async def test_local_and_remote_prompts_share_a_batch(pair: Pair) -> None:
    asks = make_asks(pair, [20 + i if i % 2 else 200 + 10 * i for i in range(32)])
    before = pair.decode.metrics()
    async with Client(pair.decode.url) as decode:
        remote = await decode.ask_all(asks, at_once=len(asks))
    assert_equal(await local_answers(pair, asks), remote)
    counted = pair.decode.metrics().since(before)
    assert (counted.total(REMOTE), counted.total(LOCAL)) == (16, 16), counted.by(LOCAL, "reason")


async def test_clients_that_leave_in_mid_prefill_leave_nothing_behind(pair: Pair) -> None:
    pair.wait_settled()
    gone, stayed = make_asks(pair, [4000] * 6), make_asks(pair, [300, 500])
    before = pair.decode.metrics()

    async def prefilling() -> bool:
        return pair.prefill.metrics().total("vllm:num_requests_running") > 0

    async with Client(pair.decode.url) as decode:
        leaving = [asyncio.create_task(decode.ask_streaming(ask)) for ask in gone]
        await until_async("a prefill runs", prefilling, within=60, interval=0.02)
        assert not any(task.done() for task in leaving)
        staying = asyncio.create_task(decode.ask_all(stayed, at_once=2))
        for task in leaving:
            task.cancel()
        for task in leaving:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        answers = await staying
    assert pair.decode.metrics().since(before).total(REMOTE) < len(gone) + len(stayed)
    pair.wait_settled()
    assert_equal(await local_answers(pair, stayed), answers)
    await assert_still_remote(pair)


async def assert_still_remote(pair: Pair) -> None:
    (ask,) = make_asks(pair, [640])
    before = pair.decode.metrics().total(REMOTE)
    async with Client(pair.decode.url) as decode:
        after = await decode.ask(ask)
    (local,) = await local_answers(pair, [ask])
    assert difference("after", local, after).worst <= 1e-4
    assert pair.decode.metrics().total(REMOTE) == before + 1
