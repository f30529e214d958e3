"""A prefill worker against a decode worker that says what the test wants: grants, leases, handshakes, losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from layercast_connector.protocol import messages as m

from tests.connector.component.fakes import FakeDecode
from tests.connector.component.rig import HASTY, Attempt, Prefill, Rig, until
from tests.connector.component.wire import KvMemory

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(waits=msgspec.structs.replace(HASTY, done=20.0))


@pytest.fixture
def decode(rig: Rig, closing: Callable[[Any], Any]) -> FakeDecode:
    """A stand-in beside the rig's own decode worker, with the same layout."""
    fake: FakeDecode = closing(FakeDecode(rig.wire, KvMemory(4, 64)))
    return fake


def pushed(prefill: Prefill, rig: Rig, decode: FakeDecode) -> Attempt:
    attempt = rig.attempt(place=decode.place)
    prefill.push(attempt)
    return attempt


def test_a_grant_for_the_last_of_many_asks_is_a_fresh_one(rig: Rig, decode: FakeDecode) -> None:
    """Decode was busy for longer than a lease and answers the last ask only: its lease counts from that ask."""
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    asks = [decode.hears(m.Ask) for _ in range(10)]
    decode.grants(attempt, asks[-1])
    until(lambda: len(rig.wire.writes) == 4, "all layers are written under the grant")
    assert decode.hears(m.Report).ok
