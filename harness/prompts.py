"""Prompts simulated from a target, as docs/protocol.md states them (protocol "paper", version 1).

Pure functions: a target (H, W) bool, a prediction (H, W) bool or None and a random generator in, prompts out.
Coordinates are xy pixel centres with the origin top left; boxes are inclusive xyxy.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.segmenter import Mask, Prompt

MAX_COMPONENTS = 3


def generator(seed: int, task: str, case_id: str, step: int, repeat: int = 0) -> np.random.Generator:
    """Return the generator for one click of one case.

    Seeded by these alone, so that prompts do not depend on order, sharding, model or prompt mode.

    Args:
        seed: of the run.
        task: name of the task.
        case_id: of the case.
        step: number of the click, from 0.
        repeat: which drawing of the prompts. It enters the seed from the second drawing (1) on, so that the first one
            is the same however many there are.
    """
    again = f"\0{repeat}" if repeat else ""
    digest = hashlib.sha256(f"{seed}\0{task}\0{case_id}\0{step}{again}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


@dataclass(frozen=True, eq=False)
class Part:
    """A component of a target, or all of it: (h, w) bool within its tight box, and the box's first pixel in the image.

    Looking at the box alone changes no distance to the boundary: all around it is background, as beyond the image.
    """

    mask: Mask
    x: int
    y: int

    @property
    def box_xyxy(self) -> npt.NDArray[np.float32]:
        """(4,) float32, first and last column and row, both inclusive."""
        height, width = self.mask.shape
        return np.array([self.x, self.y, self.x + width - 1, self.y + height - 1], dtype=np.float32)

    @cached_property
    def farthest(self) -> npt.NDArray[np.intp]:
        """(N,) flat indices within the box, in raster order, of the pixels farthest from the boundary."""
        distance = _distance(self.mask, cv2.DIST_MASK_5)
        return np.flatnonzero(distance == distance.max())

    def centre_xy(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return (2,) float32, one of the farthest pixels, drawn at random."""
        # Raw bits: NumPy keeps the stream of a bit generator for good, but not what Generator.integers makes of it.
        y, x = divmod(int(self.farthest[rng.bit_generator.random_raw() % len(self.farthest)]), self.mask.shape[1])
        return np.array([self.x + x, self.y + y], dtype=np.float32)


class _Parts(NamedTuple):
    """All of a target, how many 8-connected components it has, and the largest of them, largest first."""

    whole: Part
    n: int
    largest: tuple[Part, ...]


_known: dict[int, tuple[weakref.ReferenceType[Mask], _Parts]] = {}  # by id of the target


def _parts(target: Mask) -> _Parts:
    """Return the components that get prompts; of an array that nobody can write to they are found once."""
    if target.flags.writeable or not target.flags.owndata:
        return _found(target, MAX_COMPONENTS)
    key = id(target)
    known = _known.get(key)
    if known is None or known[0]() is not target:
        known = weakref.ref(target, lambda _: _known.pop(key, None)), _found(target, MAX_COMPONENTS)
        _known[key] = known
    return known[1]


def _found(target: Mask, at_most: int) -> _Parts:
    """Find the largest components, equal ones in raster order of their first pixel, however OpenCV numbers them."""
    whole = _tight(target)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(whole.mask.view(np.uint8), connectivity=8)
    x, y, width, height, area = (stats[1:, column] for column in range(5))
    order = np.lexsort((y, -area))
    if at_most < len(order):  # also those that are as large and begin in the same row as the last one that is wanted
        last = order[at_most - 1]
        order = order[(area[order] > area[last]) | ((area[order] == area[last]) & (y[order] <= y[last]))]

    def rank(i: int) -> tuple[int, int, int]:
        first_row = labels[y[i], x[i] : x[i] + width[i]]
        return -int(area[i]), int(y[i]), int(x[i] + np.argmax(first_row == i + 1))

    largest = sorted(order.tolist(), key=rank)[:at_most]
    if n == 2:
        return _Parts(whole, 1, (whole,))
    boxes = [(slice(y[i], y[i] + height[i]), slice(x[i], x[i] + width[i])) for i in largest]
    parts = [
        Part(labels[box] == i + 1, whole.x + box[1].start, whole.y + box[0].start)
        for i, box in zip(largest, boxes, strict=True)
    ]
    return _Parts(whole, n - 1, tuple(parts))


def _tight(mask: Mask) -> Part:
    """Return all of a mask within its tight box; an empty mask of an empty one."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return Part(np.ascontiguousarray(mask[y : y + height, x : x + width]), x, y)


def count_components(target: Mask) -> int:
    """Return the number of 8-connected components."""
    return _parts(target).n


def components(target: Mask, at_most: int = MAX_COMPONENTS) -> list[Mask]:
    """Return the largest 8-connected components as (H, W) bool masks, largest first.

    Equal ones come in raster order of their first pixel.
    """
    masks = []
    for part in _found(target, at_most).largest:
        masks.append(np.zeros(target.shape, dtype=np.bool_))
        height, width = part.mask.shape
        masks[-1][part.y : part.y + height, part.x : part.x + width] = part.mask
    return masks


def centre_xy(mask: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return (2,) float32, the pixel of a non-empty mask that is farthest from its boundary.

    The image's edge counts as boundary. The distance is OpenCV's 5 x 5 approximation, and one of all pixels
    at the maximum is drawn at random, as the paper's released code does it.
    """
    return _tight(mask).centre_xy(rng)


