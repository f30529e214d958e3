"""The registered memory of a KV cache: which tensors, where each block lies, and whether two sides fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from layercast_connector.plan.runs import RegionPair
from layercast_connector.protocol.messages import Region


class LayoutError(ValueError):
    """Two sides' memory can't be paired, or a tensor has a layout we don't know; the message says which."""


@dataclass(frozen=True)
class LayerTensors:
    """The tensors of one layer, as vLLM registered them: one, or a tuple (K and V; MLA's two; sparse's three)."""

    name: str
    tensors: tuple[Any, ...]


def order_layers(kv_caches: dict[str, Any]) -> list[LayerTensors]:
    """The layers in the order in which the model runs them, which is vLLM's registration order."""
    return [
        LayerTensors(name, tuple(cache) if isinstance(cache, tuple | list) else (cache,))
        for name, cache in kv_caches.items()
    ]


def regions_of(layers: Iterable[LayerTensors], num_blocks: int) -> list[Region]:
    """Describes every tensor of every layer as regions.

    A tensor has its blocks along its first dimension, or along its second behind one of size 2 (K and V in one
    tensor), which makes two regions.

    Args:
        layers: in model order.
        num_blocks: KV blocks in the cache; tells the two layouts apart.

    Raises:
        LayoutError: neither dimension counts the blocks, or a block's bytes aren't contiguous.
    """
    return [
        region
        for layer in layers
        for part, (tensor, base) in enumerate(_block_major(layer, num_blocks))
        for region in [_region(layer.name, part, tensor, base, num_blocks)]
    ]


def _block_major(layer: LayerTensors, num_blocks: int) -> list[tuple[Any, int]]:
    """The layer's tensors as views whose first dimension is the block, with their addresses."""
    views: list[Any] = []
    for tensor in layer.tensors:
        if tensor.shape[0] == num_blocks:
            views.append(tensor)
        elif tensor.dim() > 1 and tensor.shape[0] == 2 and tensor.shape[1] == num_blocks:
            views.extend((tensor[0], tensor[1]))
        else:
            raise LayoutError(
                f"layer {layer.name}: no dimension of {tuple(tensor.shape)} counts the {num_blocks} KV blocks; "
                "this attention backend's KV layout isn't supported"
            )
    return [(view, view.data_ptr()) for view in views]


def _region(layer: str, part: int, view: Any, base: int, num_blocks: int) -> Region:
    block = view[0]
    if not block.is_contiguous():
        raise LayoutError(f"layer {layer}: the bytes of a KV block aren't contiguous (strides {tuple(view.stride())})")
    size = view.element_size()
    return Region(layer, part, base, view.stride(0) * size, block.numel() * size, num_blocks)


def pair_regions(local: Sequence[Region], remote: Sequence[Region]) -> list[RegionPair]:
    """Pairs each local region with the same layer and part on the other side.

    Raises:
        LayoutError: a region is missing on either side, or block sizes differ.
    """
    mine = [(region.layer, region.part) for region in local]
    theirs = [(region.layer, region.part) for region in remote]
    if mine != theirs:
        missing = sorted(set(mine) ^ set(theirs))[:3]
        raise LayoutError(f"the two sides have different KV regions, for instance {missing}: do they run one model?")
    return [_pair(source, target) for source, target in zip(local, remote, strict=True)]


def _pair(source: Region, target: Region) -> RegionPair:
    if source.block_bytes != target.block_bytes:
        raise LayoutError(
            f"layer {source.layer}: a KV block has {source.block_bytes} bytes on prefill and {target.block_bytes} on "
            "decode; give both the same --block-size, --kv-cache-dtype and tensor parallel size"
        )
    return RegionPair(source.base, source.stride, target.base, target.stride, source.block_bytes)
