"""Benchmarks: `python -m bench.NAME [--quick] --json FILE`. Each measures its own sides in one run."""