def _distance(mask: Mask, mask_size: int) -> npt.NDArray[np.float32]:
    """Return (H, W) float32, OpenCV's distance to the nearest pixel outside, the same on every machine.

    Where OpenCV is built with Intel's IPP (x86) it lets that compute the distance: rounding then breaks ties and makes
    others, and the farthest pixels are not those of an ARM machine.
    """
    in_use = cv2.ipp.useIPP()  # a setting of this thread
    cv2.ipp.setUseIPP(False)
    try:
        padded = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, mask_size), dtype=np.float32)[1:-1, 1:-1]
    finally:
        cv2.ipp.setUseIPP(in_use)


def tight_box_xyxy(mask: Mask) -> npt.NDArray[np.float32]:
    """Return (4,) float32, the first and last column and row of a non-empty mask, both inclusive."""
    return _tight(mask).box_xyxy


def _foreground(points_xy: list[npt.NDArray[np.float32]]) -> Prompt:
    return Prompt(points_xy=np.stack(points_xy), labels=np.ones(len(points_xy), dtype=np.int64))


def point_largest(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """One point at the centre of the largest component."""
    return (_foreground([_parts(target).largest[0].centre_xy(rng)]),)


def point_each(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """One prompt that holds a point for each of the three largest components."""
    return (_foreground([part.centre_xy(rng) for part in _parts(target).largest]),)


def box_largest(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001 (modes share a signature)
    """One box round the largest component."""
    return (Prompt(box_xyxy=_parts(target).largest[0].box_xyxy),)


def box_each(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001
    """A prompt for each of the three largest components: its box."""
    return tuple(Prompt(box_xyxy=part.box_xyxy) for part in _parts(target).largest)


def box_all(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001
    """One box round the whole target, components beyond the third included."""
    return (Prompt(box_xyxy=_parts(target).whole.box_xyxy),)


def next_click(target: Mask, prediction: Mask | None, clicks: Prompt, rng: np.random.Generator) -> Prompt:
    """Return ``clicks`` and one more: all are given to the model together (Algorithm 1).

    The first click is the centre of the whole target; each later one the centre of the error
    (prediction XOR target), labelled by the target at that pixel. The paper's released code takes that label
    from the map of all classes, which turns false positives on a neighbouring class into foreground clicks;
    this does not. Where there is no error left, ``clicks`` comes back unchanged.
    """
    error = _parts(target).whole if prediction is None else _tight(prediction ^ target)
    if not error.mask.size:
        return clicks
    xy = error.centre_xy(rng)
    label = int(target[int(xy[1]), int(xy[0])])
    return _with_click(clicks, xy, label)


def ritm_click(target: Mask, prediction: Mask | None, clicks: Prompt, rng: np.random.Generator) -> Prompt:  # noqa: ARG001
    """Return ``clicks`` and one more, placed as the evaluation of RITM places it (github.com/SamsungLabs, clicker.py).

    False negatives and false positives apart, each with the exact Euclidean distance to its boundary, where the image's
    edge counts and pixels that were clicked before do not: the click goes to the larger maximum (a background click if
    they are equal), to the first pixel in raster order that has it. Nothing is drawn at random.

    Where no pixel is left to click, ``clicks`` comes back unchanged. RITM's evaluation ends a case at the first IoU
    that was asked for, up to which the clicks are the same; it has no rule for what is left after that.
    """
    missed, extra = (target, None) if prediction is None else (target & ~prediction, prediction & ~target)
    depth, xy = _first_farthest(missed, clicks)
    depth_extra, xy_extra = (0.0, xy) if extra is None else _first_farthest(extra, clicks)
    if not max(depth, depth_extra):
        return clicks
    label = int(depth > depth_extra)
    return _with_click(clicks, xy if label else xy_extra, label)


def _first_farthest(error: Mask, clicks: Prompt) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the largest exact distance to the boundary, of pixels not clicked yet, and the first pixel that has it."""
    part = _tight(error)
    if not part.mask.size:
        return 0.0, np.zeros(2, dtype=np.float32)
    distance = _distance(part.mask, cv2.DIST_MASK_PRECISE).copy()
    height, width = part.mask.shape
    xs, ys = (clicks.points_xy - [part.x, part.y]).T.astype(np.intp)
    inside = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
    distance[ys[inside], xs[inside]] = 0
    y, x = divmod(int(np.argmax(distance)), width)
    return float(distance[y, x]), np.array([part.x + x, part.y + y], dtype=np.float32)


def _with_click(clicks: Prompt, xy: npt.NDArray[np.float32], label: int) -> Prompt:
    return Prompt(points_xy=np.vstack([clicks.points_xy, xy[None]]), labels=np.append(clicks.labels, label))


def grid(size_hw: tuple[int, int], points_a_side: int) -> Iterator[Prompt]:
    """Yield a prompt of one foreground point for each cell of a square grid laid over an (H, W) image, row by row.

    The points are the middles of the cells, in fractions of the image, taken for pixels as the official code does.
    """
    middles = (np.arange(points_a_side) + 0.5) / points_a_side
    for y in middles * size_hw[0]:
        for x in middles * size_hw[1]:
            yield Prompt(points_xy=np.array([[x, y]], dtype=np.float32), labels=np.ones(1, dtype=np.int64))
