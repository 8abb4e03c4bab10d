"""Maps of features as arrays that a file can hold, and back: the same values in the same order in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def packed(maps: tuple[Tensor, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return ``map_0``, ``map_1``, ... and for each ``order_0``, ...: its axes in the order of memory, outermost first.

    The order is kept since kernels are chosen by it, and round differently: scores shall be the same to the last bit.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for i, of_level in enumerate(maps):
        order = _order(of_level.stride())
        arrays[f"map_{i}"] = of_level.permute(order).contiguous().cpu().numpy()
        arrays[f"order_{i}"] = np.array(order, dtype=np.int64)
    return arrays


def _order(strides: Sequence[int]) -> list[int]:
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def unpacked(arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> tuple[Tensor, ...]:
    """Return the maps of `packed`, in memory that torch has allocated and aligned (see ``sam_common.load_strict``)."""
    levels = range(len(arrays) // 2)
    return tuple(_unpacked(arrays[f"map_{i}"], arrays[f"order_{i}"], device) for i in levels)


def _unpacked(array: npt.NDArray[Any], order: npt.NDArray[Any], device: torch.device) -> Tensor:
    return torch.tensor(array, device=device).permute(np.argsort(order).tolist())
