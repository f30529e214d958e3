"""One prefill and one decode engine for every test in this folder: they take half a minute to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.tiny_model import make_tiny_model
from tests.engines.env import ROOT
from tests.engines.fleet import ConnectorChoice, Pair, PairSpec
from tests.engines.flips import VARIABLE, FlipOrder

# How long a prefill engine that hangs is waited for; longer than the queue of any test takes.
TIMEOUTS = {"first_layer": 60.0}
LOGS = ROOT / "out" / "engines" / "e2e"


@pytest.fixture(scope="session")
def flip_order(tmp_path_factory: pytest.TempPathFactory) -> FlipOrder:
    return FlipOrder(tmp_path_factory.mktemp("flips") / "order.json")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(model)
    return model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, flip_order: FlipOrder) -> Iterator[Pair]:
    corrupting = ConnectorChoice(
        name="CorruptingConnector",
        module="tests.engines.corrupting",
        env={"PYTHONPATH": str(ROOT), VARIABLE: str(flip_order.path)},
    )
    folder = tmp_path_factory.mktemp("pair")
    spec = PairSpec(tiny_model, folder, LOGS, connector=corrupting, settings={"timeouts": TIMEOUTS})
    with Pair(spec) as started:
        started.wait_remote_ready()
        yield started


@pytest.fixture
def paused_prefill(pair: Pair) -> Iterator[Pair]:
    """The prefill engine hangs; it goes on, and is used again, when the test is over."""
    pair.prefill.pause()
    try:
        yield pair
    finally:
        pair.prefill.resume()
        pair.wait_remote_ready()


@pytest.fixture
def dead_prefill(pair: Pair) -> Pair:
    """The prefill engine is killed, for good: tests that use this run last."""
    pair.prefill.kill()
    return pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "dead_prefill" in getattr(item, "fixturenames", ()))
