"""kubelet changes settings of the whole machine; they are remembered before it starts, and put back after."""

import json
from contextlib import suppress
from pathlib import Path

from tests.cluster import cgroups, files
from tests.cluster.layout import INSTANCE, INSTANCES, state_folder

CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
SETTINGS = Path("/proc/sys")


def _file(instance: int = INSTANCE) -> Path:
    return state_folder(instance) / "sysctls.json"


def remember() -> None:
    """Only what the first kubelet of the machine found: later ones find what that one has set."""
    known = next((_file(instance) for instance in range(INSTANCES) if _file(instance).exists()), None)
    if known is None:
        found = {name: (SETTINGS / name).read_text() for name in CHANGED_BY_KUBELET if (SETTINGS / name).exists()}
        files.write(_file(), json.dumps(found))
    else:
        files.write(_file(), known.read_text())


def restore() -> None:
    if cgroups.instances():
        return
    with suppress(FileNotFoundError):
        for name, value in json.loads(_file().read_text()).items():
            (SETTINGS / name).write_text(value)
