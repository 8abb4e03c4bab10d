"""The samples of `promptseg_outside.dataset`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.samples import LabelMap
from promptseg.segmenter import Image

LARGE, SMALL = 1, 2


class Squares:
    """Six images of 60 x 90 pixels, two of each of three subjects; the small square is missing from the last."""

    fingerprint = "outside-squares-1"

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted."""
        return [f"square_{i}" for i in range(6)]

    def subject(self, case_id: str) -> str | None:
        """Two images after each other are of one subject."""
        return f"subject_{_number(case_id) // 2}"

    def labels(self, case_id: str) -> LabelMap:
        """Return (60, 90) uint8: 1 the large square, 2 the small one."""
        i = _number(case_id)
        labels = np.zeros((60, 90), dtype=np.uint8)
        labels[8 + i : 38 + i, 6 + i : 36 + i] = LARGE
        if i < 5:
            labels[40 - i : 50 - i, 70 - i : 80 - i] = SMALL
        return labels

    def image(self, case_id: str) -> Image:
        """Return (60, 90, 3) uint8: squares at 180 and 255 on 40."""
        grey = np.array([40, 180, 255], dtype=np.uint8)[self.labels(case_id)]
        return np.repeat(grey[..., None], 3, axis=2)


def _number(case_id: str) -> int:
    return int(case_id.removeprefix("square_"))
