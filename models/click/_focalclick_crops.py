"""The part of an image around what a click changed, and progressive merging, as FocalClick's authors do both.

Follows the predictor ``FocalClick`` and the evaluation of their ClickSEG, its rounding included. Masks are (H, W) bool,
pixels are (row, column).
"""

from __future__ import annotations

import cv2
import numpy as np

from promptseg.models.click._inference import Roi
from promptseg.segmenter import Mask

FEW = 10  # pixels; a smaller mask is taken for noise, and the whole image for its extent
NARROW = 3  # a change this many times narrower than the object is looked at in a window round the click
WINDOW = 0.2  # of the object's longer side: what that window holds to each side of the click

Pixel = tuple[int, int]
Span = tuple[float, float]
"""First and last pixel along one axis."""


def focus_roi(mask: Mask, previous: Mask, click: Pixel, within: Roi, expansion: float) -> Roi | None:
    """Return the crop around what the last click changed, None if nothing of it is left.

    Args:
        mask: the object as the network finds it now.
        previous: as it was before the click.
        click: the last one, foreground or background.
        within: the crop that the network has looked at.
        expansion: how many times as large as the change the crop is.
    """
    rows, columns = _extent(mask)
    if previous.any():
        rows, columns = _change(_extent(component_at(mask ^ previous, click)), (rows, columns), click)
    top, bottom = _common(rows, expansion, mask.shape[0], within[:2])
    left, right = _common(columns, expansion, mask.shape[1], within[2:])
    return Roi(top, bottom, left, right) if top <= bottom and left <= right else None


def _change(changed: tuple[Span, Span], whole: tuple[Span, Span], click: Pixel) -> tuple[Span, Span]:
    """Return what to look at: the extent of the change or, if that is narrow, a window round the click."""
    if not any(_length(part) < _length(all_of_it) / NARROW for part, all_of_it in zip(changed, whole, strict=True)):
        return changed
    reach = WINDOW * max(map(_length, whole))
    row, column = click
    return (row - reach, row + reach), (column - reach, column + reach)


def _length(span: Span) -> float:
    return span[1] - span[0]


def _extent(mask: Mask) -> tuple[Span, Span]:
    """Return the span of the rows and that of the columns; from 0 to the size itself where there are few pixels."""
    if mask.sum() < FEW:
        return (0, mask.shape[0]), (0, mask.shape[1])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def _common(span: Span, expansion: float, size: int, within: tuple[int, ...]) -> tuple[int, int]:
    """Return first and last pixel of an expanded span, as far as it is in the image and ``within``."""
    centre, length = 0.5 * (span[0] + span[1]), expansion * (_length(span) + 1)
    first, end = int(centre - length * 0.5), int(centre + length * 0.5)
    return max(first, 0, within[0]), min(end, size, within[1] + 1) - 1


def component_at(mask: Mask, pixel: Pixel) -> Mask:
    """Return the 8-connected component of a pixel; all that is not ``mask`` counts as one component."""
    labels = np.asarray(cv2.connectedComponents(mask.astype(np.uint8))[1])
    return np.asarray(labels == labels[pixel])


def merged(mask: Mask, previous: Mask, click: Pixel) -> Mask:
    """Return ``previous`` changed only where ``mask`` differs from it in one piece with the click.

    The authors' progressive merge: a mask that a user supplied is corrected piece by piece, and kept elsewhere.
    """
    changed = component_at(mask ^ previous, click)
    return previous & ~changed if previous[click] else previous | changed
