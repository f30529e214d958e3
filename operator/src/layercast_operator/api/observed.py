"""What the operator has seen of one resource and its children: the input of every pure decision.

Small and immutable on purpose: thousands of these stay in memory. No field may hold more of an object
than a decision needs.
"""

from dataclasses import dataclass, field
from typing import Any

from layercast_operator.api.spec import Role

Manifest = dict[str, Any]
Key = tuple[str, str]  # namespace, name of a DisaggregatedLLM


@dataclass(frozen=True)
class Resource:
    """A DisaggregatedLLM as last seen."""

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool
    spec: dict[str, Any]
    status: dict[str, Any]

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True)
class Workload:
    """One Deployment's state. `settled`: its status is about its current spec."""

    role: Role
    revision: str
    replicas: int
    ready: int
    available: int
    settled: bool
    deadline_exceeded: str = ""  # message of the Deployment, if its pods did not come up in time
    not_created: str = ""  # message of the Deployment, if its pods can't even be created

    def is_available(self) -> bool:
        return self.settled and self.available >= self.replicas


@dataclass(frozen=True)
class RevisionRecord:
    """The pods of one revision, as rendered when it was first wanted."""

    revision: str
    spec_hash: str
    pods: dict[str, Manifest]  # role → pod template


@dataclass(frozen=True)
class Observed:
    """The children of one resource."""

    workloads: tuple[Workload, ...] = ()
    records: tuple[RevisionRecord, ...] = ()
    serving_revision: str | None = None
    revisions: frozenset[str] = field(default_factory=frozenset)

    def workload(self, role: Role, revision: str) -> Workload | None:
        found = (w for w in self.workloads if w.role is role and w.revision == revision)
        return next(found, None)

    def is_available(self, revision: str) -> bool:
        both = [self.workload(role, revision) for role in Role]
        return all(workload is not None and workload.is_available() for workload in both)
