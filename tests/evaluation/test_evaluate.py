"""The evaluation loop on pictures of a few pixels, with models that a reader can follow."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch

from promptseg.errors import CaseError, ResultsError
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import Cases, CellJob, seeded_order
from promptseg.registry import modes
from promptseg.results.journal import Journal
from promptseg.results.masks import SavedMask
from promptseg.results.rows import ResultRow
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request
from promptseg.specs import ModelSpec, PromptMode, TaskSpec

SPEC = ModelSpec(
    name="toy", family="test", load="toy:load", licence="none", accepts=frozenset({"points", "boxes"}), embedded=True
)
SIZE = (8, 10)


class Pictures:
    """Samples in memory: a label map for each case; an image's red pixel tells which case it is."""

    fingerprint = "toy"

    def __init__(self, labels: dict[str, npt.NDArray[np.uint8]], broken: Sequence[str] = ()) -> None:
        self._labels = labels
        self._broken = broken

    def ids(self) -> list[str]:
        """Return all ids."""
        return sorted(self._labels)

    def subject(self, case_id: str) -> str | None:
        """Return the part before the underscore."""
        return case_id.split("_")[0]

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map."""
        return self._labels[case_id]

    def image(self, case_id: str) -> Image:
        """Return a picture that tells its index, or fail."""
        if case_id in self._broken:
            raise CaseError(case_id, "the file is cut short")
        return np.full((*SIZE, 3), self.ids().index(case_id), dtype=np.uint8)


class Toy:
    """Answers with a function of the request; keeps all requests."""

    def __init__(self, answer: Callable[[Request], Prediction], spec: ModelSpec = SPEC) -> None:
        self.spec = spec
        self.answer = answer
        self.embedded: list[int] = []
        self.requests: list[Request] = []

    def embed(self, images: Sequence[Image]) -> list[int]:
        """Return the index that each picture tells."""
        self.embedded += [int(image[0, 0, 0]) for image in images]
        return [int(image[0, 0, 0]) for image in images]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each."""
        self.requests += requests
        return [self.answer(r) for r in requests]


