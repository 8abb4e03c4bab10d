"""Random walker on a small grid.

L. Grady: Random walks for image segmentation. IEEE Transactions on Pattern Analysis and Machine Intelligence
28(11), 2006. The linear system is scikit-image's ``random_walker``, solved directly: at this size that takes as
long as conjugate gradients, and no tolerance enters the result.

Prompts: a disc around each foreground point is object; a disc around each background point, and the border of the
image, are background (where they meet, the foreground wins). With a box all outside it is background
instead of the border, and without a foreground point its centre is object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.segmentation import random_walker

from promptseg.models._window import Window, box_slices, discs, grown, points_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, SingleImageSegmenter

LONGEST = 96  # cells; the system takes about 20 ms at this size
BETA = 300.0  # how much an edge hinders the walker
SEED = 0.03  # radius of a seed, of the grid's shorter side
CORE = 0.7  # the part of a box's sides that is object for certain

Labels = npt.NDArray[np.int32]  # (h, w): 1 object, 2 background, 0 asked


class RandomWalker(SingleImageSegmenter):
    """One candidate, no estimate of its quality."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Walk on the box and a cell around it, or on the whole image if there is no box."""
        window = _window(image, prompt)
        return Prediction(window.paste(_walk(window.pixels, _seeds(window, prompt)))[None])


def _window(image: Image, prompt: Prompt) -> Window:
    size_hw = (image.shape[0], image.shape[1])
    if prompt.box_xyxy is None:
        return Window.of(image, (slice(0, size_hw[0]), slice(0, size_hw[1])), LONGEST)
    return Window.of(image, grown(box_slices(prompt.box_xyxy, size_hw), 2 / LONGEST, 1, size_hw), LONGEST)


def _seeds(window: Window, prompt: Prompt) -> Labels:
    """Return what the prompt says about each cell."""
    shorter = min(window.grid_hw)
    foreground, background = (window.cells(points_of(prompt, label)) for label in (1, 0))
    labels = np.full(window.grid_hw, 2, dtype=np.int32)
    (x0, y0), (x1, y1) = _asked(window, prompt)
    labels[y0 : y1 + 1, x0 : x1 + 1] = 0
    labels[discs(background, SEED * shorter, window.grid_hw)] = 2
    labels[discs(foreground, SEED * shorter, window.grid_hw)] = 1
    if prompt.box_xyxy is not None and not len(foreground):
        labels[_core(x0, y0, x1, y1, window.grid_hw)] = 1
    return labels


def _asked(window: Window, prompt: Prompt) -> list[list[int]]:
    """Return the first and the last xy cell that is not background from the start."""
    if prompt.box_xyxy is None:
        h, w = window.grid_hw
        return [[1, 1], [w - 2, h - 2]]
    return [list(xy) for xy in window.cells(prompt.box_xyxy.reshape(2, 2)).tolist()]


def _core(x0: int, y0: int, x1: int, y1: int, grid_hw: tuple[int, int]) -> Mask:
    """Return (h, w) bool: the ellipse in the middle of the inclusive box; at least its middle cell."""
    y, x = np.ogrid[: grid_hw[0], : grid_hw[1]]
    half_w, half_h = (max(0.5, CORE * (last - first + 1) / 2) for first, last in ((x0, x1), (y0, y1)))
    return np.asarray(((x - (x0 + x1) / 2) / half_w) ** 2 + ((y - (y0 + y1) / 2) / half_h) ** 2 <= 1)


def _walk(pixels: Image, labels: Labels) -> npt.NDArray[np.float64]:
    """Return (h, w): the chance that a walker from a cell reaches a seed of the object first.

    Where a class has no seed or no cell is left to ask, the labels are the answer.
    """
    if len(np.unique(labels)) < 3:
        return np.asarray((labels != 2) & (labels == 1).any(), dtype=np.float64)
    data = pixels.astype(np.float64) / 255
    if data.std() == 0:
        data[0, 0] += 1e-6  # without any contrast scikit-image would divide by zero
    both = random_walker(data, labels, beta=BETA, mode="bf", return_full_prob=True, prob_tol=np.inf, channel_axis=-1)
    return np.asarray(both[0], dtype=np.float64)
