"""Everything in an image: a grid of points, and what of the answers SAM's authors keep.

The rules and numbers are those of the official ``SamAutomaticMaskGenerator`` with its defaults
(github.com/facebookresearch/segment-anything, automatic_mask_generator.py): one point to each prompt, all of its
candidates, filtered by predicted IoU and by stability, then non-maximum suppression of their boxes. No crops of the
image, and no removal of small parts. Pure functions, but for `GridMasks`, which gathers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from promptseg.errors import ModelError
from promptseg.prompts import tight_box_xyxy
from promptseg.segmenter import Mask, Prediction

MIN_PREDICTED_IOU = 0.88  # kept if above
MIN_STABILITY = 0.95  # kept if at least
MAX_BOX_IOU = 0.7  # of two boxes with more the less confident one goes
TOGETHER = 32  # points that wait for their answers at a time; bounds the memory that their masks take


class _Kept(NamedTuple):
    """A mask that passed the filters: its box (inclusive xyxy), its packed pixels in there, its predicted IoU."""

    box_xyxy: npt.NDArray[np.float32]
    packed: npt.NDArray[np.uint8]
    predicted_iou: np.floating

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) of the box."""
        x0, y0, x1, y1 = self.box_xyxy.astype(int)
        return slice(y0, y1 + 1), slice(x0, x1 + 1)

    def mask(self, size_hw: tuple[int, int]) -> Mask:
        """Return the whole (H, W) mask."""
        found = np.zeros(size_hw, dtype=np.bool_)
        part = found[self.slices]
        part[...] = np.unpackbits(self.packed, count=part.size).reshape(part.shape)
        return found


class GridMasks:
    """Gathers the answers to a grid of points; only masks that pass the filters are kept, and those packed."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def add(self, answer: Prediction) -> None:
        """Keep the candidates of one point that are sure and stable enough.

        Raises:
            ModelError: the answer does not say how sure and how stable they are.
        """
        if answer.predicted_iou is None or answer.stability is None:
            raise ModelError(
                "the spec accepts 'everything', but a prediction has no predicted_iou or no stability; "
                "set both where Request.stability asks for it."
            )
        passed = (answer.predicted_iou > MIN_PREDICTED_IOU) & (answer.stability >= MIN_STABILITY)
        for i in np.flatnonzero(passed & answer.masks.any(axis=(1, 2))):
            box_xyxy = tight_box_xyxy(answer.masks[i])
            kept = _Kept(box_xyxy, np.empty(0, dtype=np.uint8), answer.predicted_iou[i])
            self._kept.append(kept._replace(packed=np.packbits(answer.masks[i][kept.slices])))

    def prediction(self, size_hw: tuple[int, int]) -> Prediction:
        """Return the masks of the image without duplicates, surest first; a single empty mask where none was kept."""
        if not self._kept:
            return Prediction(np.zeros((1, *size_hw), dtype=np.bool_))
        scores = np.array([kept.predicted_iou for kept in self._kept], dtype=np.float32)
        left = suppressed(np.stack([kept.box_xyxy for kept in self._kept]), scores)
        return Prediction(np.stack([self._kept[i].mask(size_hw) for i in left]), scores[left])


def suppressed(boxes_xyxy: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the indices that greedy non-maximum suppression leaves, highest score first, equal ones in order.

    As ``torchvision.ops.nms`` on the CPU, which is not to be had where torchvision does not fit the installed torch.
    Sides are differences of inclusive pixels, so a box of one row has no area and suppresses nothing.
    """
    order = np.argsort(-scores, kind="stable")
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    areas, left = sides[:, 0] * sides[:, 1], []
    while len(order):
        best, order = order[0], order[1:]
        left.append(best)
        first = np.maximum(boxes_xyxy[best, :2], boxes_xyxy[order, :2])
        last = np.minimum(boxes_xyxy[best, 2:], boxes_xyxy[order, 2:])
        common = np.clip(last - first, 0, None).prod(axis=1)
        with np.errstate(invalid="ignore"):
            order = order[~(common / (areas[best] + areas[order] - common) > MAX_BOX_IOU)]
    return np.array(left, dtype=np.intp)