def box(rows: slice, columns: slice) -> Mask:
    """Return a mask with one rectangle."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[rows, columns] = True
    return mask


def target(*rectangles: tuple[slice, slice]) -> npt.NDArray[np.uint8]:
    """Return a label map with label 1 in the rectangles."""
    return np.asarray(np.logical_or.reduce([box(*r) for r in rectangles]), dtype=np.uint8)


SQUARE = target((slice(2, 5), slice(3, 6)))
PARTS = target((slice(0, 2), slice(0, 4)), (slice(5, 8), slice(6, 10)))


def fixed(*masks: Mask, scores: Sequence[float] | None = None) -> Callable[[Request], Prediction]:
    """Return a model that always gives these candidates."""
    predicted = None if scores is None else np.array(scores, dtype=np.float32)
    return lambda _: Prediction(np.stack(masks), predicted)


class Done(NamedTuple):
    """A mode, and its finished cases."""

    mode: PromptMode
    cases: Cases


def run(model: Any, samples: Pictures, *prompt_modes: PromptMode, folder: Path, **options: Any) -> list[Done]:
    """Evaluate one task (label 1) in some modes, with a journal for each in ``folder``."""
    jobs = [CellJob(TaskSpec(name="thing", labels=(1,)), mode) for mode in prompt_modes]
    journals = {job: Journal(folder / f"{job.mode.name}.journal") for job in jobs}
    defaults = {"order": samples.ids(), "seed": 0, "limit": None, "batch_size": 2}

    def keep(job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]) -> None:
        journals[job].append(case_id, rows)

    evaluated = evaluate(model, samples, jobs, keep, **{**defaults, **options})
    return [Done(job.mode, cases) for job, cases in zip(jobs, evaluated.cases, strict=True)]


def test_box_each_unites_first_and_oracle_by_index_and_confident_by_box(tmp_path: Path) -> None:
    """Two parts; candidate 0 is half of the box, candidate 1 all of it, confidence differs between the boxes."""
    parts = ((slice(0, 2), slice(0, 4)), (slice(5, 8), slice(6, 10)))

    def answer(request: Request) -> Prediction:
        x0, y0, x1, y1 = (int(v) for v in request.prompt.box_xyxy) if request.prompt.box_xyxy is not None else (0,) * 4
        whole, half = box(slice(y0, y1 + 1), slice(x0, x1 + 1)), box(slice(y0, y1 + 1), slice(x0, (x0 + x1 + 1) // 2))
        scores = [0.9, 0.2] if x0 == 0 else [0.1, 0.8]
        return Prediction(np.stack([half, whole]), np.array(scores, dtype=np.float32))

    (job,) = run(Toy(answer), Pictures({"a_1": target(*parts)}), modes.BOX_EACH, folder=tmp_path)
    (row,) = job.cases["a_1"]
    # 8 and 12 pixels; halves are 4 and 6; confident takes the half of the first and the whole of the second.
    assert (row.iou_first, row.iou_confident, row.iou_oracle) == (10 / 20, 16 / 20, 1.0)
    assert row.predicted_iou == pytest.approx([0.5, 0.5])
    assert (row.n_components, row.area_fraction, row.subject_id) == (2, 20 / 80, "a")
    assert [p["box_xyxy"] for p in json.loads(row.prompts)] == [[6, 5, 9, 7], [0, 0, 3, 1]]


def test_clicks_follow_their_guide_and_are_given_together(tmp_path: Path) -> None:
    """Candidate 0 misses the target, candidate 1 covers all: the guides differ in where they click next."""
    miss, everything = box(slice(7, 8), slice(9, 10)), np.ones(SIZE, dtype=bool)
    model = Toy(fixed(miss, everything, scores=[0.1, 0.9]))
    first, confident = run(
        model, Pictures({"a_1": SQUARE}), modes.CLICKS_FIRST, modes.CLICKS_CONFIDENT, folder=tmp_path
    )
    by_first = json.loads(first.cases["a_1"][8].prompts)[0]
    by_confident = json.loads(confident.cases["a_1"][8].prompts)[0]
    assert len(first.cases["a_1"]) == 9
    assert [row.click for row in first.cases["a_1"]] == list(range(1, 10))
    assert by_first["points_xy"][0] == by_confident["points_xy"][0] == [4.0, 3.0]  # the centre of the square
    assert by_first["labels"] == [1] * 9  # the target stays missed
    assert by_confident["labels"] == [1] + [0] * 8  # everything outside of it is wrong
    assert [len(json.loads(row.prompts)[0]["labels"]) for row in first.cases["a_1"]] == list(range(1, 10))


def test_without_an_error_left_the_last_answer_stands(tmp_path: Path) -> None:
    """A perfect first answer is not asked for again, and counts for all nine clicks."""
    model = Toy(fixed(SQUARE > 0))
    (job,) = run(model, Pictures({"a_1": SQUARE}), modes.CLICKS_ORACLE, folder=tmp_path)
    assert len(model.requests) == 1
    assert [row.iou_oracle for row in job.cases["a_1"]] == [1.0] * 9


FED_BACK = dataclasses.replace(SPEC, accepts=frozenset({"points", "feedback"}))


def remembering(request: Request) -> Prediction:
    """Candidate 0 misses, candidate 1 covers all and is the confident one."""
    masks = np.stack([box(slice(7, 8), slice(9, 10)), np.ones(SIZE, dtype=bool)])
    return Prediction(masks, np.array([0.1, 0.9], dtype=np.float32), State(len(request.prompt.labels)))


@dataclasses.dataclass(eq=False)
class State:
    """What a prediction leaves for the next one: after how many clicks it was made."""

    clicks: int


def test_clicks_hand_back_the_state_and_the_candidate_of_the_guide(tmp_path: Path) -> None:
    """Nothing at first; then the state of the answer before, with the index of the mask that guided the click."""
    for mode, candidate in ((modes.CLICKS_FIRST, 0), (modes.CLICKS_CONFIDENT, 1)):
        model = Toy(remembering, FED_BACK)
        run(model, Pictures({"a_1": SQUARE}), mode, folder=tmp_path / mode.name)
        handed = [(r.state.clicks if r.state else 0, r.candidate) for r in model.requests]
        assert handed == [(0, 0), *((click, candidate) for click in range(1, 9))]


def test_no_state_is_handed_to_a_model_that_does_not_accept_it(tmp_path: Path) -> None:
    """Without feedback in the spec the protocol stays what it says: no mask is fed back."""
    model = Toy(remembering)
    run(model, Pictures({"a_1": SQUARE}), modes.CLICKS_CONFIDENT, folder=tmp_path)
    assert [(r.state, r.candidate) for r in model.requests] == [(None, 0)] * 9


def test_equal_clicks_after_other_answers_are_other_questions(tmp_path: Path) -> None:
    """Two guides that click alike share the first answer only: what they go on from differs, and so does the answer."""

    def answer(request: Request) -> Prediction:
        came_from = "" if request.state is None else f"{request.state}{request.candidate}"
        wrong = np.zeros(SIZE, dtype=bool)
        grown = SQUARE > 0
        grown[6, 8 if came_from.endswith("1") else 7] = True
        masks = np.stack([wrong, wrong, grown] if came_from else [wrong, wrong.copy(), wrong.copy()])
        return Prediction(masks, np.array([0.1, 0.5, 0.2], dtype=np.float32), came_from or "start")

    both = (modes.CLICKS_FIRST, modes.CLICKS_CONFIDENT)
    together = Toy(answer, FED_BACK)
    found = run(together, Pictures({"a_1": SQUARE}), *both, folder=tmp_path / "together")
    alone = [
        run(Toy(answer, FED_BACK), Pictures({"a_1": SQUARE}), mode, folder=tmp_path / mode.name)[0] for mode in both
    ]
    assert len(together.requests) == 1 + 8 + 8
    for job, expected in zip(found, alone, strict=True):
        assert [dataclasses.replace(r, seconds=0) for r in job.cases["a_1"]] == [
            dataclasses.replace(r, seconds=0) for r in expected.cases["a_1"]
        ]


def test_states_do_not_outlive_their_chunk(tmp_path: Path) -> None:
    """A state may be megabytes: of a finished image none is kept."""
    alive: weakref.WeakSet[State] = weakref.WeakSet()
    most = []

    def answer(request: Request) -> Prediction:
        prediction = remembering(request)
        alive.add(prediction.state)
        gc.collect()
        most.append(len(alive))
        return prediction

    class Forgetful(Toy):
        def predict(self, requests: Sequence[Request]) -> list[Prediction]:
            return [self.answer(r) for r in requests]

    samples = Pictures({f"{c}_1": SQUARE for c in "abcdef"})
    gc.collect()
    gc.freeze()  # so that a collection looks at what is new, not at all libraries each time
    try:
        run(Forgetful(answer, FED_BACK), samples, modes.CLICKS_CONFIDENT, folder=tmp_path, batch_size=1)
        gc.collect()
    finally:
        gc.unfreeze()
    assert len(most) == 6 * 9
    assert len(alive) == 0
    assert max(most) <= 4  # of one image: the one handed back, the new one, and none of the images before


def test_only_a_model_that_sees_targets_is_handed_one(tmp_path: Path) -> None:
    """A target would give the answer away."""
    plain = Toy(fixed(SQUARE > 0))
    run(plain, Pictures({"a_1": SQUARE}), modes.BOX_ALL, folder=tmp_path)
    assert [r.target for r in plain.requests] == [None]
    ceiling = Toy(
        lambda r: Prediction(np.stack([r.target])) if r.target is not None else Prediction(np.zeros((0, 1, 1), bool)),
        dataclasses.replace(SPEC, sees_target=True),
    )
    (job,) = run(ceiling, Pictures({"a_1": SQUARE}), modes.BOX_ALL, folder=tmp_path / "again")
    assert job.cases["a_1"][0].iou_first == 1.0


def test_an_unreadable_image_and_an_empty_mask_end_as_what_they_are(tmp_path: Path) -> None:
    """The unreadable one is an error row, the empty one is no case of the task, the third is scored."""
    samples = Pictures({"a_1": SQUARE, "b_1": np.zeros(SIZE, np.uint8), "c_1": SQUARE}, broken=["a_1"])
    (job,) = run(Toy(fixed(SQUARE > 0)), samples, modes.BOX_ALL, folder=tmp_path)
    assert job.cases["a_1"][0].error == "the file is cut short"
    assert job.cases["b_1"] == ()
    assert job.cases["c_1"][0].iou_first == 1.0


def test_an_image_that_cannot_be_encoded_does_not_take_its_batch_down(tmp_path: Path) -> None:
    """The batch is encoded again one by one; only the culprit fails."""

    class Fragile(Toy):
        def embed(self, images: Sequence[Image]) -> list[int]:
            if any(image[0, 0, 0] == 1 for image in images):
                raise MemoryError("too large")
            return super().embed(images)

    samples = Pictures({"a_1": SQUARE, "b_1": SQUARE, "c_1": SQUARE})
    (job,) = run(Fragile(fixed(SQUARE > 0)), samples, modes.BOX_ALL, folder=tmp_path, batch_size=3)
    assert [bool(job.cases[c][0].error) for c in samples.ids()] == [False, True, False]
    assert (job.cases["b_1"][0].error or "").startswith("MemoryError: too large (Not even this case alone fits")


class Activations:
    """Stands for what a call holds in memory, so that a test can see whether it is still held."""


class Hungry(Toy):
    """Runs out of the GPU's memory as torch tells it, where a call asks for more than one thing at once."""

    def __init__(self, call: str, alone: bool) -> None:
        super().__init__(fixed(PARTS > 0))
        self.call = call
        self.alone = alone
        self.held: list[weakref.ref[Activations]] = []

    def _work(self, call: str, size: int) -> None:
        still = [ref() for ref in self.held if ref() is not None]
        assert not still, "what the failed call took was not free when the next one was made"
        if call == self.call and (size > 1 or not self.alone):
            activations = Activations()
            self.held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")

    def embed(self, images: Sequence[Image]) -> list[int]:
        """Encode one image at most."""
        self._work("embed", len(images))
        return super().embed(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Decode one request at most."""
        self._work("predict", len(requests))
        return super().predict(requests)


@pytest.mark.parametrize(("call", "cases"), [("embed", ["a_1", "b_1", "c_1"]), ("predict", ["a_1"])])
def test_a_batch_that_does_not_fit_into_memory_is_done_one_by_one(call: str, cases: list[str], tmp_path: Path) -> None:
    """What the failed call took is free before the next one; a case that fits alone is scored."""
    samples = Pictures(dict.fromkeys(cases, PARTS))  # two boxes, which are asked together, alone in a single image
    model = Hungry(call, alone=True)
    gc.disable()
    try:
        (job,) = run(model, samples, modes.BOX_EACH, folder=tmp_path, batch_size=3)
    finally:
        gc.enable()
    assert len(model.held) == 1
    assert [job.cases[c][0].iou_first for c in cases] == [1.0] * len(cases)


@pytest.mark.parametrize("call", ["embed", "predict"])
def test_a_case_that_does_not_fit_into_memory_alone_says_what_to_do(call: str, tmp_path: Path) -> None:
    """Its row has torch's words and the ways out."""
    samples = Pictures({"a_1": SQUARE, "b_1": SQUARE})
    (job,) = run(Hungry(call, alone=False), samples, modes.BOX_ALL, folder=tmp_path)
    for case_id in samples.ids():
        assert (job.cases[case_id][0].error or "") == (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. (Not even this case alone fits into "
            "memory. End what else uses the device, or try --seg-dtype bfloat16, --seg-device cpu or a smaller model.)"
        )


def test_torchs_words_on_a_cpu_are_out_of_memory_too(tmp_path: Path) -> None:
    """There it raises a bare RuntimeError."""

    def answer(_: Request) -> Prediction:
        torch.empty(1 << 60)
        raise AssertionError

    (job,) = run(Toy(answer), Pictures({"a_1": SQUARE}), modes.BOX_ALL, folder=tmp_path)
    assert "Not even this case alone fits into memory" in (job.cases["a_1"][0].error or "")


def test_a_model_that_loses_answers_is_told_so(tmp_path: Path) -> None:
    """Fewer predictions than requests are never matched by guessing."""
    model = Toy(fixed(SQUARE > 0))
    model.predict = lambda requests: []  # type: ignore[method-assign]
    (job,) = run(model, Pictures({"a_1": SQUARE}), modes.BOX_ALL, folder=tmp_path)
    assert job.cases["a_1"][0].error == "model 'toy': predict() returned 0 answers to 1 questions."


def test_a_prompt_mode_that_returns_nonsense_fails_by_case(tmp_path: Path) -> None:
    """The message names the mode."""
    mode = PromptMode(name="odd", needs="points", simulate=f"{__name__}:nonsense")
    (job,) = run(Toy(fixed(SQUARE > 0)), Pictures({"a_1": SQUARE}), mode, folder=tmp_path)
    assert job.cases["a_1"][0].error == "prompt mode 'odd' simulated 'here'; it must return promptseg.Prompt objects."


def nonsense(target: Mask, rng: np.random.Generator) -> str:
    """Simulate no prompt at all."""
    return "here"


def test_a_limit_counts_cases_of_the_task_and_failed_ones(tmp_path: Path) -> None:
    """Images without the object do not count, so every limit speaks of the same sample."""
    empty = np.zeros(SIZE, np.uint8)
    samples = Pictures({"a_1": empty, "b_1": SQUARE, "c_1": SQUARE, "d_1": SQUARE}, broken=["b_1"])
    model = Toy(fixed(SQUARE > 0))
    (job,) = run(model, samples, modes.BOX_ALL, folder=tmp_path, limit=2)
    assert sorted(job.cases) == ["a_1", "b_1", "c_1"]
    assert model.embedded == [2]


def test_finished_cases_are_not_evaluated_again() -> None:
    """What a job already holds is left alone."""
    samples = Pictures({"a_1": SQUARE, "b_1": SQUARE})
    model = Toy(fixed(SQUARE > 0))
    done = {"a_1": (ResultRow(case_id="a_1"),)}
    job = CellJob(TaskSpec(name="thing"), modes.BOX_ALL, done)
    kept: list[str] = []
    evaluated = evaluate(
        model,
        samples,
        [job],
        lambda _, case_id, *__: kept.append(case_id),
        order=samples.ids(),
        seed=0,
        limit=None,
        batch_size=1,
    )
    assert model.embedded == [1]
    assert kept == ["b_1"]
    assert sorted(evaluated.cases[0]) == ["a_1", "b_1"]
    assert evaluated.cases[0]["a_1"] == done["a_1"]
    assert sorted(job.done) == ["a_1"], "a job is what is to be done, and does not change"
    clock = evaluated.timings
    assert clock.total >= clock.encode + clock.decode > 0


def test_every_finished_case_is_on_disk_at_once(tmp_path: Path) -> None:
    """A journal line for each case, also for those outside of the task."""
    samples = Pictures({"a_1": SQUARE, "b_1": np.zeros(SIZE, np.uint8)})
    run(Toy(fixed(SQUARE > 0)), samples, modes.BOX_ALL, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "box_all.journal").read_text().splitlines()]
    assert {line["case_id"]: len(line["rows"]) for line in lines} == {"a_1": 1, "b_1": 0}


def test_a_journal_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    """A full disk is not an error of a case: going on would lose every case after it."""
    (tmp_path / "box_all.journal").mkdir()
    with pytest.raises(ResultsError, match="could not be written"):
        run(Toy(fixed(SQUARE > 0)), Pictures({"a_1": SQUARE}), modes.BOX_ALL, folder=tmp_path)


def test_the_seeded_order_is_pinned() -> None:
    """A sample must be the same on every machine and in every release."""
    ids = [f"case_{i}" for i in range(6)]
    assert seeded_order(ids, "set", 0) == seeded_order(ids[::-1], "set", 0)
    assert seeded_order(ids, "set", 0) == ["case_0", "case_5", "case_1", "case_4", "case_3", "case_2"]
    assert seeded_order(ids, "set", 1) != seeded_order(ids, "set", 0)


class Tight(Toy):
    """A model whose memory holds a number of images or questions; notes how many images, and of both, it was given."""

    def __init__(self, fits: int) -> None:
        super().__init__(fixed(SQUARE > 0))
        self.fits = fits
        self.images: list[int] = []
        self.together: list[int] = []

    def embed(self, images: Sequence[Image]) -> list[int]:
        """Fail where there are too many."""
        self.images.append(len(images))
        self._take(len(images))
        return super().embed(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Fail where there are too many."""
        self._take(len(requests))
        return super().predict(requests)

    def _take(self, n: int) -> None:
        self.together.append(n)
        if n > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_a_model_without_memory_for_its_batch_gets_smaller_ones(tmp_path: Path) -> None:
    """Nothing is lost, whatever was too large: batches of images or of questions."""
    samples = Pictures({f"{i:02}_1": SQUARE for i in range(12)})
    model = Tight(fits=3)
    (job,) = run(model, samples, modes.CLICKS_FIRST, folder=tmp_path, batch_size=8)
    assert [job.cases[c][0].error for c in samples.ids()] == [None] * 12
    assert sorted(model.embedded) == list(range(12))
    assert sum(n > 3 for n in model.together) <= 4  # two of images, two of questions; then it is known


def test_where_no_batch_size_is_given_it_grows(tmp_path: Path) -> None:
    """From one image to as many as the memory holds."""
    samples = Pictures({f"{i:02}_1": SQUARE for i in range(40)})
    model = Tight(fits=9)
    (job,) = run(model, samples, modes.BOX_ALL, folder=tmp_path, batch_size=None)
    assert len(job.cases) == 40
    assert model.images[0] == 1
    assert max(n for n in model.images if n <= 9) == 8


def without_seconds(job: Done, case_id: str) -> list[ResultRow]:
    """Return the rows of a case, all that a repetition must find again."""
    return [dataclasses.replace(row, seconds=0) for row in job.cases[case_id]]


def test_results_do_not_depend_on_batches_nor_on_who_comes_first(tmp_path: Path) -> None:
    """One image at a time and all together, in another order: the same rows, every question asked once."""
    squares = {f"{i}_1": target((slice(i % 3, 5), slice(i % 4, 7)), (slice(6, 8), slice(8, 10))) for i in range(9)}
    samples = Pictures(squares)

    def answer(request: Request) -> Prediction:
        xs, ys = request.prompt.points_xy.T.astype(int) if len(request.prompt.points_xy) else ([5], [3])
        masks = np.zeros((2, *SIZE), dtype=bool)
        masks[0, min(ys) : max(ys) + 2, min(xs) : max(xs) + 2] = True
        masks[1, request.embedding % 5 :] = True
        return Prediction(masks, np.array([0.3, len(xs) / 9], dtype=np.float32))

    every = [value for value in vars(modes).values() if isinstance(value, PromptMode) and not value.grid]
    found = []
    for i, (size, order) in enumerate([(1, samples.ids()), (4, samples.ids()), (None, samples.ids()[::-1])]):
        model = Toy(answer)
        jobs = run(model, samples, *every, folder=tmp_path / str(i), batch_size=size, order=order)
        found.append({(job.mode.name, case_id): without_seconds(job, case_id) for job in jobs for case_id in job.cases})
        asked = [(request.embedding, request.prompt.key) for request in model.requests]
        assert len(asked) == len(set(asked)), "guides that click alike, and modes with equal prompts, ask once"
    assert found[0] == found[1] == found[2]


def test_images_are_prepared_by_others_than_the_model_thread(tmp_path: Path) -> None:
    """A model that can prepare an image apart gets what it made of it; an image it cannot prepare fails alone."""
    threads = set()

    class Preparing(Toy):
        def prepare_image(self, image: Image) -> Image:
            threads.add(threading.current_thread().name.split("_")[0])
            if image[0, 0, 0] == 1:
                raise ValueError("too dark")
            return image + 100

        def embed(self, images: Sequence[Image]) -> list[int]:
            threads.add(threading.current_thread().name)
            return super().embed(images)

    model, samples = Preparing(fixed(SQUARE > 0)), Pictures(dict.fromkeys(("a_1", "b_1", "c_1"), SQUARE))
    (job,) = run(model, samples, modes.BOX_ALL, folder=tmp_path, batch_size=3)
    assert model.embedded == [100, 102]
    assert [job.cases[c][0].error for c in samples.ids()] == [None, "ValueError: too dark", None]
    assert threads == {"MainThread", "promptseg-work"}


class Irregular(Pictures):
    """Takes between no time and a millisecond to read a label map."""

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map, later."""
        seed = zlib.crc32(case_id.encode())
        if seed % 3:
            time.sleep(seed % 7 / 7000)
        return super().labels(case_id)


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_a_run_ends_however_reading_and_answering_fall_together(batch_size: int | None, tmp_path: Path) -> None:
    """The model's thread sleeps until others have done something: each time it must be told."""
    samples = Irregular({f"a_{i:03}": SQUARE for i in range(200)})
    jobs: list[Done] = []
    model = Toy(fixed(box(slice(0, 4), slice(0, 4))))

    def evaluated() -> None:
        jobs.extend(run(model, samples, modes.BOX_ALL, modes.CLICKS_FIRST, folder=tmp_path, batch_size=batch_size))

    one = threading.Thread(target=evaluated, daemon=True)
    one.start()
    one.join(120)
    assert not one.is_alive()
    assert [len(job.cases) for job in jobs] == [200, 200]


def test_a_settled_job_gets_no_more_cases(tmp_path: Path) -> None:
    """It is asked before each image, with what is finished by then; the other jobs go on."""
    samples = Pictures({f"{i:02}_1": SQUARE for i in range(9)})
    seen: list[int] = []

    def settled(cases: Cases) -> bool:
        seen.append(len(cases))
        return len(cases) >= 2

    jobs = [CellJob(TaskSpec(name="thing", labels=(1,)), mode) for mode in (modes.BOX_ALL, modes.BOX_EACH)]
    jobs[0] = dataclasses.replace(jobs[0], is_settled=settled)
    given = evaluate(Toy(fixed(SQUARE > 0)), samples, jobs, order=samples.ids(), seed=0, limit=None, batch_size=1)
    assert seen[0] == 0
    assert 2 <= len(given.cases[0]) < 9
    assert len(given.cases[1]) == 9


def somewhere(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Simulate a prompt that does not need an object."""
    return (Prompt(points_xy=np.zeros((1, 2), np.float32), labels=np.ones(1, np.int64)),)


def test_a_mode_that_asks_by_name_takes_cases_without_an_object(tmp_path: Path) -> None:
    """Such a case has a row that says that the model was asked, without IoU; in other modes it is no case."""
    samples = Pictures({"a_1": SQUARE, "b_1": np.zeros(SIZE, np.uint8)})
    by_name = PromptMode(name="by_name", needs="text", simulate=f"{__name__}:somewhere")
    answer = fixed(SQUARE > 0, scores=[0.7])
    named, boxed = run(Toy(answer), samples, by_name, modes.BOX_ALL, folder=tmp_path)
    assert boxed.cases["b_1"] == ()
    (row,) = named.cases["b_1"]
    assert (row.iou_first, row.iou_confident, row.iou_oracle, row.candidate_iou) == (None, None, None, None)
    assert (row.error, row.n_components, row.area_fraction) == (None, 0, 0.0)
    assert row.predicted_iou == pytest.approx([0.7])
    assert named.cases["a_1"][0].iou_first == 1.0
