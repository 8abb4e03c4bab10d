"""Synthetic images whose right answer is known: bright squares on a dark, slightly noisy ground, and prompts for them.

What the conformance kit of `promptseg.testing` shows to a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from promptseg.segmenter import Image, Mask, Prompt

Kind = Literal["points", "boxes", "points+boxes"]


class Square(NamedTuple):
    """First and last pixel of an object, inclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Scene:
    """An image of bright squares.

    Attributes:
        height: of the image.
        width: of the image.
        squares: the objects; none for a flat image.
    """

    height: int
    width: int
    squares: tuple[Square, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    def image(self) -> Image:
        """Return a new (H, W, 3) array, the same each time."""
        if not self.squares:
            return np.full((*self.size_hw, 3), 255, dtype=np.uint8)
        grey = np.random.default_rng(0).normal(50, 3, self.size_hw)
        for square in self.squares:
            grey[self.target(square)] += 140
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)

    def target(self, square: Square) -> Mask:
        """Return the (H, W) bool mask of a square; what lies outside the image is cut off."""
        mask = np.zeros(self.size_hw, dtype=np.bool_)
        mask[square.y0 : square.y1 + 1, square.x0 : square.x1 + 1] = True
        return mask


# In WIDE and TALL the first square is off the diagonal, and its place with x and y swapped is empty ground.
WIDE = Scene(96, 160, (Square(64, 8, 87, 31), Square(120, 60, 143, 83)))
TALL = Scene(141, 85, (Square(12, 48, 35, 75), Square(50, 100, 73, 123)))
EVEN = Scene(112, 112, (Square(70, 12, 97, 35), Square(20, 60, 45, 95)))
FLAT = Scene(40, 56, ())
SCENES = (WIDE, TALL, EVEN)


def points(*clicks: tuple[float, float, int]) -> Prompt:
    """Return a prompt of (x, y, label) points, labels 1 for foreground and 0 for background."""
    return Prompt(np.array([p[:2] for p in clicks], dtype=np.float32), np.array([p[2] for p in clicks], dtype=np.int64))


def box(*edges: float) -> Prompt:
    """Return a prompt with an inclusive xyxy box."""
    return Prompt(box_xyxy=np.array(edges, dtype=np.float32))


def middle(square: Square, label: int = 1) -> tuple[float, float, int]:
    """Return the pixel in the middle of a square as (x, y, label)."""
    return (square.x0 + square.x1) // 2, (square.y0 + square.y1) // 2, label


def prompt_for(kind: Kind, square: Square) -> Prompt:
    """Return a point in the middle of a square, its tight box, or both in one prompt."""
    if kind == "points+boxes":
        return replace(points(middle(square)), box_xyxy=box(*square).box_xyxy)
    return points(middle(square)) if kind == "points" else box(*square)
