"""The study's protocol as its released scripts are built, in our words: what promptseg's speed is compared with.

One image and one prompt at a time through the official ``SamPredictor``, and a pass over all images for each choice of
mask, once for the prompt modes and once for the clicks (github.com/mazurowski-lab/segment-anything-medical-evaluation,
prompt_gen_and_exec_v2_allmode.py and prompt_gen_and_exec_v1.py). They have two choices, the first mask and the oracle.
Components are scikit-image's, distances OpenCV's, all on whole images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.measure import label

from promptseg.segmenter import Image, Mask

CLICKS = 9
Draw = Callable[[int], int]
"""Which of n equally good pixels is taken."""
Centre = tuple[int, int]


def components(mask: Mask, at_most: int = 3) -> list[Mask]:
    """Return the largest components, equal ones in raster order."""
    labels, count = label(mask, connectivity=2, return_num=True)
    areas = [np.sum(np.where(labels == i, 1, 0)) for i in range(1, count + 1)]
    order = sorted(range(count), key=lambda i: (-areas[i], i))  # scikit-image numbers in raster order
    return [labels == i + 1 for i in order[:at_most]]


def centre(mask: Mask, draw: Draw) -> Centre:
    """Return (x, y) of a pixel that is farthest from the boundary."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, distanceType=cv2.DIST_L2, maskSize=5).astype(np.float32)[1:-1, 1:-1]
    ys, xs = np.where(distance == distance.max())
    chosen = draw(len(xs))
    return int(xs[chosen]), int(ys[chosen])


def box(mask: Mask) -> npt.NDArray[np.int64]:
    """Return the inclusive xyxy box."""
    rows, columns = np.argwhere(mask).T
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def static_prompts(mask: Mask, draw: Draw) -> list[tuple[list[Centre], list[npt.NDArray[np.int64]]]]:
    """Return points and boxes of the five modes; as there, components are found once and each mode looks at them."""
    parts = components(mask)
    return [
        ([centre(parts[0], draw)], []),
        ([centre(part, draw) for part in parts], []),
        ([], [box(parts[0])]),
        ([], [box(part) for part in parts]),
        ([], [box(mask)]),
    ]


def iou(found: Mask, target: Mask) -> float:
    """Return the IoU of two masks, on integers as there."""
    a, b = found.astype(int), target.astype(int)
    both = np.sum(np.bitwise_and(a, b))
    return float(both / (np.sum(a) + np.sum(b) - both))


def choose(masks: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], target: Mask, select: str) -> Mask:
    """Return one of three masks."""
    if select == "oracle":
        return np.asarray(masks[int(np.argmax([iou(mask, target) for mask in masks]))])
    return np.asarray(masks[0 if select == "first" else int(np.argmax(scores))])


def static_pass(predictor: Any, image: Image, target: Mask, select: str, draw: Draw) -> list[float]:
    """Return the IoU of each mode."""
    predictor.set_image(image)
    found = []
    for points, boxes in static_prompts(target, draw):
        if points:
            masks, scores, _ = predictor.predict(np.array(points), np.ones(len(points), int))
        else:
            answers = [predictor.predict(box=one) for one in boxes]
            masks, scores = np.any([answer[0] for answer in answers], axis=0), answers[0][1]
        found.append(iou(choose(masks, scores, target, select), target))
    return found


def clicks_pass(predictor: Any, image: Image, target: Mask, select: str, draw: Draw) -> list[float]:
    """Return the IoU after each of nine clicks."""
    predictor.set_image(image)
    points, labels, found = [centre(target, draw)], [1], []
    for _ in range(CLICKS):
        logits, scores, _ = predictor.predict(np.array(points), np.array(labels), return_logits=True)
        mask = choose(logits > 0, scores, target, select)
        found.append(iou(mask, target))
        error = np.bitwise_xor(target, mask)
        if not error.any():
            break
        points.append(centre(error, draw))
        labels.append(int(target[points[-1][1], points[-1][0]]))
    return found


def evaluate(predictor: Any, image: Image, target: Mask, selects: tuple[str, ...], draw: Draw) -> list[list[float]]:
    """Return what all passes find on one image."""
    passes = (static_pass, clicks_pass)
    return [one(predictor, image, target, select, draw) for one in passes for select in selects]
