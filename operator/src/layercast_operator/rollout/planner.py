"""Which revisions live, and which one clients reach: a pure step of a rollout.

Today's plan is the simplest that never takes a working endpoint away:

1. The wanted revision is created beside the one that serves, both roles at full size.
2. Until both of its roles are available, clients stay with the serving revision, however long that takes.
3. Then clients move, and every other revision is removed.

A revision that was wanted in between and never came to serve is removed at once. The price is room for two
full sets of pods. Steps that keep the ratio of the roles and a budget of accelerators will replace `plan`,
not its callers: it must stay a function of what is seen, with no memory of its own.
"""

from dataclasses import dataclass

from layercast_operator.api.observed import Observed


@dataclass(frozen=True)
class Plan:
    wanted: str
    serving: str
    keep: tuple[str, ...]  # revisions whose children exist, the wanted one first


def plan(wanted: str, observed: Observed) -> Plan:
    serving = observed.serving_revision
    if serving is None or serving not in observed.revisions or observed.is_available(wanted):
        serving = wanted
    keep = (wanted,) if serving == wanted else (wanted, serving)
    return Plan(wanted, serving, keep)
