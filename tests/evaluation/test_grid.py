"""Everything in an image: the grid, the filters and the prompt mode, by hand. Parity: test_sam_parity.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg import prompts
from promptseg.errors import ModelError
from promptseg.evaluation import grid
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob
from promptseg.registry import modes
from promptseg.results.rows import ResultRow
from promptseg.segmenter import Image, Mask, Prediction, Request
from promptseg.specs import ModelSpec, PromptMode, TaskSpec

SPEC = ModelSpec(
    name="toy", family="test", load="toy:load", licence="none", accepts=frozenset({"points", "everything"})
)
SIZE = (8, 12)
GRID = PromptMode(name="grid", needs="everything", simulate="promptseg.prompts:grid", grid=4)
Answer = Callable[[Request], Prediction]


def box(rows: slice, columns: slice) -> Mask:
    """Return a mask with one rectangle."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return mask


LEFT, RIGHT = box(slice(1, 7), slice(1, 5)), box(slice(2, 6), slice(7, 11))


def prediction(masks: Sequence[Mask], scores: Sequence[float], stability: Sequence[float]) -> Prediction:
    """Return a prediction with numbers as a model gives them."""
    return Prediction(
        np.stack(masks), np.array(scores, dtype=np.float32), stability=np.array(stability, dtype=np.float32)
    )


def kept(*answers: Prediction) -> Prediction:
    """Return what is left of some answers."""
    found = grid.GridMasks()
    for answer in answers:
        found.add(answer)
    return found.prediction(SIZE)


class Samples:
    """One image with two objects."""

    fingerprint = "toy"

    def ids(self) -> list[str]:
        """Return its id."""
        return ["a"]

    def subject(self, case_id: str) -> None:
        """Return that the patient is not known."""

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return a label map: the left object is 1, the right one 2."""
        return np.asarray(LEFT + 2 * RIGHT, dtype=np.uint8)

    def image(self, case_id: str) -> Image:
        """Return a picture."""
        return np.zeros((*SIZE, 3), dtype=np.uint8)


class Toy:
    """Answers with a function of the request; keeps the requests."""

    spec = SPEC

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.embedded = 0

    def embed(self, images: Sequence[Image]) -> list[None]:
        """Count the images."""
        self.embedded += len(images)
        return [None] * len(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each."""
        self.requests += requests
        return [self.answer(request) for request in requests]


def rows_of(model: Toy, folder: Path, *tasks: TaskSpec) -> list[ResultRow]:
    """Evaluate the grid of 4 x 4 points on each task; return its row."""
    jobs = [CellJob(task, GRID) for task in tasks]
    evaluated = evaluate(model, Samples(), jobs, order=["a"], seed=0, limit=None, batch_size=1)
    return [cases["a"][0] for cases in evaluated.cases]


def object_at(request: Request) -> Prediction:
    """Answer with the object under the point, surer and more stable on the left, and with a shaky mask of all."""
    x, y = request.prompt.points_xy[0].astype(int)
    hit = LEFT if LEFT[y, x] else RIGHT if RIGHT[y, x] else None
    masks = [np.ones(SIZE, dtype=bool), hit if hit is not None else box(slice(0, 1), slice(0, 1))]
    return prediction(masks, [0.99, 0.95 if hit is LEFT else 0.9 if hit is RIGHT else 0.5], [0.5, 0.97])


def test_the_grid_lies_in_the_middle_of_its_cells() -> None:
    """Row by row, in fractions of the image."""
    points = [prompt.points_xy.tolist() for prompt in prompts.grid((4, 8), 2)]
    assert points == [[[2, 1]], [[6, 1]], [[2, 3]], [[6, 3]]]
    assert all(prompt.labels.tolist() == [1] for prompt in prompts.grid((4, 8), 2))


def test_the_modes_have_the_grids_of_32_64_and_128_points_a_side() -> None:
    """Two to the 5th, 6th and 7th; what counts is the best-matching mask."""
    grids = {mode.name: mode.grid for mode in (modes.EVERYTHING, modes.EVERYTHING_64, modes.EVERYTHING_128)}
    assert grids == {"everything": 32, "everything_64": 64, "everything_128": 128}
    assert modes.EVERYTHING.select == "oracle"


def test_sure_and_stable_masks_are_kept() -> None:
    """Predicted IoU must be above 0.88, stability at least 0.95; an empty mask never counts."""
    empty = np.zeros(SIZE, dtype=bool)
    found = kept(
        prediction([LEFT, RIGHT], [0.88, 0.89], [0.99, 0.95]),
        prediction([LEFT, empty], [0.99, 0.99], [0.949, 0.99]),
    )
    assert np.array_equal(found.masks, RIGHT[None])
    assert found.predicted_iou is not None
    assert found.predicted_iou.tolist() == pytest.approx([0.89])


