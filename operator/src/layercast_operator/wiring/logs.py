"""Logs as one JSON object per line on stderr, ours and the libraries', the libraries' only from warnings on."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_QUIET = ("kopf", "asyncio", "aiohttp", "kubernetes")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# kopf puts a whole object into its records.
_LEFT_OUT = frozenset({"k8s_ref", "k8s_skip", "settings"})


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD | _LEFT_OUT}
        if record.exc_info:
            extra["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry | extra, default=str)


def set_up_logs(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
