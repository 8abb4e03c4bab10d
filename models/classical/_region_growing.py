"""Region growing on a smoothed image.

After R. Adams, L. Bischof: Seeded region growing. IEEE Transactions on Pattern Analysis and Machine Intelligence
16(6), 1994. Simpler than theirs: a region takes what is connected to the seed and within a fixed tolerance of the
seed's value, by OpenCV's ``floodFill``. The tolerance is a multiple of the standard deviation around the seed.

Prompts: each foreground point grows a region; what also grows from a background point goes to the nearer of the
two. In a box without a foreground point the seed is its centre; nothing grows out of a box. Holes are filled.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.models._window import Pixels, Window, box_slices, points_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, SingleImageSegmenter

LONGEST = 320  # cells
AROUND = 0.02  # half the side of the patch that sets the tolerance, of the grid's shorter side
SPREADS = (4.0, 2.0, 6.0)  # tolerances in standard deviations of that patch
LEAST = 3.0  # lower limit of the standard deviation, grey levels


class RegionGrowing(SingleImageSegmenter):
    """Three candidates, the middle tolerance first; no estimate of their quality."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Grow from the points within the box, or within the whole image if there is no box."""
        size_hw = (image.shape[0], image.shape[1])
        whole = (slice(0, size_hw[0]), slice(0, size_hw[1]))
        part = whole if prompt.box_xyxy is None else box_slices(prompt.box_xyxy, size_hw)
        window = Window.of(image, part, LONGEST)
        grid = cv2.GaussianBlur(cv2.medianBlur(window.pixels, 5), (5, 5), 0).astype(np.uint8, copy=False)
        seeds, others = _seeds(window, prompt)
        grown = (_grow(grid, seeds, others, spread) for spread in SPREADS)
        return Prediction(np.stack([window.paste(region) for region in grown]))


def _seeds(window: Window, prompt: Prompt) -> tuple[Pixels, Pixels]:
    """Return the (N, 2) xy cells of foreground and of background points."""
    foreground, background = (window.cells(points_of(prompt, label)) for label in (1, 0))
    if prompt.box_xyxy is not None and not len(foreground):
        h, w = window.grid_hw
        foreground = np.array([[w // 2, h // 2]])
    return foreground, background


def _grow(grid: Image, seeds: Pixels, others: Pixels, spread: float) -> npt.NDArray[np.float32]:
    """Return (h, w) 0 or 1: what grows from the seeds and is not nearer to a background point that it grows from."""
    region = _flood(grid, seeds, spread)
    if len(seeds) and len(others):
        disputed = _flood(grid, others, spread)
        region &= ~(disputed & (_distance(others, region.shape) < _distance(seeds, region.shape)))
    return _filled(region).astype(np.float32)


def _flood(grid: Image, seeds: Pixels, spread: float) -> Mask:
    """Return (h, w) bool: all that is connected to a seed and within the tolerance of the seed's value."""
    framed = np.zeros((grid.shape[0] + 2, grid.shape[1] + 2), dtype=np.uint8)
    region = np.zeros(grid.shape[:2], dtype=np.bool_)
    flags = 8 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    for x, y in seeds.tolist():
        framed[:] = 0
        tolerance = (spread * _deviation(grid, x, y),) * 3
        cv2.floodFill(grid, framed, (x, y), 0, tolerance, tolerance, flags)
        region |= framed[1:-1, 1:-1] > 0
    return region


def _deviation(grid: Image, x: int, y: int) -> float:
    """Return the standard deviation around a cell, the mean of the three channels."""
    half = max(2, round(AROUND * min(grid.shape[:2])))
    patch = grid[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
    return max(LEAST, float(patch.std(axis=(0, 1)).mean()))


def _distance(cells: Pixels, grid_hw: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return (h, w): the squared distance to the nearest of the (N, 2) xy cells."""
    y, x = np.ogrid[: grid_hw[0], : grid_hw[1]]
    squares = [(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in cells.tolist()]
    return np.asarray(np.min(squares, axis=0), dtype=np.float64)


def _filled(region: Mask) -> Mask:
    """Return the region with its holes: all that is not connected to the frame around the grid."""
    framed = np.pad(region, 1).astype(np.uint8)
    cv2.floodFill(framed, None, (0, 0), 2)
    return np.asarray(framed[1:-1, 1:-1] != 2)
