"""Rollout plans: clients never move to pods that are not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.api.observed import Observed
from layercast_operator.api.spec import Role
from layercast_operator.rollout.planner import Plan, plan

from tests.operator.builders import observed, pair, workload

UP, DOWN = {"available": 1}, {"available": 0}
PLANS: dict[str, tuple[Observed, Plan]] = {
    "the first revision is served from the start": (observed(), Plan("new", "new", ("new",))),
    "clients stay while the new revision has no pods": (
        observed(*pair("old"), serving="old"),
        Plan("new", "old", ("new", "old")),
    ),
    "clients stay while only one new role is there": (
        observed(*pair("old"), workload(Role.DECODE, "new"), workload(Role.PREFILL, "new", **DOWN), serving="old"),
        Plan("new", "old", ("new", "old")),
    ),
    "clients move when both new roles are there, and the old revision goes": (
        observed(*pair("old"), *pair("new"), serving="old"),
        Plan("new", "new", ("new",)),
    ),
    "a revision that never served goes at once": (
        observed(*pair("old"), *pair("between", **DOWN), serving="old"),
        Plan("new", "old", ("new", "old")),
    ),
    "a served revision whose pods are gone holds nobody back": (observed(serving="old"), Plan("new", "new", ("new",))),
    "a served revision that has lost its pods for a while stays": (
        observed(*pair("new", **DOWN), serving="new"),
        Plan("new", "new", ("new",)),
    ),
    "back to the old revision is at once": (
        observed(*pair("new", **UP), *pair("broken", **DOWN), serving="new"),
        Plan("new", "new", ("new",)),
    ),
}


@pytest.mark.parametrize(("seen", "expected"), PLANS.values(), ids=PLANS.keys())
def test_plan(seen: Observed, expected: Plan) -> None:
    assert plan("new", seen) == expected


REVISIONS = st.sampled_from(["a", "b", "c"])
WORKLOADS = st.lists(
    st.builds(workload, st.sampled_from(Role), REVISIONS, replicas=st.just(1), available=st.integers(0, 1)),
    max_size=6,
    unique_by=lambda each: (each.role, each.revision),
)


@given(wanted=REVISIONS, workloads=WORKLOADS, serving=st.none() | REVISIONS)
def test_clients_move_only_to_pods_that_are_there_or_when_there_is_nothing_to_lose(
    wanted: str, workloads: list, serving: str | None
) -> None:
    seen = observed(*workloads, serving=serving)
    step = plan(wanted, seen)
    assert wanted in step.keep and step.serving in step.keep
    if step.serving != serving and serving in seen.revisions:
        assert seen.is_available(wanted)
