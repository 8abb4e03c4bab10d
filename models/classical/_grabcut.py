"""GrabCut on a small grid.

C. Rother, V. Kolmogorov, A. Blake: "GrabCut": interactive foreground extraction using iterated graph cuts.
ACM Transactions on Graphics 23(3), 2004. The cut is OpenCV's ``cv2.grabCut``.

Prompts: all outside a box is background, all inside may be object, as in the paper. Without a box, pixels near a
foreground point may be object and all others may be background. A disc around each point is a fixed seed of
the point's label; where discs meet, the foreground wins. With foreground points only what is connected to one of
them is kept: similar colours elsewhere are not the object.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.models._window import Window, box_slices, discs, grown, points_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, SingleImageSegmenter

LONGEST = 112  # cells; the graph cut costs about 25 ms at this size
ITERATIONS = 3
MARGIN = 0.3  # of the box's sides: where the background's colours come from
SEED = 0.05  # radius of a fixed seed, of the grid's shorter side
COLLAPSED = 0.05  # a cut that leaves less of what may be object has collapsed
NEAR = 0.12  # radius around a foreground point that may be object, same unit

Trimap = npt.NDArray[np.uint8]  # (h, w), the four classes of cv2.grabCut


class GrabCut(SingleImageSegmenter):
    """One candidate, no estimate of its quality."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Cut the object out of a window around the box, or of the whole image if there is no box."""
        window = _window(image, prompt)
        trimap = _trimap(window, prompt)
        region = _touching(_cut(window.pixels, trimap), trimap == cv2.GC_FGD)
        return Prediction(window.paste(region.astype(np.float32))[None])


def _window(image: Image, prompt: Prompt) -> Window:
    size_hw = (image.shape[0], image.shape[1])
    if prompt.box_xyxy is None:
        return Window.of(image, (slice(0, size_hw[0]), slice(0, size_hw[1])), LONGEST)
    return Window.of(image, grown(box_slices(prompt.box_xyxy, size_hw), MARGIN, 8, size_hw), LONGEST)


def _trimap(window: Window, prompt: Prompt) -> Trimap:
    """Return what the prompt says about each cell."""
    shorter = min(window.grid_hw)
    foreground, background = (window.cells(points_of(prompt, label)) for label in (1, 0))
    if prompt.box_xyxy is None:
        trimap = np.full(window.grid_hw, cv2.GC_PR_BGD, dtype=np.uint8)
        trimap[discs(foreground, NEAR * shorter, window.grid_hw)] = cv2.GC_PR_FGD
    else:
        trimap = np.full(window.grid_hw, cv2.GC_BGD, dtype=np.uint8)
        (x0, y0), (x1, y1) = window.cells(prompt.box_xyxy.reshape(2, 2)).tolist()
        trimap[y0 : y1 + 1, x0 : x1 + 1] = cv2.GC_PR_FGD
    trimap[discs(background, SEED * shorter, window.grid_hw)] = cv2.GC_BGD
    trimap[discs(foreground, SEED * shorter, window.grid_hw)] = cv2.GC_FGD
    return trimap


def _cut(pixels: Image, trimap: Trimap) -> Mask:
    """Return the (h, w) object.

    The trimap is the answer if one class is empty, so that there is nothing to separate, or if the cut collapsed: with
    a box only contrast keeps it from calling everything background.
    """
    before = _object(trimap)
    if before.all() or not before.any():
        return before
    after = trimap.copy()
    models = np.zeros((2, 1, 65))
    cv2.setRNGSeed(0)  # the colour models start from k-means with OpenCV's global generator
    cv2.grabCut(pixels, after, (0, 0, 0, 0), models[0], models[1], ITERATIONS, cv2.GC_INIT_WITH_MASK)
    cut = _object(after)
    return cut if cut.sum() > COLLAPSED * before.sum() else before


def _object(trimap: Trimap) -> Mask:
    return np.asarray((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD))


def _touching(region: Mask, seeds: Mask) -> Mask:
    """Return the parts of the region that hold a seed; all parts if there is no seed."""
    if not seeds.any():
        return region
    _, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    return region & np.isin(parts, parts[seeds])
