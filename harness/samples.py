"""The contract of a data set: stable ids, and label maps and images that are loaded on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from promptseg.segmenter import Image, Mask
from promptseg.specs import TaskSpec

LabelMap = npt.NDArray[np.integer]
"""A label map: (H, W) of any integer type, 0 is background."""


class Samples(Protocol):
    """The cases of a data set, as the ``load`` function of its `DatasetSpec` returns them.

    Attributes:
        fingerprint: text that changes if and only if an image, a mask or an id changes.
    """

    fingerprint: str

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted; the same on every machine."""

    def subject(self, case_id: str) -> str | None:
        """Return the patient (or other cluster) that the case belongs to; None if unknown."""

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map of integers, 0 for background.

        Raises:
            CaseError: the mask is unusable.
        """

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 RGB image, normalised by `promptseg.normalise`.

        Raises:
            CaseError: the image is unusable.
        """


def target_of(task: TaskSpec, labels: LabelMap) -> Mask:
    """Return the (H, W) bool target of a task in an (H, W) label map; it may be empty."""
    if not task.labels:
        return np.asarray(labels > 0)
    return np.isin(labels, task.labels)
