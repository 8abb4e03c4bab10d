"""The model of `promptseg_outside.model`, written for one image and one prompt at a time."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from promptseg import Prediction, Prompt, SingleImageSegmenter
from promptseg.segmenter import Image, Mask


class BlurThreshold(SingleImageSegmenter):
    """Answers with the bright parts that hold a foreground point, or that lie in the box."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return one candidate, (1, H, W) bool."""
        grey = cv2.GaussianBlur(image.mean(axis=2), (3, 3), 0)
        bright = np.asarray(grey > grey.min() + 0.3 * (grey.max() - grey.min()))
        mask = _parts_at(bright, prompt.points_xy[prompt.labels == 1])
        if prompt.box_xyxy is not None:
            x0, y0, x1, y1 = prompt.box_xyxy.astype(int)
            mask[y0 : y1 + 1, x0 : x1 + 1] |= bright[y0 : y1 + 1, x0 : x1 + 1]
        mask &= ~_parts_at(bright, prompt.points_xy[prompt.labels == 0])
        return Prediction(mask[None])


def _parts_at(bright: Mask, points_xy: npt.NDArray[np.float32]) -> Mask:
    """Return (H, W) bool: the connected parts that hold one of the (N, 2) xy points."""
    _, parts = cv2.connectedComponents(bright.astype(np.uint8))
    x, y = points_xy.astype(int).T
    return np.asarray(np.isin(parts, parts[y, x]) & bright)
