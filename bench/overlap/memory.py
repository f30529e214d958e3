"""Host memory shaped as a KV cache, described as the connector's regions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from layercast_connector.protocol.messages import Region

from bench.overlap.scenario import Shape

Blocks = npt.NDArray[np.int64]
Layers = list[npt.NDArray[np.uint8]]


def allocate(shape: Shape) -> tuple[Layers, list[Region]]:
    """One array of shape (blocks, block_bytes) per layer, and the regions over them."""
    layers = [np.zeros((shape.blocks, shape.block_bytes), np.uint8) for _ in range(shape.layers)]
    regions = [
        Region(f"layer.{index}", 0, layer.ctypes.data, shape.block_bytes, shape.block_bytes, shape.blocks)
        for index, layer in enumerate(layers)
    ]
    return layers, regions
