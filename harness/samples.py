"""The contract of a data set: stable ids, label maps and images, each loaded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from promptseg.segmenter import Image, Mask
from promptseg.specs import TaskSpec

LabelMap = npt.NDArray[np.integer]  # (H, W), 0 is background


class Samples(Protocol):
    """What the ``load`` function of a `DatasetSpec` returns.

    Attributes:
        fingerprint: changes when, and only when, an image, a mask or an id changes.
    """

    fingerprint: str

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted; the same on every machine."""

    def subject(self, case_id: str) -> str | None:
        """Return the patient (or other cluster) that the case belongs to, None where not known."""

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map. Raises `CaseError` for an unusable mask."""

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 RGB image, normalised by `promptseg.data.images.normalise`.

        Raises `CaseError` for an unusable image.
        """


def target_of(task: TaskSpec, labels: LabelMap) -> Mask:
    """Return the (H, W) bool target of ``task`` in a label map; may be empty."""
    if not task.labels:
        return np.asarray(labels > 0)
    return np.isin(labels, task.labels)
