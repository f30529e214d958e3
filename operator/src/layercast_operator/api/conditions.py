"""Condition types and the closed set of reasons (docs/operator.md lists them for users).

Users alert on reasons, so they are API: never build one from text, never rename one within a version.
"""

from enum import Enum


class ConditionType(Enum):
    AVAILABLE = "Available"
    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"


class Reason(Enum):
    # All is well
    SERVING = "Serving"
    PREFILL_AT_ZERO = "PrefillAtZero"
    AS_EXPECTED = "AsExpected"
    COMPLETE = "Complete"
    # Waiting
    WAITING_FOR_DECODE = "WaitingForDecode"
    WAITING_FOR_PREFILL = "WaitingForPrefill"
    ROLLING_OUT = "RollingOut"
    # Wrong, and somebody has to act
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"
    APPLY_REJECTED = "ApplyRejected"
    PODS_NOT_CREATED = "PodsNotCreated"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
