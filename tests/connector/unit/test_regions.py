"""Layouts of vLLM's KV tensors, and whether two sides fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from layercast_connector.plan.regions import LayoutError, order_layers, pair_regions, regions_of
from layercast_connector.protocol.messages import Region

BLOCKS = 6


@dataclass
class Tensor:
    """torch's face over a numpy array."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def dim(self) -> int:
        return self.array.ndim

    def stride(self, dim: int | None = None) -> Any:
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        return bool(self.array.flags.c_contiguous)

    def element_size(self) -> int:
        return self.array.itemsize

    def numel(self) -> int:
        return self.array.size

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def __getitem__(self, index: int) -> Tensor:
        return Tensor(self.array[index])


def tensor(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float16))


def regions(caches: Any) -> list[Region]:
    return regions_of(order_layers({"layer": caches}), BLOCKS)


def test_one_tensor_a_layer_is_one_region() -> None:
    kv = tensor(BLOCKS, 2, 16, 8)
    assert regions(kv) == [Region("layer", 0, kv.data_ptr(), 512, 512, BLOCKS)]


def test_keys_and_values_in_one_tensor_are_two_regions() -> None:
    kv = tensor(2, BLOCKS, 16, 8)
    base = kv.data_ptr()
    assert regions(kv) == [
        Region("layer", 0, base, 256, 256, BLOCKS),
        Region("layer", 1, base + BLOCKS * 256, 256, 256, BLOCKS),
    ]


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_has_a_region_for_each_of_its_tensors_also_of_other_widths(kind: type) -> None:
    widths = (512, 64, 128)
    caches = kind(tensor(BLOCKS, 16, width) for width in widths)
    assert [(r.part, r.block_bytes) for r in regions(caches)] == [(i, 16 * w * 2) for i, w in enumerate(widths)]


def test_blocks_with_a_gap_between_them_keep_their_stride() -> None:
    padded = Tensor(np.zeros((BLOCKS, 3, 16), np.float16)[:, :2])
    assert [(r.stride, r.block_bytes) for r in regions(padded)] == [(96, 64)]


def test_layers_keep_the_order_in_which_vllm_registered_them() -> None:
    caches = {name: tensor(BLOCKS, 4) for name in ("b", "a", "c")}
    assert [region.layer for region in regions_of(order_layers(caches), BLOCKS)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        pytest.param(tensor(4, 16), r"layer layer: no dimension of \(4, 16\) counts the 6", id="blocks nowhere"),
        pytest.param(tensor(3, BLOCKS, 4), "isn't supported", id="three tensors in one"),
        pytest.param(
            Tensor(np.zeros((BLOCKS, 4, 8), np.float16).transpose(0, 2, 1)), "aren't contiguous", id="a scattered block"
        ),
    ],
)
def test_a_layout_that_isnt_known_is_refused_by_name(cache: Tensor, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        regions(cache)


def test_regions_pair_layer_by_layer() -> None:
    mine, theirs = regions(tensor(2, BLOCKS, 8)), regions(tensor(2, BLOCKS, 8))
    pairs = pair_regions(mine, theirs)
    assert [(p.src_base, p.dst_base, p.packed) for p in pairs] == [
        (a.base, b.base, True) for a, b in zip(mine, theirs, strict=True)
    ]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        pytest.param(tensor(BLOCKS, 8), r"\('layer', 1\).*one model", id="a part is missing"),
        pytest.param(tensor(2, BLOCKS, 16), "16 bytes on prefill and 32 on decode.*--block-size", id="larger blocks"),
    ],
)
def test_sides_that_dont_fit_are_refused_with_what_to_change(theirs: Tensor, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        pair_regions(regions(tensor(2, BLOCKS, 8)), regions(theirs))
