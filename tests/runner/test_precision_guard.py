"""The precision guard: what it asks, how it compares, and that it stops what is not float32's."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from support.project import Project
from support.script_modules import load_script
from support.tiny_sam import tiny_sam

from promptseg.errors import PrecisionError
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob
from promptseg.evaluation.metrics import iou
from promptseg.models.sam import sam
from promptseg.registry import modes
from promptseg.results.parquet import read_parquet
from promptseg.runner import precision_guard
from promptseg.runner.precision_guard import (
    Probe,
    ProbeAnswer,
    ProbeSet,
    answers,
    compare,
    guard,
    jaccard_distance,
    trial,
)
from promptseg.segmenter import Image, Prediction, Prompt, Request, Runtime
from promptseg.specs import Cell, ModelSpec, PromptMode, TaskSpec

SPEC = ModelSpec(name="toy", family="test", load="toy:load", licence="none", accepts=frozenset({"points", "boxes"}))
TASK = TaskSpec(name="thing", labels=(1,))
OTHER = TaskSpec(name="other", labels=(2,))
CELL = Cell("toy", "thing", "box_all")


class Pictures:
    """Fourteen label maps of a square (label 1), every third with a second object; two cannot be read."""

    fingerprint = "toy"

    def ids(self) -> list[str]:
        """Return all ids."""
        return [f"c{i:02}" for i in range(14)]

    def subject(self, case_id: str) -> str | None:
        """Return None."""
        return None

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map."""
        i = int(case_id[1:])
        if i == 1:
            raise OSError("the mask is cut short")
        labels = np.zeros((24, 30), np.uint8)
        labels[3 : 9 + i // 2, 4 : 12 + i] = 1
        if i % 3 == 0:
            labels[20:23, 2:8] = 2
        return labels

    def image(self, case_id: str) -> Image:
        """Return the square, bright."""
        if case_id == "c02":
            raise OSError("the file is cut short")
        return np.repeat(self.labels(case_id)[..., None] * 100, 3, axis=2).astype(np.uint8)


class Toy:
    """Answers with two candidates: the bright pixels moved by some columns, and all pixels; fails where it is told."""

    def __init__(self, shift: int = 0, fails: Sequence[int] = (), together: int = 99) -> None:
        self.spec = SPEC
        self.shift = shift
        self.fails = fails
        self.together = together

    def embed(self, images: Sequence[Image]) -> list[Image]:
        """Return the images; refuse too many at once."""
        if len(images) > self.together:
            raise MemoryError("too many images")
        return list(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each."""
        return [self._answer(request.embedding) for request in requests]

    def _answer(self, image: Image) -> Prediction:
        bright = image[..., 0] == 100
        if np.count_nonzero(bright) in self.fails:
            raise RuntimeError("out of patience")
        masks = np.stack([np.roll(bright, self.shift, axis=1), np.ones_like(bright)])
        return Prediction(masks, np.array([0.9, 0.1], np.float32))


def cells_of(*prompt_modes: PromptMode, tasks: Sequence[TaskSpec] = (TASK,)) -> dict[Cell, tuple[TaskSpec, PromptMode]]:
    """Return the product of tasks and modes."""
    return {Cell("toy", task.name, mode.name): (task, mode) for task in tasks for mode in prompt_modes}


def asked(*prompt_modes: PromptMode, tasks: Sequence[TaskSpec] = (TASK,)) -> ProbeSet:
    """Return the questions on the pictures."""
    return trial(Pictures(), Pictures().ids(), cells_of(*prompt_modes, tasks=tasks), seed=3)


# ---------------------------------------------------------------------------------------------- the distance


def test_distance_of_masks() -> None:
    """By hand: two of three pixels differ; equal and both empty are 0; one empty is 1. As 1 - IoU for random masks."""
    pack = np.packbits
    assert jaccard_distance(pack([1, 1, 0, 0]), pack([0, 1, 1, 0])) == pytest.approx(2 / 3)
    assert jaccard_distance(pack([1, 0, 1]), pack([1, 0, 1])) == 0
    assert jaccard_distance(pack([0, 0, 0]), pack([0, 0, 0])) == 0
    assert jaccard_distance(pack([0, 0, 0]), pack([0, 1, 0])) == 1
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 33, 17)) > 0.4
    assert jaccard_distance(pack(a), pack(b)) == pytest.approx(1 - iou(a, b))


def test_the_distance_bounds_what_any_score_can_move_by() -> None:
    """|IoU(a, t) - IoU(b, t)| is never more than the distance of a and b, for random masks and targets."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        a, b, target = (rng.random((12, 12)) > rng.random() for _ in range(3))
        if target.any():
            moved = abs(iou(a, target) - iou(b, target))
            assert moved <= jaccard_distance(np.packbits(a), np.packbits(b)) + 1e-12


# ---------------------------------------------------------------------------------------------- the questions


def test_prompts_are_those_of_the_evaluation(tmp_path: Path) -> None:
    """For each static mode the prompts of its rows, for each mode of clicks those of its first click."""
    chosen = (modes.POINT_EACH, modes.BOX_EACH, modes.BOX_ALL, modes.CLICKS_ORACLE, modes.NOC)
    jobs = [CellJob(TASK, mode) for mode in chosen]
    evaluated = evaluate(Toy(), Pictures(), jobs, order=Pictures().ids(), seed=3, limit=None, batch_size=2)
    cases = dict(zip([mode.name for mode in chosen], evaluated.cases, strict=True))
    questions = asked(*chosen).questions
    assert len(questions) == 8 * len(chosen)
    for question in questions:
        row = cases[question.cell.mode][question.case_id][0]
        ours = [(p.points_xy.tolist(), None if p.box_xyxy is None else p.box_xyxy.tolist()) for p in question.prompts]
        assert ours == [(p["points_xy"], p["box_xyxy"]) for p in json.loads(row.prompts)]


def test_the_first_cases_of_every_task_are_asked() -> None:
    """Eight of each, or all there are, in the seeded order; those that cannot be read are passed over."""
    found = asked(modes.BOX_ALL, tasks=(TASK, OTHER))
    by_task = {name: [q.case_id for q in found.questions if q.cell.task == name] for name in ("thing", "other")}
    assert by_task["thing"] == ["c00", "c03", "c04", "c05", "c06", "c07", "c08", "c09"]
    assert by_task["other"] == ["c00", "c03", "c06", "c09", "c12"]
    assert set(found.images) == {*by_task["thing"], *by_task["other"]}


def test_a_grid_is_asked_as_a_point() -> None:
    """Its 1024 prompts are filtered by thresholds; one point on the object tells the same of precision."""
    (question, *_) = asked(modes.EVERYTHING).questions
    (prompt,) = question.prompts
    (x, y) = prompt.points_xy[0].astype(int)
    assert question.target[y, x]


def test_a_mode_that_fails_is_left_to_the_evaluation() -> None:
    """Nothing is asked in a mode whose simulation raises, and no other is lost."""
    broken = PromptMode(name="broken", needs="points", simulate="test_precision:nowhere")
    assert {q.cell.mode for q in asked(broken, modes.BOX_ALL).questions} == {"box_all"}


# ---------------------------------------------------------------------------------------------- answers, comparison


def test_the_same_model_agrees_with_itself() -> None:
    """Whatever is encoded together; distances are 0, IoUs equal, the bound holds."""
    found = asked(modes.BOX_ALL, modes.POINT_EACH)
    agreements = compare(found, answers(Toy(), found, 8), answers(Toy(together=1), found, 8), bound=0.0)
    assert set(agreements) == set(cells_of(modes.BOX_ALL, modes.POINT_EACH))
    for agreement in agreements.values():
        assert (agreement.n, agreement.holds) == (8, True)
        assert agreement.disagreement == {"first": 0.0, "confident": 0.0, "oracle": 0.0}
        assert agreement.iou["first"] == (1.0, 1.0)


def test_a_moved_mask_by_hand() -> None:
    """A square of six columns moved by two: 4 of 8 columns are common, so the distance and the IoU are a half."""
    target = np.zeros((10, 20), bool)
    target[2:6, 5:11] = True
    image = np.repeat(target[..., None] * 100, 3, axis=2).astype(np.uint8)
    found = ProbeSet([Probe(CELL, "a", target, (Prompt(),))], {"a": image})
    (agreement,) = compare(found, answers(Toy(), found, 1), answers(Toy(shift=2), found, 1), bound=0.5).values()
    assert agreement.disagreement["first"] == pytest.approx(0.5)
    assert list(agreement.iou["first"]) == pytest.approx([1.0, 0.5])
    assert agreement.holds
    assert not compare(found, answers(Toy(), found, 1), answers(Toy(shift=3), found, 1), bound=0.5)[CELL].holds


def test_a_case_on_which_only_the_fast_model_fails_counts_as_all_wrong() -> None:
    """And one on which both fail is left to the evaluation."""
    found = asked(modes.BOX_ALL)
    areas = [int(question.target.sum()) for question in found.questions]
    reference, fast = answers(Toy(fails=areas[:1]), found, 4), answers(Toy(fails=areas[:2]), found, 4)
    (agreement,) = compare(found, reference, fast, bound=0.1).values()
    assert agreement.n == 7
    assert agreement.disagreement["confident"] == pytest.approx(1 / 7)
    assert agreement.worst[0].problem == "RuntimeError: out of patience"
    assert "'c03' failed (RuntimeError: out of patience)" in precision_guard.evidence(CELL, agreement)


# ---------------------------------------------------------------------------------------------- the guard


@pytest.fixture(autouse=True)
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


def guarded(calls: list[str], fast: Toy, reference: Toy | None = None, bound: float = 0.01) -> Any:
    """Guard one cell; note who was asked."""

    def by(name: str, model: Toy) -> Any:
        def answer(trial: ProbeSet) -> list[ProbeAnswer | Exception]:
            calls.append(name)
            return answers(model, trial, 4)

        return answer

    cells = cells_of(modes.BOX_ALL)
    return guard(
        cells,
        lambda cells: trial(Pictures(), Pictures().ids(), cells, seed=0),
        by("reference", reference or Toy()),
        by("fast", fast),
        keys=dict.fromkeys(cells, "ab" * 32),
        what="toy on pictures with bfloat16",
        bound=bound,
    )


def test_what_agreed_is_not_computed_again() -> None:
    """The reference is asked first, then the fast model, the second time nobody; a tighter bound is a new question."""
    calls: list[str] = []
    first = guarded(calls, Toy(shift=1), bound=0.5)
    assert calls == ["reference", "fast"]
    assert json.loads(json.dumps(guarded(calls, Toy(shift=1), bound=0.5)[CELL])) == json.loads(json.dumps(first[CELL]))
    assert len(calls) == 2
    with pytest.raises(PrecisionError):
        guarded(calls, Toy(shift=1), bound=0.01)
    assert len(calls) == 4


def test_what_disagrees_is_stopped_with_the_evidence() -> None:
    """The error has the cell, both mean IoUs, the bound, the worst cases with theirs, and what to do."""
    with pytest.raises(PrecisionError) as caught:
        guarded([], Toy(shift=9))
    text = str(caught.value)
    assert text.startswith("toy on pictures with bfloat16: not the masks of float32, so nothing was scored.")
    assert "thing, box_all: masks (first) differ by 0." in text
    assert "over 8 cases, allowed 0.01; mean IoU 1.0000 in float32, 0." in text
    assert "Worst: 'c00' 1.000 (IoU 1.000 in float32, 0.000 fast)" in text
    assert text.endswith("or evaluate with --seg-dtype float32.")


def test_a_reference_that_fails_is_no_agreement() -> None:
    """Without any answer in float32 nothing may be scored."""
    areas = [int(question.target.sum()) for question in asked(modes.BOX_ALL).questions]
    with pytest.raises(PrecisionError, match=r"float32 has no answer to compare with; 'c00': RuntimeError"):
        guarded([], Toy(), reference=Toy(fails=areas))


def test_a_damaged_memory_is_no_agreement(tmp_path: Path) -> None:
    """A file of the guard that is cut short is written again."""
    calls: list[str] = []
    guarded(calls, Toy())
    (path,) = (tmp_path / "cache" / "precision").glob("*.json")
    path.write_text(path.read_text()[:20])
    guarded(calls, Toy())
    assert len(calls) == 4
    path.write_text('{"disagreement": []}')
    guarded(calls, Toy())
    assert len(calls) == 6


# ---------------------------------------------------------------------------------------------- whole runs

HALF = """
import numpy as np
from adapters import Bright, note
from promptseg import Prediction

class Half(Bright):
    def __init__(self, spec, files, runtime):
        super().__init__(spec, files, runtime)
        note(call="load", dtype=runtime.dtype, fast=sorted(runtime.fast))
        self.garbage = runtime.dtype == "bfloat16" and spec.options.get("garbage", False)

    def answer(self, image, prompt):
        prediction = super().answer(image, prompt)
        return Prediction(~prediction.masks, prediction.predicted_iou) if self.garbage else prediction

def load(spec, files, runtime):
    return Half(spec, files, runtime)
"""


@pytest.fixture
def half(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with a model that is right in bfloat16, and one that is right in float32 alone."""
    project.pytester.makepyfile(half=HALF)
    project.configure(
        '[models.good]\nadapter = "half:load"\n',
        '[models.bad]\nadapter = "half:load"\noptions = {garbage = true}\n',
    )
    return project


RUN = ("--seg-tasks", "squares", "--seg-modes", "box_all,clicks_first")


def test_a_broken_fast_path_is_stopped(half: Project) -> None:
    """In bfloat16 its cells fail with case, mode and IoUs and nothing is stored; in float32 it is scored."""
    result = half.run("--seg-models", "bad", *RUN, "--seg-dtype", "bfloat16", code=1)
    text = result.stdout.str()
    assert "bad on squares with bfloat16: not the masks of float32" in text
    assert "2 of 2 cells are beyond the bound" in text
    assert "squares, clicks_first: masks (" in text
    assert "differ by 1.0000 on average over 8 cases, allowed 0.01" in text
    assert "'case_0" in text
    assert not list(half.pytester.path.glob("leaderboard/results/bad/**/*.parquet"))
    half.run("--seg-models", "bad", *RUN, code=0)


def test_a_result_carries_what_the_guard_found(half: Project) -> None:
    """Numbers in the provenance of each cell, another fingerprint than float32's, and no second guard for a rerun."""
    half.run("--seg-models", "good", *RUN, "--seg-dtype", "bfloat16", "--seg-fast", "sdpa", code=0)
    loads = [(call["dtype"], call["fast"]) for call in half.calls("load")]
    assert loads == [("bfloat16", ["sdpa"]), ("float32", []), ("bfloat16", ["sdpa"])]  # the first, to see if it can
    path = half.pytester.path / "leaderboard/results/good/squares/box_all.parquet"
    result = read_parquet(path)
    assert result.provenance.fast == ("sdpa",)
    found = result.provenance.precision
    assert found is not None
    assert (found["n"], found["bound"]) == (8, 0.01)
    assert found["disagreement"] == {"first": 0.0, "confident": 0.0, "oracle": 0.0}
    assert found["iou"]["first"][0] == found["iou"]["first"][1]
    half.run("--seg-models", "good", *RUN, "--seg-dtype", "bfloat16", "--seg-fast", "sdpa", "--seg-rerun", code=0)
    assert [(call["dtype"], call["fast"]) for call in half.calls("load")] == [("bfloat16", ["sdpa"])]
    half.run("--seg-models", "good", *RUN, code=0)
    plain = read_parquet(path)
    assert plain.fingerprint != result.fingerprint
    assert plain.provenance.precision is None


# ---------------------------------------------------------------------------------------------- real networks


def test_bfloat16_of_a_network_is_measured() -> None:
    """A SAM of random weights under autocast on the CPU: near float32 but not it, so the bound decides."""
    model, found = tiny_sam(), asked(modes.POINT_EACH, modes.BOX_ALL)

    def by(dtype: str) -> list[ProbeAnswer | Exception]:
        return answers(sam.wrap(sam.SAM_VIT_B, copy.deepcopy(model), Runtime(dtype=dtype)), found, 2)

    reference, reduced = by("float32"), by("bfloat16")
    for cell, agreement in compare(found, reference, reduced, bound=0.1).items():
        distance = max(agreement.disagreement.values())
        assert 0 < distance < 0.1
        assert agreement.holds
        tight = compare(found, reference, reduced, bound=distance / 2)[cell]
        assert not tight.holds
        assert f"allowed {distance / 2:g}" in precision_guard.evidence(cell, tight)
        for select, (expected, fast) in agreement.iou.items():
            assert abs(fast - expected) <= agreement.disagreement[select]


class Packing(Toy):
    """Keeps its image as numbers, and finds bright what is above a half of them."""

    def embed(self, images: Sequence[Image]) -> list[Image]:
        """Return the images with 100 where they are brightest."""
        return [np.asarray((image == 255) * 100, dtype=np.uint8) for image in images]

    def pack_embedding(self, embedding: Image) -> dict[str, npt.NDArray[Any]]:
        """Return the image."""
        return {"map_0": embedding.astype(np.float32)}

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Image:
        """Return 100 where the noise has not won."""
        return np.asarray((arrays["map_0"] > 50) * 100, dtype=np.uint8)


def test_the_script_that_measures_rounding(tmp_path: Path) -> None:
    """100 is exact in bfloat16: no distance; noise as large as the spread of the image is one."""
    for kind in ("images", "masks"):
        (tmp_path / "squares" / kind).mkdir(parents=True)
    for i in range(3):
        mask = np.zeros((24, 30), np.uint8)
        mask[4:12, 5 : 12 + i] = 100
        PilImage.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(tmp_path / "squares/images" / f"{i}.png")
        PilImage.fromarray(mask // 100).save(tmp_path / "squares/masks" / f"{i}.png")
    table = load_script("measure_guard").measure(Packing(), [tmp_path / "squares"], [0.0, 1.0])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["bfloat16"] * 5 + ["noise 1"] * 5
    assert {row[2] for row in rows} == {"3"}
    assert all(float(value) == 0 for row in rows[:5] for value in row[3:])
    assert all(float(row[3]) > 0.1 for row in rows[5:])
