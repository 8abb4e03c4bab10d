"""Check that the prompt mode noc clicks, scores and counts as RITM's own evaluation does, on masks of real objects.

    git clone https://github.com/SamsungLabs/ritm_interactive_segmentation
    python scripts/checks/check_ritm_clicks.py ritm_interactive_segmentation FOLDER [FOLDER ...]

Each FOLDER is a data set of images/ and masks/; the target is everything that is not background. Two models answer the
clicks of both: what they answer does not matter, as long as it leaves errors to click on. One is region_growing, the
other is shown the target and repairs its guess round every click, so that it reaches any IoU after a while. RITM's
``evaluate_sample``, ``Clicker`` and ``compute_noc_metric`` are run as they are in the clone, up to an IoU of 0.9,
where RITM ends a case. Prints what was compared and exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt

from promptseg.datasets_registry import folder
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob
from promptseg.models.classical import region_growing
from promptseg.registry import modes
from promptseg.results.rows import ResultRow
from promptseg.samples import Samples
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Runtime, Segmenter
from promptseg.specs import DatasetSpec, ModelSpec, Origin, TaskSpec
from promptseg.verdicts.summary import NOC_IOUS, summarise

CLICKS = modes.NOC.steps
DATA_SETS = ("GrabCutDataset", "BerkeleyDataset", "DavisDataset", "SBDEvaluationDataset", "PascalVocDataset")


class Ritm(NamedTuple):
    """What is taken from the clone."""

    evaluate_sample: Any
    compute_noc_metric: Any


def load_ritm(clone: Path) -> Ritm:
    """Import RITM's evaluation; its data sets and models, which it imports too, are left empty."""
    sys.path.insert(0, str(clone))
    for name, attributes in {"isegm.data.datasets": DATA_SETS, "isegm.utils.serialization": ("load_model",)}.items():
        stub = ModuleType(name)
        for attribute in attributes:
            setattr(stub, attribute, None)
        sys.modules[name] = stub
    utils = importlib.import_module("isegm.inference.utils")
    return Ritm(importlib.import_module("isegm.inference.evaluation").evaluate_sample, utils.compute_noc_metric)


class Repair:
    """Takes bright pixels for the object, and what is near a click for what it is."""

    spec = ModelSpec(
        name="repair", family="test", load="none:none", licence="-", accepts=frozenset({"points"}), sees_target=True
    )

    def embed(self, images: Sequence[Image]) -> list[Mask]:
        """Return the bright pixels."""
        return [image[..., 0] > image[..., 0].mean() for image in images]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Return the guess with a disc repaired round each click; its radius is a twelfth of the diagonal."""
        return [Prediction(self._repaired(request)[None]) for request in requests]

    def _repaired(self, request: Request) -> Mask:
        guess: Mask = request.embedding
        near = np.zeros(guess.shape, dtype=np.uint8)
        for x, y in request.prompt.points_xy.astype(int).tolist():
            cv2.circle(near, (x, y), round(np.hypot(*guess.shape) / 12), 1, thickness=-1)
        return np.where(near > 0, np.asarray(request.target), guess)


class Predictor:
    """A promptseg model as RITM's evaluation calls one."""

    def __init__(self, model: Segmenter, target: Mask) -> None:
        self._model = model
        self._target = target if model.spec.sees_target else None

    def set_input_image(self, image: Image) -> None:
        """Encode the image."""
        self._embedding = self._model.embed([image])[0]

    def get_prediction(self, clicker: Any) -> npt.NDArray[np.float32]:
        """Return the first candidate as (H, W) probabilities of 0 and 1."""
        clicks = clicker.get_clicks()
        points_xy = np.array([click.coords[::-1] for click in clicks], dtype=np.float32)
        labels = np.array([int(click.is_positive) for click in clicks])
        request = Request(self._embedding, Prompt(points_xy, labels), target=self._target)
        (prediction,) = self._model.predict([request])
        probabilities: npt.NDArray[np.float32] = prediction.masks[0].astype(np.float32)
        return probabilities


class Curve(NamedTuple):
    """One case: (x, y, label) of each click and the IoU after it."""

    clicks: list[tuple[int, int, int]]
    ious: list[float]


def ours(model: Segmenter, samples: Samples, case_ids: Sequence[str]) -> dict[str, tuple[ResultRow, ...]]:
    """Return the rows of the mode noc."""
    job = CellJob(TaskSpec(name="target"), modes.NOC)
    evaluated = evaluate(model, samples, [job], order=case_ids, seed=0, limit=None, batch_size=1)
    return {case_id: rows for case_id, rows in evaluated.cases[0].items() if rows}


