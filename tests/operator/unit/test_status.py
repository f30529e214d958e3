"""The four conditions, as a table of situations."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from layercast_operator.api.conditions import Reason
from layercast_operator.api.spec import Role, parse_spec
from layercast_operator.rollout.planner import Plan
from layercast_operator.status.checks import Problem, Situation
from layercast_operator.status.compute import compute_status

from tests.operator.builders import observed, pair, resource, with_status, workload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEADY = Plan("new", "new", ("new",))
ROLLING = Plan("new", "old", ("new", "old"))
SPEC = parse_spec(resource().spec)
BAD = Problem(Reason.INVALID_SPEC, "change this")

SITUATIONS: dict[str, tuple[Situation, dict[str, str]]] = {
    "nothing is there yet": (
        Situation(observed(), SPEC, STEADY),
        {"Available": "False WaitingForDecode", "Ready": "False WaitingForDecode", "Progressing": "True RollingOut"},
    ),
    "decode is there, prefill is not": (
        Situation(observed(workload(Role.DECODE, "new"), serving="new"), SPEC, STEADY),
        {"Available": "True Serving", "Ready": "False WaitingForPrefill", "Progressing": "True RollingOut"},
    ),
    "both are there": (
        Situation(observed(*pair("new"), serving="new"), SPEC, STEADY),
        {"Available": "True Serving", "Ready": "True Serving", "Progressing": "False Complete"},
    ),
    "some decode pods are missing": (
        Situation(
            observed(
                workload(Role.PREFILL, "new"), workload(Role.DECODE, "new", replicas=3, available=2), serving="new"
            ),
            SPEC,
            STEADY,
        ),
        {"Available": "True Serving", "Ready": "False WaitingForDecode", "Progressing": "True RollingOut"},
    ),
    "prefill is at zero on purpose": (
        Situation(
            observed(
                workload(Role.PREFILL, "new", replicas=0, available=0), workload(Role.DECODE, "new"), serving="new"
            ),
            parse_spec(resource(prefill__replicas=0).spec),
            STEADY,
        ),
        {"Ready": "True PrefillAtZero", "Degraded": "False AsExpected"},
    ),
    "a new revision comes up while the old one serves": (
        Situation(observed(*pair("old"), *pair("new", available=0), serving="old"), SPEC, ROLLING),
        {"Available": "True Serving", "Ready": "False WaitingForDecode", "Progressing": "True RollingOut"},
    ),
    "a new revision is there, but clients have not moved": (
        Situation(observed(*pair("old"), *pair("new"), serving="old"), SPEC, ROLLING),
        {"Ready": "False RollingOut"},
    ),
    "the spec is bad and old pods serve": (
        Situation(observed(*pair("old"), serving="old"), problem=BAD),
        {
            "Available": "True Serving",
            "Ready": "False InvalidSpec",
            "Progressing": "False InvalidSpec",
            "Degraded": "True InvalidSpec",
        },
    ),
    "pods do not come up in time": (
        Situation(
            observed(*pair("old"), workload(Role.DECODE, "new", available=0, deadline_exceeded="too late")),
            SPEC,
            ROLLING,
        ),
        {"Available": "True Serving", "Ready": "False DeadlineExceeded", "Degraded": "True DeadlineExceeded"},
    ),
    "pods can't be created": (
        Situation(observed(workload(Role.DECODE, "new", available=0, not_created="quota")), SPEC, STEADY),
        {"Ready": "False PodsNotCreated", "Progressing": "False PodsNotCreated", "Degraded": "True PodsNotCreated"},
    ),
}


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: f"{each['status']} {each['reason']}" for each in status["conditions"]}


@pytest.mark.parametrize(("situation", "expected"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_conditions(situation: Situation, expected: dict[str, str]) -> None:
    found = conditions(compute_status(resource(), situation, NOW))
    assert {kind: found[kind] for kind in expected} == expected
    assert set(found) == {"Available", "Ready", "Progressing", "Degraded"}


READY = SITUATIONS["both are there"][0]
WAITING = SITUATIONS["nothing is there yet"][0]


def test_an_equal_situation_gives_an_equal_status_whatever_the_time() -> None:
    first = compute_status(resource(), READY, NOW)
    later = compute_status(with_status(resource(), first), READY, NOW + timedelta(days=1))
    assert later == first


def test_the_time_of_a_condition_changes_with_its_status_only() -> None:
    before = compute_status(resource(), WAITING, NOW)
    after = compute_status(with_status(resource(), before), READY, NOW + timedelta(seconds=9))
    times = {each["type"]: each["lastTransitionTime"] for each in after["conditions"]}
    assert times["Ready"] == "2026-01-02T03:04:14Z"
    assert times["Degraded"] == "2026-01-02T03:04:05Z"


def test_every_condition_is_about_the_generation_that_was_seen() -> None:
    status = compute_status(replace(resource(), generation=7), READY, NOW)
    assert status["observedGeneration"] == 7
    assert {each["observedGeneration"] for each in status["conditions"]} == {7}


def test_counts_and_endpoint() -> None:
    status = compute_status(resource(), READY, NOW)
    assert status["prefill"] == {"replicas": 1, "readyReplicas": 1, "summary": "1/1"}
    assert status["endpoint"] == "http://tiny.default.svc:8000"
    assert (status["currentRevision"], status["servingRevision"]) == ("new", "new")


def test_a_bad_spec_keeps_the_counts_and_the_endpoint_of_what_serves() -> None:
    before = {"endpoint": "http://tiny.default.svc:8000"}
    bad = Situation(observed(*pair("old"), serving="old"), problem=BAD)
    status = compute_status(with_status(resource(), before), bad, NOW)
    assert status["decode"]["summary"] == "1/1"
    assert status["endpoint"] == before["endpoint"]
    assert status["servingRevision"] == "old"
