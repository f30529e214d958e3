"""Real vLLM engines on loopback for tests: started, asked, paused, killed and always cleaned up.

Nothing here knows pytest; the fixtures are in tests/connector/e2e/conftest.py. The driver runs in the repository's own
environment, the engines in `.venv-engine` (see env.py), so neither holds what only the other needs.
"""
