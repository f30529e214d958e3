"""What must be torn down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.connector.component.rig import Rig


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Closes, in reverse order, what is passed through it."""
    opened: list[Any] = []

    def keep(thing: Any) -> Any:
        opened.append(thing)
        return thing

    yield keep
    for thing in reversed(opened):
        thing.close()


@pytest.fixture
def make_rig(closing: Callable[[Any], Any]) -> Callable[..., Rig]:
    """Builds rigs and closes them."""
    return lambda *args, **kwargs: closing(Rig(*args, **kwargs))


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A rig whose waits no test reaches."""
    return make_rig()
