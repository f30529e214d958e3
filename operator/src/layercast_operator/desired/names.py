"""Names of the children: fixed, readable, and within the 63 characters of a DNS label for any resource.

A resource's name may have 253 characters, dots and a leading digit; a Service's may not. A name that fits
is used as it is, any other is shortened and told apart by a hash. Never `generateName`: after a crash the
operator must find what it made.
"""

import hashlib
import re
from dataclasses import dataclass

from layercast_operator.api.kinds import (
    LABEL_MANAGED_BY,
    LABEL_RESOURCE,
    LABEL_REVISION,
    LABEL_ROLE,
    OPERATOR_NAME,
)
from layercast_operator.api.spec import Role

REVISION_LENGTH = 10
_BASE_LENGTH = 40  # leaves room for "-prefill-" and a revision
_HASH_LENGTH = 8
_FITS = re.compile(rf"[a-z]([-a-z0-9]{{0,{_BASE_LENGTH - 2}}}[a-z0-9])?")


def base_name(resource: str) -> str:
    if _FITS.fullmatch(resource):
        return resource
    digest = hashlib.sha256(resource.encode()).hexdigest()[:_HASH_LENGTH]
    readable = re.sub(r"[^a-z0-9]+", "-", resource.lower())
    if not readable[:1].isalpha():
        readable = f"m-{readable}"
    return f"{readable[: _BASE_LENGTH - _HASH_LENGTH - 1].strip('-')}-{digest}"


@dataclass(frozen=True)
class Names:
    """The children's names for one resource."""

    base: str

    @classmethod
    def of(cls, resource: str) -> "Names":
        return cls(base_name(resource))

    @property
    def service(self) -> str:
        return self.base

    @property
    def account(self) -> str:
        return self.base

    @property
    def secret(self) -> str:
        return f"{self.base}-connector"

    def record(self, revision: str) -> str:
        return f"{self.base}-{revision}"

    def workload(self, role: Role, revision: str) -> str:
        return f"{self.base}-{role.value}-{revision}"

    def prefill_service(self, revision: str) -> str:
        return self.workload(Role.PREFILL, revision)

    def labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": "layercast",
            LABEL_MANAGED_BY: OPERATOR_NAME,
            LABEL_RESOURCE: self.base,
        }

    def selector(self, role: Role, revision: str) -> dict[str, str]:
        """What tells the pods of one role and revision from all others of the namespace."""
        return {LABEL_RESOURCE: self.base, LABEL_ROLE: role.value, LABEL_REVISION: revision}
