"""The precision guard: what is computed faster than float32 in eager mode counts only while it gives the same masks.

Before a model is evaluated with a dtype below float32 or with a fast path (``--seg-dtype``, ``--seg-fast``), the first
cases of every task are answered twice, by the model in float32 and by the fast one, on the same prompts. The masks that
count are compared by their Jaccard distance, 1 - |A and B| / |A or B|. It is a metric, so whatever the target is, a
case's IoU moves by no more than this distance: a bound on its mean over cases bounds what the score can be wrong by.

Prompts are those of the planned modes: of a mode of clicks the first one, since later ones follow from the masks and
would ask the two models different questions; of a grid, whose points are filtered by thresholds, a point on the object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from promptseg import prompts
from promptseg.errors import ModelError, PrecisionError
from promptseg.evaluation import metrics
from promptseg.files import atomic as cache_atomic
from promptseg.files import cache
from promptseg.registry.references import resolve
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Segmenter, check_prediction
from promptseg.specs import SELECTS, Cell, PromptMode, TaskSpec

N_CASES = 8
_WORST = 3
TOGETHER = 32  # requests decoded together
Item = TypeVar("Item")
Found = TypeVar("Found")


class Probe(NamedTuple):
    """One case of one cell: what both models are asked."""

    cell: Cell
    case_id: str
    target: Mask
    prompts: tuple[Prompt, ...]


class ProbeSet(NamedTuple):
    """All questions, and the images that they are about."""

    questions: list[Probe]
    images: dict[str, Image]


class ProbeAnswer(NamedTuple):
    """What one model makes of a question: for each choice of mask its bits, packed, and its IoU with the target."""

    masks: dict[str, npt.NDArray[np.uint8]]
    iou: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One case of one cell, answered by both.

    Attributes:
        case_id: the image's id.
        disagreement: Jaccard distance between the two masks, for each choice of mask; 1 where the fast model failed.
        reference: IoU with the target in float32, for each choice.
        fast: the same of the fast model.
        problem: why the fast model failed; empty if it did not.
    """

    case_id: str
    disagreement: Mapping[str, float]
    reference: Mapping[str, float]
    fast: Mapping[str, float]
    problem: str = ""

    @property
    def worst(self) -> str:
        """The choice of mask with the largest disagreement."""
        return max(SELECTS, key=lambda select: self.disagreement[select])


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A cell under the guard.

    Attributes:
        n: cases compared.
        bound: what the mean disagreement may be.
        disagreement: mean over the cases, for each choice of mask.
        iou: mean IoU in float32 and of the fast model, for each choice of mask.
        worst: the cases that differ most.
    """

    n: int
    bound: float
    disagreement: Mapping[str, float]
    iou: Mapping[str, tuple[float, float]]
    worst: Sequence[Compared]

    @property
    def holds(self) -> bool:
        """Whether the fast model may be used for the cell."""
        return all(value <= self.bound for value in self.disagreement.values())

    def as_json(self) -> dict[str, Any]:
        """Return what a result tells of it."""
        return {
            "n": self.n,
            "bound": self.bound,
            "disagreement": dict(self.disagreement),
            "iou": {select: list(pair) for select, pair in self.iou.items()},
            "worst": [dataclasses.asdict(case) for case in self.worst],
        }


# ---------------------------------------------------------------------------------------------- what is asked


def trial(
    samples: Samples, order: Sequence[str], cells: Mapping[Cell, tuple[TaskSpec, PromptMode]], seed: int
) -> ProbeSet:
    """Return the prompts of each cell on the first `N_CASES` cases of its task, as the evaluation draws them.

    Cases that cannot be read, and modes that fail to simulate a prompt, are left to the evaluation, which reports them.
    """
    found = ProbeSet([], {})
    taken = dict.fromkeys((task.name for task, _ in cells.values()), 0)
    for case_id in order:
        wanted = {cell: pair for cell, pair in cells.items() if taken[pair[0].name] < N_CASES}
        if not wanted:
            break
        questions = list(_questions(samples, case_id, wanted, seed))
        if questions and _read(samples, case_id, found.images):
            found.questions.extend(questions)
            for name in {question.cell.task for question in questions}:
                taken[name] += 1
    return found


def _questions(
    samples: Samples, case_id: str, cells: Mapping[Cell, tuple[TaskSpec, PromptMode]], seed: int
) -> Iterator[Probe]:
    try:
        labels = samples.labels(case_id)
    except Exception:
        return
    for cell, (task, mode) in cells.items():
        target = target_of(task, labels)
        if target.any() and (asked := _first_prompts(task, mode, target, case_id, seed)):
            yield Probe(cell, case_id, target, asked)


def _first_prompts(task: TaskSpec, mode: PromptMode, target: Mask, case_id: str, seed: int) -> tuple[Prompt, ...]:
    rng = prompts.generator(seed, task.name, case_id, 0)
    if mode.grid:
        return prompts.point_largest(target, rng)
    try:
        simulate = resolve(mode.simulate)
        return (simulate(target, None, Prompt(), rng),) if mode.iterative else tuple(simulate(target, rng))
    except Exception:
        return ()


def _read(samples: Samples, case_id: str, images: dict[str, Image]) -> bool:
    try:
        images[case_id] = samples.image(case_id)
    except Exception:
        return False
    return True


# ---------------------------------------------------------------------------------------------- what is answered


def answers(model: Segmenter, asked: ProbeSet, batch_size: int) -> list[ProbeAnswer | Exception]:
    """Return the model's answer to each question, or why there is none.

    Args:
        model: either one.
        asked: the questions.
        batch_size: images encoded together, as in the run.
    """
    ids = list(asked.images)
    embeddings = dict(zip(ids, _together(model.embed, [asked.images[i] for i in ids], batch_size), strict=True))
    found: list[ProbeAnswer | Exception] = []
    for start in range(0, len(asked.questions), TOGETHER):
        some = asked.questions[start : start + TOGETHER]
        requests = [_request(model, q, prompt, embeddings[q.case_id]) for q in some for prompt in q.prompts]
        predictions = iter(_together(lambda rs: _predicted(model, rs), requests, TOGETHER))
        found += [_answer(model, question, [next(predictions) for _ in question.prompts]) for question in some]
    return found


def _request(model: Segmenter, question: Probe, prompt: Prompt, embedding: Any) -> Request:
    return Request(embedding, prompt, target=question.target if model.spec.sees_target else None)


def _predicted(model: Segmenter, requests: Sequence[Request]) -> Sequence[Prediction]:
    for request in requests:
        if isinstance(request.embedding, Exception):
            raise request.embedding
    return model.predict(requests)


def _together(call: Callable[[list[Item]], Sequence[Found]], items: list[Item], size: int) -> list[Found | Exception]:
    """Call with ``size`` items at once or, where that fails, one by one, so that only the culprit is lost."""
    found: list[Found | Exception] = []
    for start in range(0, len(items), size):
        some = items[start : start + size]
        try:
            answered = list(call(some))
            if len(answered) != len(some):
                raise ModelError(f"{len(answered)} answers to {len(some)} questions")
            found += answered
        except Exception as error:
            found += [error] if len(some) == 1 else _together(call, some, 1)
    return found


def _answer(model: Segmenter, question: Probe, predictions: list[Prediction | Exception]) -> ProbeAnswer | Exception:
    height, width = question.target.shape
    try:
        checked = [check_prediction(model.spec.name, _raised(p), (height, width)) for p in predictions]
        choice = metrics.choose(tuple(checked), question.target)
    except Exception as error:
        return error
    return ProbeAnswer({select: np.packbits(mask) for select, mask in choice.masks.items()}, choice.iou)


def _raised(found: Prediction | Exception) -> Prediction:
    if isinstance(found, Exception):
        raise found
    return found


# ---------------------------------------------------------------------------------------------- the comparison


def compare(
    asked: ProbeSet, reference: Sequence[ProbeAnswer | Exception], fast: Sequence[ProbeAnswer | Exception], bound: float
) -> dict[Cell, Agreement]:
    """Return how well the fast model agrees with the reference, cell by cell.

    A case on which the reference fails too is left to the evaluation; a cell without any other has no agreement.
    """
    by_cell: dict[Cell, list[Compared]] = {}
    for question, expected, found in zip(asked.questions, reference, fast, strict=True):
        if isinstance(expected, ProbeAnswer):
            by_cell.setdefault(question.cell, []).append(_compared(question.case_id, expected, found))
    return {cell: _agreement(cases, bound) for cell, cases in by_cell.items()}


def _compared(case_id: str, expected: ProbeAnswer, found: ProbeAnswer | Exception) -> Compared:
    if isinstance(found, Exception):
        failed: dict[str, float] = dict.fromkeys(SELECTS, 1.0)
        nothing: dict[str, float] = dict.fromkeys(SELECTS, 0.0)
        reason = f"{type(found).__name__}: {found}"
        return Compared(case_id=case_id, disagreement=failed, reference=expected.iou, fast=nothing, problem=reason)
    distances: dict[str, float] = {
        select: jaccard_distance(expected.masks[select], found.masks[select]) for select in SELECTS
    }
    return Compared(case_id=case_id, disagreement=distances, reference=expected.iou, fast=found.iou)


def jaccard_distance(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Return ``1 - |A and B| / |A or B|`` of two masks of one size as ``np.packbits`` gives them; 0 for two empty ones.

    >>> jaccard_distance(np.packbits([True, True, False, False]), np.packbits([False, True, True, False]))
    0.6666666666666667
    """
    union = int(np.bitwise_count(a | b).sum(dtype=np.int64))
    return 1 - int(np.bitwise_count(a & b).sum(dtype=np.int64)) / union if union else 0.0


