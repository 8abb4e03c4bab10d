"""Prompts simulated from a target, as the reference protocol says (DESIGN: protocol "paper", version 1).

Pure functions: a target (H, W) bool, a prediction (H, W) bool or None and a random generator in, prompts out.
Coordinates are xy pixel centres with the origin top left; boxes are inclusive xyxy.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.segmenter import Mask, Prompt

MAX_COMPONENTS = 3


def generator(seed: int, task: str, case_id: str, step: int) -> np.random.Generator:
    """Return the generator for one click of one case.

    Seeded by these four alone, so that prompts do not depend on order, sharding, model or prompt mode.
    """
    digest = hashlib.sha256(f"{seed}\0{task}\0{case_id}\0{step}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def count_components(target: Mask) -> int:
    """Return the number of 8-connected components."""
    return cv2.connectedComponents(target.astype(np.uint8), connectivity=8)[0] - 1


def components(target: Mask, at_most: int = MAX_COMPONENTS) -> list[Mask]:
    """Return the largest 8-connected components as (H, W) bool masks, largest first.

    Equal ones come in raster order of their first pixel, whatever order OpenCV numbers them in.
    """
    labels = np.asarray(cv2.connectedComponents(target.astype(np.uint8), connectivity=8)[1])
    ids, first_pixels, areas = np.unique(labels[target], return_index=True, return_counts=True)
    largest = np.lexsort((first_pixels, -areas))[:at_most]
    return [labels == ids[i] for i in largest]


def centre_xy(mask: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return (2,) float32, the pixel of a non-empty mask that is farthest from its boundary.

    The image's edge counts as boundary. The distance is OpenCV's 5 x 5 approximation, and one of all pixels
    at the maximum is drawn at random, as the paper's released code does it.
    """
    distance = _distance(mask, cv2.DIST_MASK_5)
    ys, xs = np.nonzero(distance == distance.max())
    # Raw bits: NumPy keeps the stream of a bit generator for good, but not what Generator.integers makes of it.
    chosen = rng.bit_generator.random_raw() % len(xs)
    return np.array([xs[chosen], ys[chosen]], dtype=np.float32)


def _distance(mask: Mask, mask_size: int) -> npt.NDArray[np.float32]:
    """Return (H, W) float32, OpenCV's distance to the nearest pixel outside, the same on every machine.

    Where OpenCV is built with Intel's IPP (x86) it lets that compute the distance: rounding then breaks ties and makes
    others, and the farthest pixels are not those of an ARM machine.
    """
    in_use = cv2.ipp.useIPP()  # a setting of this thread
    cv2.ipp.setUseIPP(False)
    try:
        padded = np.pad(mask.astype(np.uint8), 1)
        return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, mask_size), dtype=np.float32)[1:-1, 1:-1]
    finally:
        cv2.ipp.setUseIPP(in_use)


def tight_box_xyxy(mask: Mask) -> npt.NDArray[np.float32]:
    """Return (4,) float32, the first and last column and row of a non-empty mask, both inclusive."""
    xs = np.flatnonzero(mask.any(axis=0))
    ys = np.flatnonzero(mask.any(axis=1))
    return np.array([xs[0], ys[0], xs[-1], ys[-1]], dtype=np.float32)


def _foreground(points_xy: list[npt.NDArray[np.float32]]) -> Prompt:
    return Prompt(points_xy=np.stack(points_xy), labels=np.ones(len(points_xy), dtype=np.int64))


def point_largest(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """One point at the centre of the largest component."""
    return (_foreground([centre_xy(components(target, at_most=1)[0], rng)]),)


def point_each(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """One prompt that holds a point for each of the three largest components."""
    return (_foreground([centre_xy(c, rng) for c in components(target)]),)


def box_largest(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001 (modes share a signature)
    """One box round the largest component."""
    return (Prompt(box_xyxy=tight_box_xyxy(components(target, at_most=1)[0])),)


def box_each(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001
    """A prompt for each of the three largest components: its box."""
    return tuple(Prompt(box_xyxy=tight_box_xyxy(c)) for c in components(target))


def box_all(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:  # noqa: ARG001
    """One box round the whole target, components beyond the third included."""
    return (Prompt(box_xyxy=tight_box_xyxy(target)),)


def next_click(target: Mask, prediction: Mask | None, clicks: Prompt, rng: np.random.Generator) -> Prompt:
    """Return ``clicks`` and one more: all are given to the model together (Algorithm 1).

    The first click is the centre of the whole target; each later one the centre of the error
    (prediction XOR target), labelled by the target at that pixel. The paper's released code takes that label
    from the map of all classes, which turns false positives on a neighbouring class into foreground clicks;
    this does not. Where there is no error left, ``clicks`` comes back unchanged.
    """
    error = target if prediction is None else prediction ^ target
    if not error.any():
        return clicks
    xy = centre_xy(error, rng)
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
    found = np.zeros_like(target) if prediction is None else prediction
    free = np.ones_like(target)
    xs, ys = clicks.points_xy.T.astype(np.intp)
    free[ys, xs] = False
    missed, extra = (_distance(error, cv2.DIST_MASK_PRECISE) * free for error in (target & ~found, found & ~target))
    label = int(missed.max() > extra.max())
    distance = missed if label else extra
    if not distance.any():
        return clicks
    y, x = np.unravel_index(np.argmax(distance), distance.shape)
    return _with_click(clicks, np.array([x, y], dtype=np.float32), label)


def _with_click(clicks: Prompt, xy: npt.NDArray[np.float32], label: int) -> Prompt:
    return Prompt(points_xy=np.vstack([clicks.points_xy, xy[None]]), labels=np.append(clicks.labels, label))
