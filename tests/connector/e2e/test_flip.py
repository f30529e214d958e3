"""The comparison that proves exactness fails when one byte of the pushed KV is wrong."""

import pytest

from tests.engines.client import Ask, Client, Reply
from tests.engines.compare import TOLERANCE, difference
from tests.engines.fleet import Pair
from tests.engines.flips import Flip, FlipOrder

pytestmark = pytest.mark.engine

PROMPT = tuple(100 + 7 * position % 1900 for position in range(300))
FLIPS = [
    pytest.param(Flip(layer=0, block=0, number=0), id="first layer, first block"),
    pytest.param(Flip(layer=3, block=9, number=777), id="middle layer, middle block"),
    pytest.param(Flip(layer=7, block=17, number=4095), id="last layer, last whole block"),
]


@pytest.mark.parametrize("flip", FLIPS)
async def test_one_flipped_exponent_byte_is_noticed(pair: Pair, flip_order: FlipOrder, flip: Flip) -> None:
    async with Client(pair.prefill.url) as prefill:
        local = await prefill.ask(Ask(PROMPT, pair.salt()))
    exact = await _over_decode(pair)
    flip_order.give(flip)
    corrupted = await _over_decode(pair)
    healed = await _over_decode(pair)
    assert not flip_order.pending()
    assert difference("exact", local, exact).worst <= TOLERANCE
    assert difference("corrupted", local, corrupted).worst > TOLERANCE
    assert difference("healed", local, healed).worst <= TOLERANCE


async def _over_decode(pair: Pair) -> Reply:
    async with Client(pair.decode.url) as decode:
        return await decode.ask(Ask(PROMPT, pair.salt()))
