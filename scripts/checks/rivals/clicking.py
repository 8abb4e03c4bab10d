"""Images, and how their loop and ours click on them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.data.images import read_image, read_labels
from promptseg.evaluation.metrics import iou
from promptseg.prompts import ritm_click
from promptseg.segmenter import Mask, Prompt, Request
from rivals.repository import theirs

UNUSED = np.random.default_rng(0)  # prompt modes are handed one; this rule draws nothing


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and what is to be found in it.

    Attributes:
        name: of the set and the file.
        image: (H, W, 3) uint8.
        target: (H, W) bool.
    """

    name: str
    image: npt.NDArray[np.uint8]
    target: Mask

    @property
    def set_name(self) -> str:
        """Name of the set."""
        return self.name.partition("/")[0]


def read_samples(data: Path, per_set: int, sets: Sequence[str]) -> Iterator[Sample]:
    """Yield the first images, by name, of each set that has ``images`` and ``masks``; all labels are the object."""
    for folder in sorted(path.parent for path in data.glob("*/images")):
        if not sets or folder.name in sets:
            yield from itertools.islice(_pairs(folder), per_set)


def _pairs(folder: Path) -> Iterator[Sample]:
    for path in sorted((folder / "images").iterdir()):
        mask = folder / "masks" / path.name
        if mask.is_file() and (target := read_labels(mask, mask.name) > 0).any():
            yield Sample(f"{folder.name}/{path.name}", read_image(path, path.name), target)


Clicks = list[tuple[int, int, bool]]
"""(row, column, positive), in their order."""


@dataclass(frozen=True, eq=False)
class Run:
    """One image clicked to the end: clicks, the probabilities and IoU after each, the processor's seconds."""

    clicks: Clicks
    maps: list[npt.NDArray[np.float32]]
    ious: list[float]
    seconds: float


def run_theirs(predictor: Any, sample: Sample, count: int, **more: Any) -> Run:
    """Evaluate an image by their loop; ``more`` are arguments of it."""
    evaluate = theirs("inference.evaluation", "evaluate_sample")
    maps: list[npt.NDArray[np.float32]] = []
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # some of them print as they go
        clicks, ious, _ = evaluate(
            image=sample.image,
            gt_mask=sample.target.astype(np.int32),
            predictor=predictor,
            max_iou_thr=1.01,  # never reached: every run has all its clicks
            max_clicks=count,
            callback=lambda *given: maps.append(given[2]),
            **more,
        )
    seconds = time.process_time() - began
    taken = [(int(c.coords[0]), int(c.coords[1]), bool(c.is_positive)) for c in clicks]
    return Run(taken, maps, [float(value) for value in ious], seconds)


def run_ours(model: Any, sample: Sample, count: int, given: Clicks | None = None, begin: Mask | None = None) -> Run:
    """Evaluate an image by our model, with its own clicks or given ones; it may begin with a mask."""
    run, prompt = Run([], [], [], 0.0), Prompt()
    mask, state = (np.zeros_like(sample.target), None) if begin is None else (begin, model.start(begin))
    began = time.process_time()
    (embedding,) = model.embed([sample.image])
    for step in range(count):
        prompt = as_prompt(given[: step + 1]) if given else ritm_click(sample.target, mask, prompt, UNUSED)
        prediction = model.predict([Request(embedding, prompt, state)])[0]
        mask, state = prediction.masks[0], prediction.state
        run.maps.append(state.probabilities[0, 0].cpu().numpy())
        run.ious.append(iou(mask, sample.target))
    seconds = time.process_time() - began
    return dataclasses.replace(run, clicks=as_clicks(prompt), seconds=seconds)


def as_prompt(clicks: Clicks) -> Prompt:
    """Return clicks as points in x and y."""
    points = np.array([(column, row) for row, column, _ in clicks], dtype=np.float32)
    return Prompt(points_xy=points, labels=np.array([int(positive) for *_, positive in clicks]))


def as_clicks(prompt: Prompt) -> Clicks:
    """Return points in x and y as clicks."""
    pairs = zip(prompt.points_xy, prompt.labels, strict=True)
    return [(int(row), int(column), bool(label)) for (column, row), label in pairs]


def clicker(clicks: Clicks) -> Any:
    """Return their clicker with these clicks, NumPy's integers as in their loop: with Python's, torch rounds more."""
    click = theirs("inference.clicker", "Click")
    given = [click(is_positive=good, coords=(np.int64(row), np.int64(column))) for row, column, good in clicks]
    return theirs("inference.clicker", "Clicker")(init_clicks=given)