def _agreement(cases: Sequence[Compared], bound: float) -> Agreement:
    def mean(values: Iterable[float]) -> float:
        return math.fsum(values) / len(cases)

    worst = sorted(cases, key=lambda case: -case.disagreement[case.worst])
    return Agreement(
        n=len(cases),
        bound=bound,
        disagreement={select: mean(case.disagreement[select] for case in cases) for select in SELECTS},
        iou={s: (mean(case.reference[s] for case in cases), mean(case.fast[s] for case in cases)) for s in SELECTS},
        worst=tuple(worst[:_WORST]),
    )


def evidence(cell: Cell, agreement: Agreement) -> str:
    """Return a line that says by how much a cell's masks differ, and on which cases most."""
    select = max(SELECTS, key=lambda s: agreement.disagreement[s])
    reference, fast = agreement.iou[select]
    worst = "; ".join(_in_words(case) for case in agreement.worst if case.disagreement[case.worst] > 0)
    return (
        f"{cell.task}, {cell.mode}: masks ({select}) differ by {agreement.disagreement[select]:.4f} on average over "
        f"{agreement.n} cases, allowed {agreement.bound:g}; mean IoU {reference:.4f} in float32, {fast:.4f} fast. "
        f"Worst: {worst}"
    )


def _in_words(case: Compared) -> str:
    if case.problem:
        return f"{case.case_id!r} failed ({case.problem})"
    select = case.worst
    return (
        f"{case.case_id!r} {case.disagreement[select]:.3f} (IoU {case.reference[select]:.3f} in float32, "
        f"{case.fast[select]:.3f} fast)"
    )


