"""Prefill's scheduler half: from vLLM's `SchedulerOutput` to the blocks of each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from layercast_connector import metrics
from layercast_connector.control import DropLog
from layercast_connector.prefill.scheduler import Load, PrefillScheduler
from layercast_connector.prefill.steps import Chunk, PrefillStep
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec, seal_text

from tests.connector.unit.builders import ATTEMPT, prefill_request

BLOCK = 16
CODEC = Codec[m.PrefillRequest](b"secret", m.PrefillRequest)


def a_request(req_id: str = "r", tokens: int = 64, params: Any = "signed", **push: Any) -> Any:
    if params == "signed":
        blocks = -(-tokens // BLOCK) - push.get("first_block", 0)
        push = {"num_blocks": blocks, "prompt_tokens": tokens} | push
        params = {"layercast": seal_text(CODEC, prefill_request(**push))}
    return SimpleNamespace(request_id=req_id, num_prompt_tokens=tokens, kv_transfer_params=params)


@dataclass
class Output:
    """A `SchedulerOutput`, one scheduled request at a time."""

    scheduled_new_reqs: list[Any] = field(default_factory=list)
    num_scheduled_tokens: dict[str, int] = field(default_factory=dict)
    preempted_req_ids: set[str] | None = None
    scheduled_cached_reqs: Any = field(
        default_factory=lambda: SimpleNamespace(
            req_ids=[], new_block_ids=[], num_computed_tokens=[], resumed_req_ids=set()
        )
    )

    def new(self, req_id: str, blocks: list[int], tokens: int, computed: int = 0) -> Output:
        new = SimpleNamespace(req_id=req_id, block_ids=(blocks,), num_computed_tokens=computed)
        self.scheduled_new_reqs.append(new)
        self.num_scheduled_tokens[req_id] = tokens
        return self

    def cached(
        self, req_id: str, blocks: list[int] | None, tokens: int, computed: int, resumed: bool = False
    ) -> Output:
        cached = self.scheduled_cached_reqs
        cached.req_ids.append(req_id)
        cached.new_block_ids.append(None if blocks is None else (blocks,))
        cached.num_computed_tokens.append(computed)
        self.num_scheduled_tokens[req_id] = tokens
        if resumed:
            cached.resumed_req_ids.add(req_id)
        return self

    def preempted(self, *req_ids: str) -> Output:
        self.preempted_req_ids = set(req_ids)
        return self


class Desk:
    def __init__(self) -> None:
        self.tally = metrics.Tally()
        self.load = Load("key", "pod")
        self.scheduler = PrefillScheduler("key", BLOCK, CODEC, self.load, DropLog(self.tally), tensor_parallel=1)

    def added(self, request: Any) -> Desk:
        self.scheduler.added(request)
        return self

    def step(self, output: Output) -> PrefillStep:
        return self.scheduler.build_step(output)

    def outstanding(self) -> int:
        ((_, status),) = self.load.on_message(b"decode", m.StatusRequest())
        return status.outstanding_tokens


def test_a_prompt_in_one_step_is_one_chunk() -> None:
    step = Desk().added(a_request(tokens=50)).step(Output().new("r", [7, 8, 9, 10], 50))
    assert [new.req_id for new in step.new] == ["r"]
    assert step.chunks == [Chunk(ATTEMPT, 0, [7, 8, 9, 10], True)]


def test_chunked_prefill_pushes_each_block_in_the_step_that_completes_it() -> None:
    desk = Desk().added(a_request(tokens=70))
    steps = [
        desk.step(Output().new("r", [1, 2], 24)),
        desk.step(Output().cached("r", None, 4, 24)),
        desk.step(Output().cached("r", [3, 4], 34, 28)),
        desk.step(Output().cached("r", [5], 8, 62)),
    ]
    assert [[(c.start, c.block_ids, c.last) for c in step.chunks] for step in steps] == [
        [(0, [1], False)],
        [],
        [(1, [2, 3], False)],
        [(3, [4, 5], True)],
    ]
    assert [len(step.new) for step in steps] == [1, 0, 0, 0]


def test_what_prefill_has_cached_is_pushed_with_the_first_chunk() -> None:
    step = Desk().added(a_request(tokens=64)).step(Output().new("r", [1, 2, 3, 4], 16, computed=32))
    assert step.chunks == [Chunk(ATTEMPT, 0, [1, 2, 3], False)]


def test_what_decode_has_cached_is_not_pushed() -> None:
    desk = Desk().added(a_request(tokens=64, first_block=2))
    assert desk.step(Output().new("r", [1, 2, 3, 4], 40)).chunks == []
    assert desk.step(Output().cached("r", None, 24, 40)).chunks == [Chunk(ATTEMPT, 2, [3, 4], True)]


def test_a_decode_step_after_the_prompt_pushes_nothing() -> None:
    desk = Desk().added(a_request(tokens=16))
    assert len(desk.step(Output().new("r", [1], 16)).chunks) == 1
    assert desk.step(Output().cached("r", [2], 1, 16)).chunks == []


def test_a_preempted_and_resumed_prompt_goes_on_where_it_was_with_its_new_blocks() -> None:
    desk = Desk().added(a_request(tokens=64))
    desk.step(Output().new("r", [1, 2], 32))
    assert desk.step(Output().preempted("r")).preempted == [ATTEMPT]
    assert desk.step(Output().cached("r", [11, 12], 32, 0, resumed=True)).chunks == []
    chunks = desk.step(Output().cached("r", [13, 14], 32, 32)).chunks
    assert chunks == [Chunk(ATTEMPT, 2, [13, 14], True)]


def test_a_request_without_a_push_is_never_preempted_or_pushed() -> None:
    desk = Desk().added(a_request("plain", params=None)).added(a_request("r"))
    step = desk.step(Output().new("plain", [1], 16).preempted("plain"))
    assert (step.new, step.chunks, step.preempted) == ([], [], [])


def test_an_abort_before_the_first_chunk_needs_no_worker() -> None:
    desk = Desk().added(request := a_request())
    assert desk.scheduler.finished(request) is False
    assert desk.step(Output()).aborted == []


def test_an_abort_in_mid_push_stops_it_and_holds_the_blocks() -> None:
    desk = Desk().added(request := a_request())
    desk.step(Output().new("r", [1, 2], 32))
    assert desk.scheduler.finished(request) is True
    assert desk.step(Output()).aborted == [ATTEMPT]
    assert desk.step(Output()).aborted == []


def test_a_finished_push_holds_the_blocks_and_stops_nothing() -> None:
    desk = Desk().added(request := a_request(tokens=16))
    desk.step(Output().new("r", [1], 16))
    assert desk.scheduler.finished(request) is True
    assert desk.step(Output()).aborted == []


def test_the_load_is_what_was_added_and_is_not_over() -> None:
    desk = Desk().added(first := a_request("a", tokens=100, params=None)).added(a_request("b", tokens=20))
    assert desk.outstanding() == 120
    desk.scheduler.finished(first)
    assert desk.outstanding() == 20


@pytest.mark.parametrize(
    ("params", "dropped"),
    [
        pytest.param(None, {}, id="no parameters"),
        pytest.param("text", {}, id="parameters that aren't a dict"),
        pytest.param({"do_remote_prefill": True}, {}, id="another connector's parameters"),
        pytest.param({"layercast": 7}, {"malformed": 1}, id="no text"),
        pytest.param({"layercast": "ä"}, {"malformed": 1}, id="no base64"),
        pytest.param({"layercast": "AAAA"}, {"unauthenticated": 1}, id="no signature"),
        pytest.param(
            {"layercast": seal_text(Codec[Any](b"guessed", Any), prefill_request())},
            {"unauthenticated": 1},
            id="another secret's signature",
        ),
        pytest.param(
            {"layercast": seal_text(CODEC, m.StatusRequest())},  # type: ignore[arg-type]
            {"malformed": 1},
            id="another kind of message",
        ),
        pytest.param({"layercast": seal_text(CODEC, prefill_request(workers=[]))}, {"malformed": 1}, id="no workers"),
    ],
)
def test_forged_or_foreign_parameters_make_an_ordinary_request(params: Any, dropped: dict[str, int]) -> None:
    desk = Desk().added(request := a_request(params=params))
    assert desk.step(Output().new("r", [1, 2, 3, 4], 64)) == PrefillStep()
    assert desk.scheduler.finished(request) is False
    assert desk.tally.take() == {f"layercast_dropped_messages|{key}": n for key, n in dropped.items()}


@pytest.mark.parametrize(
    "push",
    [
        pytest.param({"compatibility": "another"}, id="another model"),
        pytest.param({"prompt_tokens": 63}, id="another prompt"),
        pytest.param({"num_blocks": 5}, id="blocks behind the prompt's end"),
        pytest.param({"num_blocks": 3}, id="too few blocks"),
        pytest.param({"first_block": 4, "num_blocks": 1}, id="a first block behind the prompt"),
        pytest.param({"workers": [m.Worker("tcp://a:1", "i")] * 2}, id="another number of ranks"),
    ],
)
def test_a_push_that_doesnt_fit_is_not_begun(push: dict[str, Any]) -> None:
    desk = Desk().added(a_request(**push))
    assert desk.step(Output().new("r", [1, 2, 3, 4], 64)) == PrefillStep()


def test_an_attempt_is_pushed_once_however_often_it_comes() -> None:
    """Proxies repeat requests: a second push of one attempt would take the first one's place, blocks and all."""
    desk = Desk().added(first := a_request("first")).added(second := a_request("second"))
    step = desk.step(Output().new("first", [1, 2, 3, 4], 64).new("second", [5, 6, 7, 8], 64))
    assert [new.req_id for new in step.new] == ["first"]
    assert desk.scheduler.finished(first) is True
    assert desk.scheduler.finished(second) is False
    third = a_request("third")
    assert desk.added(third).step(Output().new("third", [1, 2, 3, 4], 64)) == PrefillStep()
