"""Decode's scheduler half, in vLLM's order of calls, with a dispatcher that only notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from layercast_connector import metrics
from layercast_connector.decode.dispatch import Answer, Call
from layercast_connector.decode.pods import PodTable
from layercast_connector.decode.scheduler import DecodeScheduler, EngineFacts
from layercast_connector.decode.steps import DecodeStep, Receive, Stop
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec, open_text
from layercast_connector.settings import PodAddress, parse_settings

from tests.connector.unit.builders import a_report

CODEC = Codec[Any](b"secret", m.PrefillRequest)
WORKER = m.Worker("tcp://10.0.0.9:36001", "decode-1")


@dataclass
class NotingDispatcher:
    calls: list[Call] = field(default_factory=list)
    cuts: list[bytes] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    closed: bool = False

    def send(self, call: Call) -> None:
        self.calls.append(call)

    def cut(self, attempt: bytes) -> None:
        self.cuts.append(attempt)

    def take_answers(self) -> list[Answer]:
        answers, self.answers = self.answers, []
        return answers

    def close(self) -> None:
        self.closed = True


def a_request(req_id: str = "r", tokens: int = 100, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "request_id": req_id,
        "num_prompt_tokens": tokens,
        "num_tokens": tokens,
        "num_preemptions": 0,
        "prompt_token_ids": list(range(tokens)),
        "sampling_params": SimpleNamespace(prompt_logprobs=None),
        "mm_features": [],
        "lora_request": None,
        "cache_salt": None,
    }
    return SimpleNamespace(**(values | changes))


class Desk:
    def __init__(self, host: str = "10.0.0.1", **settings: Any) -> None:
        extra = {"role": "decode", "prefill_pods": {"dns": "pods"}, "min_remote_tokens": 32} | settings
        self.host = host
        self.table = PodTable("key")
        self.find_pod()
        self.dispatcher = NotingDispatcher()
        self.tally = metrics.Tally()
        self.scheduler = DecodeScheduler(
            parse_settings(extra), EngineFacts("tiny", 16, "key"), self.table, self.dispatcher, CODEC, self.tally  # type: ignore[arg-type]
        )  # fmt: skip
        self.scheduler.workers = [WORKER]

    def find_pod(self) -> None:
        """The pod is known and has answered."""
        self.table.set_addresses([PodAddress(self.host, 8000, 36000)])
        self.table.answered(f"{self.host}:8000", m.Status(m.PROTOCOL_VERSION, "pod", "key", 0, False))

    def sent(self, request: Any, computed: int = 0, blocks: range = range(50, 60)) -> bytes:
        """Takes the request through both calls of a scheduling pass; returns its attempt."""
        external = self.scheduler.matched_tokens(request, computed)
        self.scheduler.allocated(request, list(blocks), external)
        return self.dispatcher.calls[-1].attempt

    def message(self) -> m.PrefillRequest:
        text = self.dispatcher.calls[-1].body["kv_transfer_params"]["layercast"]
        opened: m.PrefillRequest = open_text(CODEC, text)
        return opened

    def counts(self, metric: metrics.Metric) -> dict[str, int]:
        prefix = f"{metric.name}|"
        return {key.removeprefix(prefix): n for key, n in self.tally.take().items() if key.startswith(prefix)}


def test_a_long_prompt_is_sent_with_the_blocks_that_decode_lacks_counted_from_the_front() -> None:
    desk = Desk()
    request = a_request(tokens=100)
    assert desk.scheduler.matched_tokens(request, 32) == 68
    attempt = desk.sent(request, computed=32)
    assert desk.scheduler.build_step() == DecodeStep(receive=[Receive("r", attempt, [52, 53, 54, 55, 56])])
    assert desk.message() == m.PrefillRequest(attempt, "key", [WORKER], 2, 5, 100)
    assert desk.scheduler.build_step() == DecodeStep()


def test_the_call_is_a_completion_of_one_token() -> None:
    desk = Desk(host="fd00::1")
    desk.sent(a_request(tokens=40, cache_salt="pepper"))
    (call,) = desk.dispatcher.calls
    assert call.url == "http://[fd00::1]:8000/v1/completions"
    wanted = {"model": "tiny", "prompt": list(range(40)), "max_tokens": 1, "temperature": 0, "cache_salt": "pepper"}
    assert {key: value for key, value in call.body.items() if key != "kv_transfer_params"} == wanted


def test_asking_what_is_matched_changes_nothing() -> None:
    desk = Desk()
    request = a_request()
    assert [desk.scheduler.matched_tokens(request, 0) for _ in range(5)] == [100] * 5
    assert not desk.dispatcher.calls and desk.scheduler.build_step() == DecodeStep()


def test_a_short_prompt_stays_and_is_counted_once_it_is_scheduled() -> None:
    desk = Desk()
    request = a_request(tokens=31)
    for _ in range(3):
        assert desk.scheduler.matched_tokens(request, 0) == 0
    desk.scheduler.allocated(request, [1, 2], 0)
    desk.scheduler.allocated(request, [1, 2], 0)
    assert desk.counts(metrics.LOCAL) == {"short": 1}
    assert not desk.dispatcher.calls


def test_a_pod_that_is_lost_between_the_two_calls_fails_the_attempt_on_the_spot() -> None:
    desk = Desk()
    request = a_request()
    external = desk.scheduler.matched_tokens(request, 0)
    desk.table.set_addresses([])
    desk.scheduler.allocated(request, list(range(10)), external)
    step = desk.scheduler.build_step()
    assert [stop.reason for stop in step.stop] == ["no_prefill_pod"]
    assert [receive.attempt for receive in step.receive] == [stop.attempt for stop in step.stop]


def test_an_outage_of_all_prefill_pods_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    caplog.set_level("INFO")
    desk.table.set_addresses([])
    for number in range(3):
        request = a_request(f"local-{number}")
        assert desk.scheduler.matched_tokens(request, 0) == 0
        desk.scheduler.allocated(request, [], 0)
    assert [record.message[:14] for record in caplog.records] == ["No prefill pod"]
    desk.find_pod()
    desk.sent(a_request("remote"))
    assert [record.message for record in caplog.records[1:]] == ["Prefill pods can be used again"]


@pytest.mark.parametrize(
    ("error", "step"),
    [
        pytest.param(None, lambda a: DecodeStep(answered=[a]), id="an answer"),
        pytest.param("http_503", lambda a: DecodeStep(stop=[Stop(a, "http_503", aborted=False)]), id="an error"),
    ],
)
def test_how_the_call_ended_reaches_the_worker(error: str | None, step: Any) -> None:
    desk = Desk()
    attempt = desk.sent(a_request())
    desk.scheduler.build_step()
    desk.dispatcher.answers = [Answer(attempt, error), Answer(b"unknown", "http_500")]
    assert desk.scheduler.build_step() == step(attempt)


def test_a_prompt_that_arrived_is_counted_and_told() -> None:
    desk = Desk(report_in_response=True)
    request = a_request()
    desk.sent(request)
    desk.scheduler.heard({"r"}, {"r": a_report(ok=True, layers=4, bytes_sent=99, exposed=0.002)}, {})
    assert desk.scheduler.finished(request) == {
        "layercast": {"remote": True, "pod": "10.0.0.1:8000", "layers": 4, "bytes": 99, "exposed_ms": 2.0}
    }
    assert desk.counts(metrics.REMOTE) == {"": 1}
    assert not desk.dispatcher.cuts and desk.scheduler.build_step().stop == []


def test_a_prompt_that_failed_is_counted_cut_and_prefilled_here_ever_after() -> None:
    desk = Desk(report_in_response=True)
    request = a_request()
    attempt = desk.sent(request)
    desk.scheduler.heard({"r"}, {}, {"r": "timeout:first_layer"})
    assert desk.dispatcher.cuts == [attempt]
    assert desk.scheduler.matched_tokens(request, 0) == 0
    desk.scheduler.allocated(request, [1], 0)
    counts = desk.tally.take()
    assert counts == {"layercast_failed_prefills|timeout:first_layer": 1, "layercast_local_prefills|failed_once": 1}
    assert desk.scheduler.finished(request) == {"layercast": {"remote": False, "pod": "10.0.0.1:8000"}}


def test_two_ranks_that_fail_in_different_steps_are_one_failure() -> None:
    desk = Desk()
    desk.sent(a_request())
    desk.scheduler.heard(set(), {}, {"r": "write_failed"})
    desk.scheduler.heard({"r"}, {}, {"r": "preempted"})
    assert desk.counts(metrics.FAILED) == {"write_failed": 1}


def test_one_rank_that_fails_stops_the_others_and_the_call() -> None:
    """The others would wait for bytes that nobody needs any more."""
    desk = Desk()
    attempt = desk.sent(a_request())
    desk.scheduler.build_step()
    desk.scheduler.heard(set(), {}, {"r": "write_failed"})
    assert desk.scheduler.build_step().stop == [Stop(attempt, "write_failed", aborted=False)]


def test_one_rank_that_failed_outweighs_another_that_arrived() -> None:
    desk = Desk()
    desk.sent(a_request())
    desk.scheduler.heard(set(), {}, {"r": "write_failed"})
    desk.scheduler.heard({"r"}, {"r": a_report(ok=True)}, {})
    assert desk.counts(metrics.REMOTE) == {}


def test_an_abort_under_way_stops_the_worker_and_the_call() -> None:
    desk = Desk()
    request = a_request()
    attempt = desk.sent(request)
    desk.scheduler.build_step()
    desk.scheduler.finished(request)
    assert desk.dispatcher.cuts == [attempt]
    assert desk.scheduler.build_step().stop == [Stop(attempt, "aborted", aborted=True)]
    desk.dispatcher.answers = [Answer(attempt, "cancelled")]
    assert desk.scheduler.build_step() == DecodeStep()
    desk.scheduler.heard({"r"}, {}, {"r": "aborted"})
    assert desk.tally.take() == {}


def test_an_abort_in_the_pass_that_allocated_comes_behind_the_registration() -> None:
    desk = Desk()
    request = a_request()
    attempt = desk.sent(request)
    desk.scheduler.finished(request)
    step = desk.scheduler.build_step()
    assert [r.attempt for r in step.receive] == [s.attempt for s in step.stop] == [attempt]


def test_a_request_id_that_is_used_again_gets_another_attempt() -> None:
    desk = Desk()
    request = a_request()
    first = desk.sent(request)
    desk.scheduler.finished(request)
    second = desk.sent(a_request())
    assert first != second
    desk.dispatcher.answers = [Answer(first, "http_500")]
    assert [stop.attempt for stop in desk.scheduler.build_step().stop] == [first], "only the abort of the first"


@pytest.mark.parametrize(("wanted", "told"), [(True, {"layercast": {"remote": False}}), (False, None)])
def test_a_local_prompt_says_so_where_that_is_wanted(wanted: bool, told: Any) -> None:
    desk = Desk(report_in_response=wanted)
    assert desk.scheduler.finished(a_request(tokens=3)) == told


def test_closing_closes_the_dispatcher() -> None:
    desk = Desk()
    desk.scheduler.close()
    assert desk.dispatcher.closed
