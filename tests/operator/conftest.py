"""Options of the operator's tests."""

import pytest
from hypothesis import settings

# How long an example takes says nothing on a shared machine.
settings.register_profile("layercast", deadline=None)
settings.load_profile("layercast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write golden files anew instead of comparing")
