"""The window of an image around a prompt, and a small grid to work on.

Classical methods cost much more on large images and gain little, so they look at a window of the image on a
coarse grid, and their answer is resized to the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.segmenter import Image, Mask, Prompt

Pixels = npt.NDArray[np.intp]  # (N, 2) xy


def box_slices(box_xyxy: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return (rows, columns) of an inclusive box, clipped to the image; at least one pixel."""
    limit = np.array([size_hw[1], size_hw[0]]) - 1
    first = np.clip(np.rint(box_xyxy[:2]).astype(int), 0, limit)
    last = np.clip(np.rint(box_xyxy[2:]).astype(int), first, limit)
    return slice(int(first[1]), int(last[1]) + 1), slice(int(first[0]), int(last[0]) + 1)


def grown(box: tuple[slice, slice], fraction: float, least: int, size_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return the box with a margin of ``fraction`` of its sides, at least ``least`` pixels, clipped to the image."""
    rows, cols = (_grown(side, fraction, least, length) for side, length in zip(box, size_hw, strict=True))
    return rows, cols


def _grown(side: slice, fraction: float, least: int, length: int) -> slice:
    margin = max(least, round(fraction * (side.stop - side.start)))
    return slice(max(0, side.start - margin), min(length, side.stop + margin))


@dataclass(frozen=True, eq=False)
class Window:
    """A part of an image on a grid whose longer side is limited.

    Attributes:
        rows: rows of the image.
        cols: columns of the image.
        size_hw: (H, W) of the image.
        pixels: (h, w, 3) uint8, the part of the image on the grid.
    """

    rows: slice
    cols: slice
    size_hw: tuple[int, int]
    pixels: Image

    @classmethod
    def of(cls, image: Image, part: tuple[slice, slice], longest: int) -> Window:
        """Cut ``part`` out of the (H, W, 3) image and shrink it to ``longest`` cells; it is never enlarged."""
        pixels = np.ascontiguousarray(image[part])
        scale = longest / max(pixels.shape[:2])
        if scale < 1:
            h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
            pixels = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        return cls(part[0], part[1], (image.shape[0], image.shape[1]), pixels)

    @property
    def grid_hw(self) -> tuple[int, int]:
        """(h, w) of the grid."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def cells(self, points_xy: npt.NDArray[np.floating]) -> Pixels:
        """Return the (N, 2) xy cells that hold the (N, 2) xy pixels; points outside go to the nearest cell."""
        sides = np.array([self.cols.stop - self.cols.start, self.rows.stop - self.rows.start])
        cells = np.array(self.grid_hw[::-1])
        inside = points_xy - [self.cols.start, self.rows.start]
        nearest = np.rint((inside + 0.5) * cells / sides - 0.5).astype(np.intp)
        return np.asarray(np.clip(nearest, 0, cells - 1))

    def paste(self, values: npt.NDArray[np.floating]) -> Mask:
        """Return (H, W) bool: where the (h, w) values, interpolated linearly, are above a half; False around."""
        height, width = self.rows.stop - self.rows.start, self.cols.stop - self.cols.start
        fine = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        mask = np.zeros(self.size_hw, dtype=np.bool_)
        mask[self.rows, self.cols] = fine > 0.5
        return mask


def discs(cells: Pixels, radius: float, grid_hw: tuple[int, int]) -> Mask:
    """Return (h, w) bool: discs of ``radius`` cells around the (N, 2) xy cells; the cell itself always counts."""
    mask = np.zeros(grid_hw, dtype=np.uint8)
    for x, y in cells.tolist():
        cv2.circle(mask, (x, y), round(radius), 1, thickness=-1)
    return mask.astype(np.bool_)


def points_of(prompt: Prompt, label: int) -> npt.NDArray[np.float32]:
    """Return the (N, 2) xy points of a prompt that carry ``label``."""
    return np.asarray(prompt.points_xy[prompt.labels == label])
