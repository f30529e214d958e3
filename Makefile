# The front doors. Each is a phase or two of what CI runs; `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -q --durations=8 --durations-min=5

.PHONY: help env check lint types unit test test-apiserver test-engine test-cluster test-long demo demo-down images bench clean lock

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: ## make .venv from the lock
	@scripts/bootstrap

lint: env ## ruff, import contracts
	@.venv/bin/ruff check . && .venv/bin/ruff format --check -q .
	@.venv/bin/lint-imports --no-cache | tail -n 3

types: env ## mypy --strict on our packages and the test drivers
	@.venv/bin/mypy operator/src/layercast_operator connector/src/layercast_connector
	@.venv/bin/mypy tests/ports.py tests/cluster tests/engines tests/chart tests/e2e images examples bench

unit: env ## tests that start nothing but threads
	@$(PYTEST) -m "not apiserver and not engine and not cluster and not long"

check: lint types unit ## lint, types and unit tests: under two minutes

test-apiserver: env ## operator and chart against a real kube-apiserver
	@$(PY) -m tests.cluster tools
	@$(PYTEST) -m "apiserver and not long"

test-engine: env ## connector on real vLLM (CPU) and real Mooncake
	@$(PY) -m tests.engines.env
	@$(PYTEST) -m "engine and not long"

test-cluster: env ## two-node Kubernetes: images, chart, resource, prompts
	@$(PY) -m tests.cluster tools
	@$(PY) -m tests.cluster debs
	@$(PYTEST) -m "cluster and not long"

test: ## everything once
	@scripts/phases check test-apiserver test-engine test-cluster

test-long: env ## every step of every fault, soaks
	@$(PYTEST) -m long

demo: env ## the main job: cluster, images, chart, a resource, answered prompts
	@$(PY) -m examples.demo

demo-down: env ## remove what the demo started
	@$(PY) -m tests.cluster down

images: env ## OCI archives of all images that can be built here
	@$(PY) -m images.build

bench: env ## all benchmarks, JSON into out/bench
	@$(PY) -m tests.engines.env
	@$(PY) -m bench

lock: env ## renew requirements/dev.txt (images/README.md has the images' locks)
	@.venv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --upgrade -q \
	    operator/pyproject.toml connector/pyproject.toml requirements/dev.in -o requirements/dev.txt

clean: ## caches of the tools in this checkout
	@rm -rf .venv .venv-engine .mypy_cache .ruff_cache .pytest_cache .hypothesis out
