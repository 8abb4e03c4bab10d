"""The units that a layout finds in the files of a data set; each is read by itself and yields slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.samples import LabelMap


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """One image with its label map, as it is written: a row of the prepared form.

    Attributes:
        case_id: unique in the data set, the same on every machine.
        image: (H, W) grey or (H, W, 3) RGB, uint8 or uint16: what the model is shown, before the protocol
            normalises it by its maximum.
        labels: (H, W) label map; 0 is background.
        subject_id: patient or volume, None if the data set does not say.
        slice_index: place in the volume from foot to head (axial), 0 first; None for a plain image.
        spacing_mm: height and width of a pixel, None if unknown.
        metadata: further facts about the case, plain values only.
    """

    case_id: str
    image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    labels: LabelMap
    subject_id: str | None = None
    slice_index: int | None = None
    spacing_mm: tuple[float, float] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Files that are read together and fail alone: a volume with its masks, or an image with its masks.

    Attributes:
        name: for messages, and unique in the data set.
        paths: every file of the tree that it is read from.
        read: yields its slices in order, those without any label of a task included. Raises `CaseError` for files
            that cannot be used. Called in a thread of its own; several units are read at once.
    """

    name: str
    paths: tuple[str, ...]
    read: Callable[[], Iterator[Slice]]
