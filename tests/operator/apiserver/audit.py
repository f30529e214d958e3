"""The apiserver's audit log: the only witness of writes that changed nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_READS = {"get", "list", "watch"}
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class Audit:
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "audit.log"

    def flags(self) -> tuple[str, ...]:
        policy = self.folder / "policy.yaml"
        policy.write_text(yaml.safe_dump(_POLICY))
        return (f"--audit-policy-file={policy}", f"--audit-log-path={self.log}", "--audit-log-mode=blocking")

    def writes(self, namespace: str) -> list[dict[str, Any]]:
        """All writes to a namespace so far, Leases aside, by whomever."""
        entries = map(json.loads, self.log.read_text().splitlines())
        return [entry for entry in entries if _is_write(entry, namespace)]


def _is_write(entry: dict[str, Any], namespace: str) -> bool:
    target = entry.get("objectRef") or {}
    return target.get("namespace") == namespace and target.get("resource") != "leases" and entry["verb"] not in _READS