def curve_of(rows: Sequence[ResultRow]) -> Curve:
    """Return what rows say; clicks that could not be given are not in it."""
    prompt = json.loads(rows[-1].prompts)[0]
    clicks = [(int(x), int(y), label) for (x, y), label in zip(prompt["points_xy"], prompt["labels"], strict=True)]
    return Curve(clicks, [row.iou_first or 0.0 for row in rows[: len(clicks)]])


def theirs(ritm: Ritm, model: Segmenter, image: Image, target: Mask) -> Curve:
    """Return what RITM's evaluation does up to an IoU of 0.9."""
    found, ious, _ = ritm.evaluate_sample(
        image, target.astype(np.int32), Predictor(model, target), max_iou_thr=max(NOC_IOUS), max_clicks=CLICKS
    )
    return Curve([(int(c.coords[1]), int(c.coords[0]), int(c.is_positive)) for c in found], [float(i) for i in ious])


def difference(mine: Curve, ritm: Curve) -> str:
    """Return where two curves part, empty if they do not; the shorter one ends the comparison."""
    n = min(len(mine.clicks), len(ritm.clicks))
    for i in range(n):
        if mine.clicks[i] != ritm.clicks[i]:
            return f"click {i + 1} is {mine.clicks[i]}, RITM's {ritm.clicks[i]}"
        if abs(mine.ious[i] - ritm.ious[i]) > 1e-6:  # RITM keeps float32
            return f"IoU after click {i + 1} is {mine.ious[i]:.6f}, RITM's {ritm.ious[i]:.6f}"
    return ""


def noc_difference(ritm: Ritm, rows: Sequence[ResultRow], curves: Sequence[Curve]) -> str:
    """Compare the number of clicks, with failures counted as RITM counts them: as 20."""
    with mock.patch.object(np, "int", int, create=True):  # the name that NumPy 1.24 removed
        means, _ = ritm.compute_noc_metric([np.array(c.ious) for c in curves], NOC_IOUS, CLICKS)
    noc = summarise(rows, "first").noc or {}
    for name, expected in zip(noc, means, strict=True):
        counted = noc[name]
        reached = counted.clicks * counted.n_reached if counted.n_reached else 0.0
        found = (reached + CLICKS * counted.n_failures) / (counted.n_reached + counted.n_failures)
        if abs(found - expected) > 1e-9:
            return f"{name} with failures as {CLICKS} is {found}, RITM's {expected}"
    return ""


def check(ritm: Ritm, model: Segmenter, samples: Samples, limit: int | None) -> list[str]:
    """Compare on one data set; print a line and return the differences."""
    case_ids = list(samples.ids())[:limit]
    found = ours(model, samples, case_ids)
    both = [
        (case_id, curve_of(rows), theirs(ritm, model, samples.image(case_id), samples.labels(case_id) > 0))
        for case_id, rows in found.items()
    ]
    problems = [f"{case_id}: {problem}" for case_id, a, b in both if (problem := difference(a, b))]
    ended = [case_id for case_id, a, b in both if len(a.clicks) < len(b.clicks)]
    kept = [(case_id, b) for case_id, _, b in both if case_id not in ended]
    if kept:
        rows = [row for case_id, _ in kept for row in found[case_id]]
        problems += filter(None, [noc_difference(ritm, rows, [b for _, b in kept])])
    clicks = sum(min(len(a.clicks), len(b.clicks)) for _, a, b in both)
    print(f"{len(both)} cases, {clicks} clicks, {len(ended)} cases without a pixel left, {len(problems)} differences")
    return problems


def _samples(path: Path) -> Samples:
    origin = Origin(host="local", repo=str(path))
    task = TaskSpec(name="target")
    spec = DatasetSpec(name="data", modality="any", load="folder:load", tasks=(task,), licence="-", origin=origin)
    return folder.load(spec, path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("clone", type=Path, help="clone of ritm_interactive_segmentation")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of images/ and masks/")
    parser.add_argument("--limit", type=int, help="cases of each folder")
    return parser.parse_args()


def main() -> int:
    """Compare on every folder with every model."""
    arguments = _arguments()
    ritm, problems = load_ritm(arguments.clone), []
    for model in (Repair(), region_growing.load(region_growing.SPEC, {}, Runtime())):
        for path in arguments.folders:
            print(f"{model.spec.name} on {path.name}: ", end="", flush=True)
            problems += check(ritm, model, _samples(path), arguments.limit)
    print(*problems[:20], sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
