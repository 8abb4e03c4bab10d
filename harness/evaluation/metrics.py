"""IoU of masks, and how a mask is chosen among candidates. Arrays in, numbers out; no I/O, no averaging."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from promptseg.errors import ModelError
from promptseg.segmenter import Mask, Prediction


class Choice(NamedTuple):
    """One object's candidates reduced to the three choices of mask, and their IoU with the target.

    ``first`` is candidate 0, ``confident`` the one with the highest predicted IoU, ``oracle`` the best against
    the target. ``masks`` holds the three masks under these names, each (H, W) bool; ``candidate`` their indices among
    the candidates of the (first) prediction; ``candidate_iou`` the IoU of every candidate, united index by index.
    """

    masks: dict[str, Mask]
    iou: dict[str, float]
    candidate: dict[str, int]
    candidate_iou: tuple[float, ...]
    predicted_iou: tuple[float, ...] | None


def iou(prediction: Mask, target: Mask) -> float:
    """Return ``|A and B| / |A or B|`` over the whole image, in [0, 1].

    An empty prediction scores 0. Cases without an object are not scored; two empty masks give NaN, so that no mean can
    hide one.

    >>> iou(np.array([[True, True, False]]), np.array([[False, True, True]]))
    0.3333333333333333
    """
    return float(candidate_ious(prediction[None], target)[0])


def candidate_ious(masks: npt.NDArray[np.bool_], target: Mask) -> npt.NDArray[np.float64]:
    """Return (M,) float64, the IoU of each of (M, H, W) bool masks with an (H, W) bool target."""
    both = np.empty_like(target)
    overlap = np.array([np.count_nonzero(np.logical_and(m, target, out=both)) for m in masks], dtype=np.float64)
    areas = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return overlap / (areas + np.count_nonzero(target) - overlap)


def most_confident(prediction: Prediction) -> int:
    """Return the index of the highest predicted IoU; 0 for a model that predicts none."""
    return 0 if prediction.predicted_iou is None else int(np.argmax(prediction.predicted_iou))


def choose(predictions: tuple[Prediction, ...], target: Mask) -> Choice:
    """Reduce the predictions on one object to the three choices of mask.

    Several predictions (``box_each``) are united: index by index before ``first`` and ``oracle`` choose, while
    ``confident`` chooses for each prediction and then unites. Predicted IoUs of united candidates are means.

    Raises:
        ModelError: predictions to be united have different numbers of candidates.
    """
    counts = {len(p.masks) for p in predictions}
    if len(counts) > 1:
        raise ModelError(f"the answers to one object's boxes have {sorted(counts)} candidates; they must agree")
    united = _union([p.masks for p in predictions])
    confident = _union([p.masks[most_confident(p)] for p in predictions])
    ious = candidate_ious(united, target)
    of_confident = ious[most_confident(predictions[0])] if len(predictions) == 1 else iou(confident, target)
    best = int(np.argmax(ious))
    scores = [p.predicted_iou for p in predictions if p.predicted_iou is not None]
    return Choice(
        masks={"first": united[0], "confident": confident, "oracle": united[best]},
        iou={"first": float(ious[0]), "confident": float(of_confident), "oracle": float(ious[best])},
        candidate={"first": 0, "confident": most_confident(predictions[0]), "oracle": best},
        candidate_iou=tuple(float(value) for value in ious),
        predicted_iou=tuple(float(s) for s in np.mean(scores, axis=0)) if scores else None,
    )


def _union(masks: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return masks[0] if len(masks) == 1 else np.logical_or.reduce(masks)


def coverage(masks: npt.NDArray[np.bool_], target: Mask) -> float:
    """Return the part of an (H, W) target that the union of (M, H, W) masks covers, in [0, 1]; 0 for no masks."""
    return float(np.count_nonzero(masks.any(axis=0) & target) / np.count_nonzero(target))
