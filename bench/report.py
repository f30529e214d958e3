"""The form in which every benchmark writes its figures."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One number; `goal` is in words, "" where there is none."""

    value: float
    unit: str
    goal: str = ""


def arguments(description: str) -> argparse.Namespace:
    """`--quick` and `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under 45 seconds")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    return parser.parse_args()


def write(path: Path, figures: dict[str, Figure]) -> None:
    """Writes and prints the figures, with the machine and the versions that they were measured on."""
    report = {
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("layercast-connector", "numpy", "msgspec", "pyzmq")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.2f} {figure.unit}" + (f"  (goal {figure.goal})" if figure.goal else ""))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