# ---------------------------------------------------------------------------------------------- the guard


def guard(
    cells: Mapping[Cell, tuple[TaskSpec, PromptMode]],
    ask: Callable[[Mapping[Cell, tuple[TaskSpec, PromptMode]]], ProbeSet],
    reference: Callable[[ProbeSet], list[ProbeAnswer | Exception]],
    fast: Callable[[ProbeSet], list[ProbeAnswer | Exception]],
    *,
    keys: Mapping[Cell, str],
    what: str,
    bound: float,
) -> dict[Cell, Mapping[str, Any]]:
    """Return what each cell's result tells of the guard; what agreed before is not computed again.

    Args:
        cells: to be guarded.
        ask: makes the questions; see `trial`.
        reference: answers them in float32; called first, so that one model at a time needs memory.
        fast: answers them as the run will.
        keys: all that each cell's agreement depends on, hashed; see `key_of`.
        what: the model, data set and fast paths, for the message.
        bound: what the mean disagreement of a cell may be.

    Raises:
        PrecisionError: a cell is beyond the bound; says where, and by how much.
    """
    known: dict[Cell, Mapping[str, Any]] = {cell: about for cell in cells if (about := _remembered(keys[cell], bound))}
    missing = {cell: pair for cell, pair in cells.items() if cell not in known}
    if not missing:
        return known
    asked = ask(missing)
    expected = reference(asked)
    agreements = compare(asked, expected, fast(asked), bound)
    for question, answer in zip(asked.questions, expected, strict=True):
        if question.cell not in agreements:
            raise PrecisionError(f"{what}: float32 has no answer to compare with; {question.case_id!r}: {answer!r}")
    if beyond := {cell: a for cell, a in agreements.items() if not a.holds}:
        lines = "\n".join(evidence(cell, agreement) for cell, agreement in sorted(beyond.items()))
        raise PrecisionError(
            f"{what}: not the masks of float32, so nothing was scored. {len(beyond)} of {len(agreements)} cells are "
            f"beyond the bound:\n{lines}\nLeave the fast path out, or evaluate with --seg-dtype float32."
        )
    found = {cell: agreement.as_json() for cell, agreement in agreements.items()}
    for cell, about in found.items():
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            cache_atomic.write_json(_path(keys[cell]), about)
    return {**known, **found}


def key_of(*parts: Any) -> str:
    """Return the sha256 of what an agreement depends on, as JSON can hold it."""
    return hashlib.sha256(json.dumps([N_CASES, *parts], sort_keys=True).encode()).hexdigest()


def _remembered(key: str, bound: float) -> dict[str, Any]:
    """Return what was found before, if it is within the bound of today; else nothing."""
    about = cache_atomic.read_json(_path(key))
    found = about.get("disagreement")
    if not isinstance(found, dict) or found.keys() != set(SELECTS) or max(found.values()) > bound:
        return {}
    return {**about, "bound": bound}


def _path(key: str) -> Path:
    return cache.cache_dir() / "precision" / f"{key}.json"
