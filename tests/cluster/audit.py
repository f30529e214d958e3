"""The apiserver's audit log: the only witness of what was refused to whom, and of writes that changed nothing."""

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
    def _log(self) -> Path:
        return self.folder / "audit.log"

    def flags(self) -> tuple[str, ...]:
        policy = self.folder / "policy.yaml"
        policy.write_text(yaml.safe_dump(_POLICY))
        return (f"--audit-policy-file={policy}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking")

    def writes(self, namespace: str) -> list[dict[str, Any]]:
        """All writes to a namespace so far, Leases aside, by whomever."""
        return [entry for entry in self._entries() if _is_write(entry, namespace)]

    def requests(self, user: str) -> list[str]:
        """What a user has asked so far, as "verb resource.group → status"."""
        return [_told(entry) for entry in self._entries() if entry["user"].get("username") == user]

    def refused(self, user: str) -> list[str]:
        return [told for told in self.requests(user) if told.endswith("→ 403")]

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def _is_write(entry: dict[str, Any], namespace: str) -> bool:
    target = entry.get("objectRef") or {}
    return target.get("namespace") == namespace and target.get("resource") != "leases" and entry["verb"] not in _READS


def _told(entry: dict[str, Any]) -> str:
    target = entry.get("objectRef")
    what = entry["requestURI"]
    if target is not None:
        parts = [target.get("resource", ""), target.get("subresource", "")]
        what = "/".join(part for part in parts if part)
        if target.get("apiGroup"):
            what += f".{target['apiGroup']}"
    return f"{entry['verb']} {what} → {entry['responseStatus']['code']}"
