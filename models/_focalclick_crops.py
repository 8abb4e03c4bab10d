"""Where FocalClick looks: the part of the image around the object, and the part around what a click changed.

Both follow the authors' ClickSEG (predictor ``FocalClick`` of its evaluation), their rounding included. Masks are
(H, W) bool, pixels are (row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from promptseg.segmenter import Mask

FEW = 10  # pixels; a smaller mask is taken for noise, and the whole image for its extent
NARROW = 3  # a change this many times smaller than the object is looked at in a window round the click
WINDOW = 0.2  # of the object's longer side: what that window holds to each side of the click

Pixel = tuple[int, int]


class Crop(NamedTuple):
    """Rows ``top`` to before ``bottom``, columns ``left`` to before ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, size_hw: tuple[int, int]) -> Crop:
        """Return the crop that is the image."""
        return cls(0, size_hw[0], 0, size_hw[1])

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width; not positive where nothing is left."""
        return self.bottom - self.top, self.right - self.left

    def within(self, other: Crop) -> Crop:
        """Return what both have in common."""
        return Crop(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )


def object_crop(seen: Mask, foreground: Sequence[Pixel], *, expansion: float, least: int) -> Crop | None:
    """Return the crop around an object and its foreground clicks, or None if nothing of the object is seen.

    Args:
        seen: the object as far as it is known.
        foreground: all foreground clicks.
        expansion: sides of the crop as a multiple of those of the tight box.
        least: shortest side in pixels (where the image has room for it).
    """
    if not seen.any():
        return None
    marked = seen.copy()
    for row, column in foreground:
        marked[row, column] = True
    (top, bottom), (left, right) = (_grown_span(marked.any(axis=axis), expansion, least) for axis in (1, 0))
    return Crop(top, bottom, left, right)


def _grown_span(occupied: Mask, expansion: float, least: int) -> tuple[int, int]:
    """Return (first, one past the last) along one axis."""
    first, last = np.flatnonzero(occupied)[[0, -1]].tolist()
    centre, length = 0.5 * (first + last), max(expansion * (last - first + 1), least)
    grown_first, grown_last = round(centre - 0.5 * length), round(centre + 0.5 * length)
    return max(grown_first, 0), min(grown_last, len(occupied) - 1) + 1


def focus_crop(mask: Mask, previous: Mask, click: Pixel, *, expansion: float) -> Crop:
    """Return the crop around what the last click changed; it may be empty at the image's edge.

    Args:
        mask: the object as the network finds it now.
        previous: as it was before the click.
        click: the last one, foreground or background.
        expansion: sides of the crop as a multiple of those of the tight box.
    """
    rows, columns = _extent(mask)
    if previous.any():
        changed_rows, changed_columns = _extent(component_at(mask ^ previous, click))
        if _is_narrow(changed_rows, rows) or _is_narrow(changed_columns, columns):
            reach = WINDOW * max(rows[1] - rows[0], columns[1] - columns[0])
            rows, columns = ((n - reach, n + reach) for n in click)
        else:
            rows, columns = changed_rows, changed_columns
    (top, bottom), (left, right) = (_expanded(span, expansion) for span in (rows, columns))
    return Crop(top, bottom, left, right).within(Crop.whole((mask.shape[0], mask.shape[1])))


def component_at(mask: Mask, pixel: Pixel) -> Mask:
    """Return the 8-connected component of a pixel; all that is not ``mask`` counts as one component."""
    labels = np.asarray(cv2.connectedComponents(mask.astype(np.uint8))[1])
    return np.asarray(labels == labels[pixel])


def _extent(mask: Mask) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return first and last row, first and last column; 0 and the image's size for `FEW` pixels."""
    if mask.sum() < FEW:
        return (0, mask.shape[0]), (0, mask.shape[1])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def _is_narrow(change: tuple[float, float], whole: tuple[float, float]) -> bool:
    return change[1] - change[0] < (whole[1] - whole[0]) / NARROW


def _expanded(span: tuple[float, float], expansion: float) -> tuple[int, int]:
    centre, length = 0.5 * (span[0] + span[1]), expansion * (span[1] - span[0] + 1)
    return int(centre - length * 0.5), int(centre + length * 0.5)


def merged(mask: Mask, previous: Mask, click: Pixel) -> Mask:
    """Return ``previous`` changed only where ``mask`` differs from it in one piece with the click.

    The authors' progressive merge: a mask that a user brought is corrected part by part, and kept elsewhere.
    """
    changed = component_at(mask ^ previous, click)
    return previous & ~changed if previous[click] else previous | changed
