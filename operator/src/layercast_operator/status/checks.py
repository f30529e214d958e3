"""The questions that decide each condition, in the order in which they are asked.

A check looks at the whole `Situation` and either answers (status, reason, message) or passes. The first
answer is the condition: the lists at the end of this file read as the definition of the words. Checks
must be pure and must not know of one another.
"""

from collections.abc import Callable
from dataclasses import dataclass

from layercast_operator.api.conditions import ConditionType, Reason
from layercast_operator.api.observed import Observed, Workload
from layercast_operator.api.spec import Role, Spec
from layercast_operator.rollout.planner import Plan


@dataclass(frozen=True)
class Problem:
    """Why the spec could not be turned into children."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Situation:
    """All that the conditions depend on. Without `spec` and `plan` there is a problem."""

    observed: Observed
    spec: Spec | None = None
    plan: Plan | None = None
    problem: Problem | None = None

    @property
    def serving(self) -> str | None:
        return self.plan.serving if self.plan else self.observed.serving_revision

    def wanted(self, role: Role) -> Workload | None:
        return self.observed.workload(role, self.plan.wanted) if self.plan else None

    def wanted_available(self, role: Role) -> bool:
        workload = self.wanted(role)
        return workload is not None and workload.is_available()


@dataclass(frozen=True)
class Answer:
    status: bool
    reason: Reason
    message: str


Check = Callable[[Situation], Answer | None]


def serving_pods(situation: Situation) -> Answer | None:
    if situation.serving is None:
        return None
    decode = situation.observed.workload(Role.DECODE, situation.serving)
    if decode is None or decode.available == 0:
        return None
    return Answer(True, Reason.SERVING, f"{decode.available} decode pods answer")


def no_serving_pods(_: Situation) -> Answer:
    return Answer(False, Reason.WAITING_FOR_DECODE, "No decode pod is available")


def problem(status: bool) -> Check:
    def check(situation: Situation) -> Answer | None:
        found = situation.problem
        return Answer(status, found.reason, found.message) if found else None

    return check


def pods_not_created(status: bool) -> Check:
    def check(situation: Situation) -> Answer | None:
        return _first(situation, status, Reason.PODS_NOT_CREATED, lambda workload: workload.not_created)

    return check


def deadline_exceeded(status: bool) -> Check:
    def check(situation: Situation) -> Answer | None:
        return _first(situation, status, Reason.DEADLINE_EXCEEDED, lambda workload: workload.deadline_exceeded)

    return check


def _first(situation: Situation, status: bool, reason: Reason, message: Callable[[Workload], str]) -> Answer | None:
    workloads = filter(None, map(situation.wanted, Role))
    messages = ((workload.role.value, message(workload)) for workload in workloads)
    return next((Answer(status, reason, f"{role}: {text}") for role, text in messages if text), None)


def waiting_for(role: Role, reason: Reason) -> Check:
    def check(situation: Situation) -> Answer | None:
        if situation.wanted_available(role):
            return None
        workload = situation.wanted(role)
        counts = f"{workload.available} of {workload.replicas}" if workload else "none"
        return Answer(False, reason, f"{counts} of the {role.value} pods of the current revision are available")

    return check


def not_moved(situation: Situation) -> Answer | None:
    """Everything is available, but clients still reach the revision before."""
    if situation.plan is None or situation.plan.serving == situation.plan.wanted:
        return None
    return Answer(False, Reason.ROLLING_OUT, f"Clients still reach revision {situation.plan.serving}")


def prefill_at_zero(situation: Situation) -> Answer | None:
    if situation.spec is None or situation.spec.prefill.replicas > 0:
        return None
    return Answer(True, Reason.PREFILL_AT_ZERO, "Decode pods prefill by themselves: prefill.replicas is 0")


def ready(_: Situation) -> Answer:
    return Answer(True, Reason.SERVING, "The current revision serves")


def rolling_out(situation: Situation) -> Answer | None:
    if all(situation.wanted_available(role) for role in Role):
        return None
    wanted = situation.plan.wanted if situation.plan else "unknown"
    return Answer(True, Reason.ROLLING_OUT, f"Waiting for the pods of revision {wanted}")


def complete(_: Situation) -> Answer:
    return Answer(False, Reason.COMPLETE, "The current revision is fully there")


def as_expected(_: Situation) -> Answer:
    return Answer(False, Reason.AS_EXPECTED, "Nothing needs attention")


CHECKS: dict[ConditionType, tuple[Check, ...]] = {
    ConditionType.AVAILABLE: (serving_pods, no_serving_pods),
    ConditionType.READY: (
        problem(False),
        pods_not_created(False),
        deadline_exceeded(False),
        waiting_for(Role.DECODE, Reason.WAITING_FOR_DECODE),
        waiting_for(Role.PREFILL, Reason.WAITING_FOR_PREFILL),
        not_moved,
        prefill_at_zero,
        ready,
    ),
    ConditionType.PROGRESSING: (
        problem(False),
        pods_not_created(False),
        deadline_exceeded(False),
        rolling_out,
        complete,
    ),
    ConditionType.DEGRADED: (problem(True), pods_not_created(True), deadline_exceeded(True), as_expected),
}


def answer(condition: ConditionType, situation: Situation) -> Answer:
    answers = (check(situation) for check in CHECKS[condition])
    found = next((each for each in answers if each is not None), None)
    if found is None:
        raise AssertionError(f"the checks of {condition.value} do not end in an answer")
    return found