def test_of_two_boxes_that_agree_the_surer_mask_stays() -> None:
    """Suppression looks at boxes alone: a filled and a hollow mask of one box are duplicates."""
    hollow = LEFT.copy()
    hollow[3:5, 2:4] = False
    found = kept(prediction([LEFT, RIGHT, hollow], [0.9, 0.95, 0.92], [1, 1, 1]))
    assert np.array_equal(found.masks, np.stack([RIGHT, hollow]))


def test_nothing_kept_is_one_empty_mask() -> None:
    """It scores 0, and says nothing of how sure the model is."""
    found = kept(prediction([LEFT], [0.1], [1]))
    assert found.masks.shape == (1, *SIZE)
    assert not found.masks.any()
    assert found.predicted_iou is None


BOXES = st.lists(st.tuples(*[st.integers(0, 12)] * 4, st.integers(0, 4)), min_size=1, max_size=12)


@settings(deadline=None)
@given(BOXES)
def test_suppression_keeps_what_the_definition_keeps(drawn: list[tuple[int, int, int, int, int]]) -> None:
    """One after the other, by falling score and else in order: kept unless a kept box has more than 0.7 IoU with it."""
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d, _ in drawn], dtype=np.float32)
    scores = np.array([score for *_, score in drawn], dtype=np.float32)
    expected: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(_box_iou(boxes[i], boxes[j]) <= 0.7 for j in expected):
            expected.append(i)
    assert grid.suppressed(boxes, scores).tolist() == expected


def _box_iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (areas - width * height) if areas else 0.0


def test_a_case_is_scored_by_the_best_matching_mask_and_by_coverage(tmp_path: Path) -> None:
    """Two objects found exactly: each task's best mask is perfect, the first one is the surest of the image."""
    left, right = rows_of(Toy(object_at), tmp_path, TaskSpec(name="l", labels=(1,)), TaskSpec(name="r", labels=(2,)))
    assert (left.iou_first, left.iou_confident, left.iou_oracle, left.coverage) == (1, 1, 1, 1)
    assert (right.iou_first, right.iou_confident, right.iou_oracle, right.coverage) == (0, 0, 1, 1)
    assert right.predicted_iou == pytest.approx([0.95, 0.9])
    assert right.candidate_iou is None
    assert json.loads(right.prompts) == [{"grid": 4}]


def test_coverage_counts_what_any_mask_covers(tmp_path: Path) -> None:
    """Two halves of the target: the best of them has half of it, together they cover all."""
    halves = [box(slice(1, 4), slice(1, 5)), box(slice(4, 7), slice(1, 5))]
    model = Toy(lambda _: prediction(halves, [0.9, 0.9], [1, 1]))
    (row,) = rows_of(model, tmp_path, TaskSpec(name="l", labels=(1,)))
    assert (row.iou_oracle, row.coverage) == (0.5, 1.0)
    (row,) = rows_of(Toy(lambda _: prediction(halves[:1], [0.9], [1])), tmp_path, TaskSpec(name="l", labels=(1,)))
    assert (row.iou_oracle, row.coverage) == (0.5, 0.5)


def test_an_image_is_encoded_once_and_its_grid_decoded_once_for_all_targets(tmp_path: Path) -> None:
    """The grid is the same for all tasks."""
    model = Toy(object_at)
    rows_of(model, tmp_path, TaskSpec(name="l", labels=(1,)), TaskSpec(name="r", labels=(2,)))
    assert (model.embedded, len(model.requests)) == (1, 16)
    assert all(request.stability for request in model.requests)


def test_an_image_in_which_nothing_is_found_scores_zero(tmp_path: Path) -> None:
    """It is a case like any other."""
    (row,) = rows_of(Toy(lambda _: prediction([LEFT], [0.1], [1])), tmp_path, TaskSpec(name="l", labels=(1,)))
    assert (row.iou_first, row.iou_confident, row.iou_oracle, row.coverage, row.error) == (0, 0, 0, 0, None)


def test_a_model_that_does_not_say_how_stable_its_masks_are_fails_by_case(tmp_path: Path) -> None:
    """The message says what to set."""
    (row,) = rows_of(Toy(lambda _: Prediction(LEFT[None])), tmp_path, TaskSpec(name="l", labels=(1,)))
    assert row.error is not None
    assert "has no predicted_iou or no stability" in row.error
    with pytest.raises(ModelError, match=r"Request\.stability"):
        grid.GridMasks().add(Prediction(LEFT[None], np.ones(1, dtype=np.float32)))
