"""Cases as a browser draws them: a small JPEG, and masks as runs at its size, for a bounded selection of cases."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from promptseg.leaderboard.case_views import CaseView, Step
from promptseg.preparation.preview import spread
from promptseg.segmenter import Image, Mask
from promptseg.specs import SELECTS

LONGEST = 512
"""Largest number of pixels on the longer side of a picture; smaller images keep their size."""
_QUALITY = 85
_MOST_CANDIDATES = 9  # as many as have a key of their own; modes that segment everything have hundreds


class Gallery:
    """The folder of the site's images; an image that several cells show is written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], str] = {}

    def add(self, dataset: str, case_id: str, image: Image) -> str:
        """Write an image, if it is not there yet, and return its file's name."""
        if (dataset, case_id) not in self._known:
            content = _jpeg(image)
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.jpg"
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_bytes(content)
            self._known[dataset, case_id] = name
        return self._known[dataset, case_id]


def _shown_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, LONGEST / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def _jpeg(image: Image) -> bytes:
    import cv2
    from PIL import Image as Pil

    height, width = _shown_size((image.shape[0], image.shape[1]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    grey = bool((small[..., :1] == small).all())
    stream = io.BytesIO()
    Pil.fromarray(np.ascontiguousarray(small[..., 0] if grey else small)).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def runs(mask: Mask) -> str:
    """Return a mask at the size of its picture as COCO's compressed runs, column by column.

    Pixels that are at least half covered belong to it. A mask that would vanish keeps every pixel that it touches.
    """
    import cv2
    from pycocotools import mask as coco

    height, width = _shown_size((mask.shape[0], mask.shape[1]))
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    small = covered >= 0.5
    if not small.any():
        small = covered > 0
    counts: bytes = coco.encode(np.asfortranarray(small, dtype=np.uint8))["counts"]
    return counts.decode("ascii")


def select(values: Mapping[str, float], sizes: Mapping[str, float], most: int) -> list[str]:
    """Return the cases to draw, sorted: all of a small result, else the most informative ones.

    Half of them are the worst; the rest are, in equal shares, the best, cases evenly spread over the ranks of the
    values, and cases evenly spread over the sizes. Cases chosen twice leave room for more of the worst.

    Args:
        values: case to IoU, or to a difference of IoU.
        sizes: case to the size of its object.
        most: largest number of cases.
    """
    by_value = sorted(values, key=lambda case: (values[case], case))
    by_size = sorted(values, key=lambda case: (sizes[case], case))
    share = most // 6
    wanted = [*by_value[: most - 3 * share], *by_value[::-1][:share], *spread(by_value, share), *spread(by_size, share)]
    return sorted(list(dict.fromkeys([*wanted, *by_value]))[:most])


class Layer(NamedTuple):
    """A mask to draw: the name of its checkbox, the mask and its IoU."""

    name: str
    mask: Mask | None
    iou: float | None


def draw(
    view: CaseView, layers: Sequence[Sequence[Layer]], gallery: Gallery, dataset: str, known: Collection[str]
) -> dict[str, Any] | None:
    """Return what a browser needs to draw a case: sizes, the image's file, masks and prompts of every step.

    None if neither its image nor any of its masks is available.

    Args:
        view: the case.
        layers: the masks that count in each step.
        gallery: the folder for the image.
        dataset: the image's data set.
        known: problems that the page reports once for all cases.
    """
    size = _size(view)
    if size is None:
        return None
    target = view.target if view.target is not None and view.target.any() else None
    return {
        "id": view.case_id,
        "size": size,
        "shown": _shown_size(size),
        "image": None if view.image is None else gallery.add(dataset, view.case_id, view.image),
        "target": None if target is None else runs(target),
        "box": None if target is None else _box(target),
        "steps": [_step(step, masks) for step, masks in zip(view.steps, layers, strict=True)],
        "problems": [problem for problem in view.problems if problem not in known],
    }


def _box(mask: Mask) -> list[float]:
    """Return left, top, right and bottom of a mask that is not empty, as parts of the image's sides."""
    edges = []
    for axis in (0, 1):
        inside = np.flatnonzero(mask.any(axis=axis))
        edges.append((float(inside[0] / mask.shape[1 - axis]), float((inside[-1] + 1) / mask.shape[1 - axis])))
    (left, right), (top, bottom) = edges
    return [round(side, 4) for side in (left, top, right, bottom)]


def _size(view: CaseView) -> tuple[int, int] | None:
    """Return height and width of a case, None if neither its image nor any of its masks is available."""
    arrays: list[npt.NDArray[Any]] = [a for a in (view.image, view.target) if a is not None]
    arrays += [mask for step in view.steps for mask in step.candidates[:1]]
    return (int(arrays[0].shape[0]), int(arrays[0].shape[1])) if arrays else None


def _step(step: Step, layers: Sequence[Layer]) -> dict[str, Any]:
    masks = _Masks()
    candidates = step.candidates if len(step.candidates) <= _MOST_CANDIDATES else ()
    return {
        "click": step.row.click,
        "points": [
            [round(float(x), 2), round(float(y), 2), int(label)]
            for prompt in step.prompts
            for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True)
        ],
        "boxes": [[float(side) for side in p.box_xyxy] for p in step.prompts if p.box_xyxy is not None],
        "candidates": [masks.index(mask) for mask in candidates],
        "of": len(step.candidates),
        "candidate_iou": _rounded(step.choice.candidate_iou[: len(candidates)] if step.choice else ()),
        "predicted_iou": _rounded((step.row.predicted_iou or ())[: len(candidates)]),
        "layers": {layer.name: masks.index(layer.mask) for layer in layers if layer.mask is not None},
        "iou": {layer.name: round(layer.iou, 4) for layer in layers if layer.iou is not None},
        "masks": masks.runs,
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


class _Masks:
    """The different masks of a step, each once."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def index(self, mask: Mask) -> int:
        encoded = runs(mask)
        if encoded not in self.runs:
            self.runs.append(encoded)
        return self.runs.index(encoded)


def choices(step: Step) -> list[Layer]:
    """Return a step's layer for each choice of mask; without its mask where the candidates are not available."""
    row = step.row
    return [
        Layer(choice, step.choice.masks[choice] if step.choice else None, getattr(row, f"iou_{choice}"))
        for choice in SELECTS
    ]
