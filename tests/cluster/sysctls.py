"""kubelet changes settings of the whole machine; they are remembered before it starts, and put back after."""

import json
from contextlib import suppress
from pathlib import Path

from tests.cluster.layout import state_folder

CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
SETTINGS = Path("/proc/sys")


def _file() -> Path:
    return state_folder() / "sysctls.json"


def remember() -> None:
    """Only the first time: later it would remember what kubelet has set."""
    if not _file().exists():
        found = {name: (SETTINGS / name).read_text() for name in CHANGED_BY_KUBELET if (SETTINGS / name).exists()}
        _file().write_text(json.dumps(found))


def restore() -> None:
    with suppress(FileNotFoundError):
        for name, value in json.loads(_file().read_text()).items():
            (SETTINGS / name).write_text(value)
