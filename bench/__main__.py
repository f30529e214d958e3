"""Runs every benchmark: `make bench`. Figures go to out/bench/NAME.json."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("hotpath", "overlap")


def main() -> int:
    codes = []
    for name in BENCHMARKS:
        print(f"=== {name}", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", "--json", f"out/bench/{name}.json", *sys.argv[1:]]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
