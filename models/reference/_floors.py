"""The implementation of the floors, see `promptseg.models.reference.floors`."""

from __future__ import annotations

from typing import Any

import numpy as np

from promptseg.errors import ConfigError
from promptseg.models._window import box_slices
from promptseg.segmenter import Image, Mask, Prediction, Prompt, SingleImageSegmenter
from promptseg.specs import ModelSpec


class BoxFill(SingleImageSegmenter):
    """Predicts the box itself."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Fill the box of the prompt; nothing without a box."""
        mask = np.zeros(image.shape[:2], dtype=np.bool_)
        if prompt.box_xyxy is not None:
            mask[box_slices(prompt.box_xyxy, (image.shape[0], image.shape[1]))] = True
        return Prediction(mask[None])


class PointDisc(SingleImageSegmenter):
    """Predicts a disc around each foreground point, less a disc around each background point."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        radius = spec.options.get("radius")
        if not isinstance(radius, int | float) or not radius > 0:
            raise ConfigError(f"model {spec.name!r}: option radius is {radius!r}; it must be a number above 0.")
        self.radius = float(radius)

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Unite the discs of the foreground points and cut out those of the background points."""
        size_hw = (image.shape[0], image.shape[1])
        radius_px = self.radius * min(size_hw)
        inside, outside = (_discs(prompt.points_xy[prompt.labels == label], radius_px, size_hw) for label in (1, 0))
        return Prediction((inside & ~outside)[None])


def _discs(points_xy: np.ndarray, radius_px: float, size_hw: tuple[int, int]) -> Mask:
    """Return (H, W) bool: the pixels whose centre is at most ``radius_px`` from one of the (N, 2) points."""
    y, x = np.ogrid[: size_hw[0], : size_hw[1]]
    mask = np.zeros(size_hw, dtype=np.bool_)
    for px, py in points_xy:
        mask |= (x - px) ** 2 + (y - py) ** 2 <= radius_px**2
    return mask
