"""A connector for tests only: flips one byte of a pushed block on decode, after its arrival was proven.

Without an order (flips.py) it is the real one, so that the same two engines serve exact and corrupted runs. Loaded by
vLLM through `kv_connector_module_path`, so nothing here may import what engines don't have.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from layercast_connector.connector import LayercastConnector

from tests.engines.flips import Flip, FlipOrder

FLOAT_BYTES = 4
EXPONENT_BYTE = 3  # the highest one, little-endian


class CorruptingConnector(LayercastConnector):
    """Exact until told otherwise."""

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        super().register_kv_caches(kv_caches)
        order = FlipOrder.from_environment()
        if order is not None:
            _corrupt_arrivals(self, list(kv_caches.values()), order)


def _corrupt_arrivals(connector: Any, caches: Sequence[Any], order: FlipOrder) -> None:
    worker = connector._decode_worker
    if worker is None:
        return  # a prefill engine
    arrived = worker._on_arrived

    def on_arrived(req_id: str, block_ids: Any) -> None:
        wanted = order.read()
        if wanted is not None:
            flip(caches, block_ids, wanted)
            order.done()
        arrived(req_id, block_ids)

    worker._on_arrived = on_arrived


def flip(caches: Sequence[Any], block_ids: Any, wanted: Flip) -> None:
    """Turns every bit of the one byte that holds most of a float's exponent."""
    block = caches[wanted.layer][int(np.asarray(block_ids)[wanted.block])]
    block.view(-1).view(torch.uint8)[wanted.number * FLOAT_BYTES + EXPONENT_BYTE] ^= 0xFF
