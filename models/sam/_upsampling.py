"""Turn a model's logits into masks of an image: interpolated, cut at zero, never kept as floats in full size.

Interpolating twice, to the square that the encoder sees and from there to the image, is one linear map for the rows and
one for the columns: each pixel of the image is a weighted mean of at most 3 x 3 logits. So the parts of
an image with only negative logits around them are background without computation; the rest is computed in strips.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

STABILITY_OFFSET = 1.0
_AT_ONCE = {"cpu": 1 << 20}  # floats of a strip: on the CPU those should stay in its cache
_AT_ONCE_ELSEWHERE = 1 << 27

Steps = tuple[tuple[int, int], ...]
"""Interpolations along an axis, one after the other: to how many cells, and how many of these go on."""


class _Axis(NamedTuple):
    """Interpolation along an axis of n logits to N pixels: pixel i is ``weights[i] @ logits[first[i]:][:taps]``."""

    first: Tensor  # (N,) int64, never falling
    weights: Tensor  # (N, taps)

    @classmethod
    def of(cls, n: int, steps: Steps) -> _Axis:
        maps = torch.eye(n)
        for size, kept in steps:
            maps = functional.interpolate(maps[None], size, mode="linear", align_corners=False)[0, :, :kept]
        used = maps.T != 0
        first = used.int().argmax(dim=1)
        taps = int((n - used.flip(1).int().argmax(dim=1) - first).max())
        first = first.clamp(max=n - taps)
        return cls(first, maps.T.gather(1, first[:, None] + torch.arange(taps)))

    @property
    def taps(self) -> int:
        """How many logits a pixel is made of, at most."""
        return self.weights.shape[1]

    def reached(self, low: int, high: int) -> slice:
        """Return the pixels that some of the logits from ``low`` to ``high``, both included, enter."""
        ends = torch.tensor([low - self.taps + 1, high + 1])
        start, stop = torch.searchsorted(self.first, ends).tolist()
        return slice(start, stop)

    def matrix(self, n: int) -> Tensor:
        """Return (n, N), the map as a matrix for a product with rows of logits."""
        places = self.first[:, None] + torch.arange(self.taps, device=self.first.device)
        return self.weights.new_zeros((len(self.first), n)).scatter_(1, places, self.weights).T.contiguous()


class _Plan(NamedTuple):
    rows: _Axis
    columns: _Axis
    matrix: Tensor  # of the columns


@lru_cache(maxsize=16)
def _plan(logits_hw: tuple[int, int], of_rows: Steps, of_columns: Steps, device: torch.device) -> _Plan:
    """Return both maps for one size of images: most images of a data set share one."""
    of_both = (_Axis.of(n, steps) for n, steps in zip(logits_hw, (of_rows, of_columns), strict=True))
    rows, columns = (_Axis(axis.first.to(device), axis.weights.to(device)) for axis in of_both)
    return _Plan(rows, columns, columns.matrix(logits_hw[1]))


def masks_and_stability(
    logits: Tensor, rows: Steps, columns: Steps, *, stability: bool
) -> tuple[Tensor, Tensor | None]:
    """Return (K, H, W) bool, where (K, h, w) float32 logits interpolate to more than 0; and how stable that is.

    The stability is (K,) float32, the IoU of the interpolated logits cut at 1 and at -1, as the official
    ``calculate_stability_score`` has it; but 0 for a candidate that is below -1 everywhere, where that gives NaN.

    Args:
        logits: of one image.
        rows: how the h rows become the H of the image.
        columns: the same for its columns.
        stability: whether it is asked for; None comes back where it is not.
    """
    plan = _plan((logits.shape[1], logits.shape[2]), rows, columns, logits.device)
    size = (len(logits), len(plan.rows.first), len(plan.columns.first))
    masks = torch.zeros(size, dtype=torch.bool, device=logits.device)
    counts = torch.zeros((2, len(logits)), dtype=torch.float64, device=logits.device)
    # On the CPU each candidate by itself: one may be small. Elsewhere asking for its extent would make the device wait.
    together = 1 if logits.device.type == "cpu" else len(logits)
    for some in (slice(i, i + together) for i in range(0, len(logits), together)):
        found, inner_outer = masks[some], counts[:, some]
        for where, maps in _strips(logits[some], plan, -STABILITY_OFFSET if stability else 0.0):
            torch.gt(maps, 0, out=found[where])
            if stability:
                cuts = (STABILITY_OFFSET, -STABILITY_OFFSET)
                inner_outer += torch.stack([(maps > cut).sum(dim=(1, 2)) for cut in cuts])
    return masks, (counts[0] / counts[1].clamp(min=1)).float() if stability else None


def _strips(logits: Tensor, plan: _Plan, lowest: float) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Yield interpolated (K, r, c) maps and their places, for all pixels that may be above ``lowest``."""
    rows, columns = _reached(logits, plan, lowest)
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    wide = logits @ plan.matrix[:, columns]
    height = max(1, _AT_ONCE.get(logits.device.type, _AT_ONCE_ELSEWHERE) // (len(logits) * wide.shape[2]))
    for start in range(rows.start, rows.stop, height):
        part = slice(start, min(start + height, rows.stop))
        first, weights = plan.rows.first[part], plan.rows.weights[part].unbind(dim=1)
        maps = wide[:, first] * weights[0][:, None]
        for i, weight in enumerate(weights[1:], start=1):
            maps.addcmul_(wide[:, first + i], weight[:, None])
        yield (slice(None), part, columns), maps


def _reached(logits: Tensor, plan: _Plan, lowest: float) -> tuple[slice, slice]:
    """Return rows and columns of the image that logits above ``lowest`` enter; all of them where asking would wait."""
    if logits.device.type != "cpu":
        return slice(0, len(plan.rows.first)), slice(0, len(plan.columns.first))
    above = (logits > lowest).any(dim=0)
    rows, columns = above.any(dim=1).nonzero(), above.any(dim=0).nonzero()
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return plan.rows.reached(int(rows[0]), int(rows[-1])), plan.columns.reached(int(columns[0]), int(columns[-1]))
