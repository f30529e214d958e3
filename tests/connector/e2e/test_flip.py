"""The comparison that proves exactness fails when one byte of the pushed KV is wrong."""

import pytest

from tests.engines.client import Ask, Client, Reply
from tests.engines.compare import TOLERANCE, difference
from tests.engines.fleet import Pair
from tests.engines.flips import Flip, FlipOrder

pytestmark = pytest.mark.engine

PROMPT = tuple(100 + 7 * position % 1900 for position in range(300))
LAYERS = 8
WHOLE_BLOCKS = 18
FLOATS = 4096  # of a block in one layer: 4 heads, 16 tokens, K and V of 32 each


def flip_in(layer: int) -> Flip:
    """From the first block in the first layer to the last in the last, in K and V of every head."""
    return Flip(layer, block=layer * (WHOLE_BLOCKS - 1) // (LAYERS - 1), number=layer * 1231 % FLOATS)


@pytest.mark.parametrize("flip", [pytest.param(flip_in(layer), id=f"layer {layer}") for layer in range(LAYERS)])
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
