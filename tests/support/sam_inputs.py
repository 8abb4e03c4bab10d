"""An image and prompts on which SAM and what it is compared with must agree."""

from __future__ import annotations

import numpy as np

from promptseg.segmenter import Image, Prompt


def smooth_image(height: int, width: int) -> Image:
    """Return a bright ellipse with noise."""
    y, x = np.mgrid[:height, :width]
    ellipse = ((y / height - 0.5) ** 2 + (x / width - 0.4) ** 2 < 0.08) * 140
    noise = np.random.default_rng(height).integers(0, 60, (height, width, 3))
    return np.asarray(ellipse[..., None] + noise, dtype=np.uint8)


def prompt_of(kind: str, height: int, width: int) -> Prompt:
    """Return a prompt of one kind that fits the image."""
    size = np.array([width - 1, height - 1], np.float32)
    points_xy = np.round(np.array([[0.4, 0.5], [0.9, 0.1], [0.3, 0.6]], np.float32) * size)
    labels = np.array([1, 0, 1])
    box = np.concatenate([np.round(size * 0.2), np.round(size * 0.7)])
    return {
        "point": Prompt(points_xy=points_xy[:1], labels=labels[:1]),
        "points": Prompt(points_xy=points_xy, labels=labels),
        "box": Prompt(box_xyxy=box),
        "box_and_points": Prompt(points_xy=points_xy, labels=labels, box_xyxy=box),
    }[kind]
