"""Which pod gets a prompt, and which requests stay here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layercast_connector.decode.choose import PodLoad, choose, prefix_key
from layercast_connector.decode.eligibility import CHECKS, Candidate, describe, local_reason
from layercast_connector.decode.pods import PodTable
from layercast_connector.protocol import messages as m
from layercast_connector.settings import PodAddress

from tests.connector.unit.builders import Clock

PODS = st.lists(
    st.builds(PodLoad, st.text("abcdef.-:0123456789", min_size=1, max_size=9), st.integers(0, 10_000)),
    min_size=1,
    unique_by=lambda pod: pod.name,
)


@settings(deadline=None)
@given(PODS, st.binary(), st.integers(1, 5000))
def test_some_pod_is_always_chosen_and_the_same_one_each_time(pods: list[PodLoad], key: bytes, tokens: int) -> None:
    chosen = choose(pods, key, tokens)
    assert chosen in {pod.name for pod in pods}
    assert choose(list(reversed(pods)), key, tokens) == chosen


@settings(deadline=None)
@given(PODS, st.binary(), st.integers(1, 5000))
def test_a_pod_above_its_share_is_not_chosen(pods: list[PodLoad], key: bytes, tokens: int) -> None:
    chosen = next(pod for pod in pods if pod.name == choose(pods, key, tokens))
    share = 1.5 * (sum(pod.outstanding_tokens for pod in pods) + tokens) / len(pods)
    least = min(pod.outstanding_tokens for pod in pods)
    assert chosen.outstanding_tokens + tokens <= share or chosen.outstanding_tokens == least


def test_no_pod_is_none() -> None:
    assert choose([], b"", 1) is None


def test_idle_pods_share_prefixes_evenly_and_losing_one_moves_only_its_own() -> None:
    pods = [PodLoad(f"10.0.0.{number}:8000", 0) for number in range(4)]
    keys = [prefix_key([number]) for number in range(400)]
    before = {key: choose(pods, key, 100) for key in keys}
    after = {key: choose(pods[1:], key, 100) for key in keys}
    counts = [sum(name == pod.name for name in before.values()) for pod in pods]
    assert min(counts) > 60
    assert all(after[key] == name for key, name in before.items() if name != pods[0].name)


def test_prompts_with_the_same_beginning_have_the_same_key() -> None:
    assert prefix_key([*range(256), 1]) == prefix_key([*range(256), 2])
    assert prefix_key([1, 2]) != prefix_key([12])


REMOTE = Candidate(
    uncached_tokens=1000,
    min_remote_tokens=64,
    attempted=False,
    resumed=False,
    prompt_logprobs=False,
    multimodal=False,
    prompt_embeds=False,
    lora=False,
    pooling=False,
    no_pod=False,
)
FORBIDDEN: dict[str, dict[str, Any]] = {
    "short": {"uncached_tokens": 63},
    "failed_once": {"attempted": True},
    "resumed": {"resumed": True},
    "prompt_logprobs": {"prompt_logprobs": True},
    "prompt_embeds": {"prompt_embeds": True},
    "multimodal": {"multimodal": True},
    "lora": {"lora": True},
    "pooling": {"pooling": True},
    "no_prefill_pod": {"no_pod": True},
}


def test_a_long_plain_prompt_goes_to_a_prefill_pod() -> None:
    assert local_reason(REMOTE) is None
    assert local_reason(replace(REMOTE, uncached_tokens=64)) is None


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_stays_here(reason: str) -> None:
    assert local_reason(replace(REMOTE, **FORBIDDEN[reason])) == reason


def test_every_check_has_a_row_and_the_first_that_fails_is_told() -> None:
    assert list(FORBIDDEN) == [name for name, _ in CHECKS]
    everything = {key: value for change in FORBIDDEN.values() for key, value in change.items()}
    assert local_reason(replace(REMOTE, **everything)) == "short"


def vllm_request(**changes: Any) -> SimpleNamespace:
    values: dict[str, Any] = {
        "num_prompt_tokens": 1016,
        "num_tokens": 1016,
        "num_preemptions": 0,
        "prompt_token_ids": list(range(1016)),
        "sampling_params": SimpleNamespace(prompt_logprobs=None),
        "mm_features": [],
        "lora_request": None,
    }
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"sampling_params": SimpleNamespace(prompt_logprobs=0)}, "prompt_logprobs", id="prompt logprobs"),
        pytest.param({"sampling_params": None}, "pooling", id="pooling"),
        pytest.param({"num_tokens": 1017}, "resumed", id="has output already"),
        pytest.param({"num_preemptions": 1}, "resumed", id="was preempted"),
        pytest.param({"prompt_token_ids": None}, "prompt_embeds", id="no token ids"),
        pytest.param({"prompt_embeds": object()}, "prompt_embeds", id="embeddings"),
        pytest.param({"mm_features": [object()]}, "multimodal", id="an image"),
        pytest.param({"lora_request": object()}, "lora", id="an adapter"),
    ],
)
def test_vllms_request_is_read_as_it_is(changes: dict[str, Any], reason: str | None) -> None:
    candidate = describe(vllm_request(**changes), 16, min_remote_tokens=64, attempted=False, no_pod=False)
    assert candidate.uncached_tokens == 1000
    assert local_reason(candidate) == reason


class Table(PodTable):
    """A table of two pods that have answered."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__("key", self.clock)
        self.set_addresses([PodAddress("a", 8000, 1), PodAddress("b", 8000, 1)])
        self.says("a:8000")
        self.says("b:8000")

    def says(self, name: str, **changes: Any) -> None:
        values = {"version": m.PROTOCOL_VERSION, "incarnation": "i", "compatibility": "key"}
        values |= {"outstanding_tokens": 0, "draining": False}
        self.answered(name, m.Status(**(values | changes)))

    def taken(self) -> str | None:
        chosen = self.take([1] * 100)
        return chosen and chosen[0]


@pytest.mark.parametrize(
    "changes",
    [{"draining": True}, {"compatibility": "other"}, {"version": m.PROTOCOL_VERSION + 1}],
    ids=["draining", "another model", "another version"],
)
def test_a_pod_is_skipped(changes: dict[str, Any]) -> None:
    table = Table()
    table.says("a:8000", **changes)
    assert {table.taken() for _ in range(4)} == {"b:8000"}
    table.says("b:8000", **changes)
    assert table.taken() is None and not table.any_ready()


def test_what_was_just_sent_counts_until_it_is_given_back() -> None:
    table = Table()
    first, second = table.taken(), table.taken()
    assert {first, second} == {"a:8000", "b:8000"}
    assert first is not None
    table.give_back(first, 100)
    assert table.taken() == first


def test_a_silent_pod_is_skipped_until_it_answers() -> None:
    table = Table()
    table.clock.advance(3.6)
    assert not table.any_ready()
    table.says("b:8000")
    assert table.taken() == "b:8000"


def test_an_unreachable_pod_is_skipped_until_it_answers() -> None:
    table = Table()
    table.give_back("a:8000", 0, unreachable=True)
    assert {table.taken() for _ in range(3)} == {"b:8000"}


def test_a_pod_that_stays_keeps_what_is_known_of_it() -> None:
    table = Table()
    table.set_addresses([PodAddress("b", 8000, 1), PodAddress("c", 8000, 1)])
    assert [name for name, _ in table.addresses()] == ["b:8000", "c:8000"]
    assert table.taken() == "b:8000"


def test_news_of_a_pod_that_is_gone_are_nothing() -> None:
    table = Table()
    table.set_addresses([])
    table.says("a:8000")
    table.give_back("a:8000", 100)
    assert table.take([1]) is None
