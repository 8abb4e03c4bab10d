"""The precision guard: a faster computation than float32 in eager mode counts only if it gives the same masks.

Before a model is evaluated with a dtype below float32 or with a fast path (``--seg-dtype``, ``--seg-fast``), the first
cases of every task are predicted twice, by the model in float32 and by the fast one, on the same prompts. The chosen
masks are compared by their Jaccard distance, 1 - |A and B| / |A or B|. It is a metric, so whatever the target is, a
case's IoU moves by no more than this distance: a bound on its mean over cases bounds the error of the score.

Prompts are those of the planned modes. Modes of clicks contribute their first click alone, since later ones follow from
the masks and would differ between the two models; a grid, whose points are filtered by thresholds, contributes one
point on the object.
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
from promptseg.errors import PrecisionError
from promptseg.evaluation import metrics
from promptseg.evaluation.batches import BatchSize, answered
from promptseg.evaluation.boundary import Boundary, Encoded, Query, torch_may_read
from promptseg.files import atomic, cache
from promptseg.registry.references import resolve
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Runtime, Segmenter, sealed
from promptseg.specs import SELECTS, Cell, PromptMode, TaskSpec

N_CASES = 8
_WORST = 3
TOGETHER = 32  # requests decoded together
Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Probe(NamedTuple):
    """One case of one cell, with the prompts that both models get."""

    cell: Cell
    case_id: str
    target: Mask
    prompts: tuple[Prompt, ...]


class ProbeSet(NamedTuple):
    """All probes, and their images by case id."""

    probes: list[Probe]
    images: dict[str, Image]


class ProbeAnswer(NamedTuple):
    """One model's answer to a probe: for each choice of mask its packed bits, and its IoU with the target."""

    masks: dict[str, npt.NDArray[np.uint8]]
    iou: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One case of one cell, with the answers of both models compared.

    Attributes:
        case_id: the image's id.
        disagreement: Jaccard distance between the two masks, for each choice of mask; 1 where the fast model failed.
        reference: IoU with the target in float32, for each choice.
        fast: the same for the fast model.
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
    """How well the fast model agrees with float32 in one cell.

    Attributes:
        n: number of cases compared.
        bound: largest mean disagreement that is allowed.
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
        """Return the entry ``precision`` of a result's provenance."""
        return {
            "n": self.n,
            "bound": self.bound,
            "disagreement": dict(self.disagreement),
            "iou": {select: list(pair) for select, pair in self.iou.items()},
            "worst": [dataclasses.asdict(case) for case in self.worst],
        }


# ---------------------------------------------------------------------------------------------- the probes


def trial(
    samples: Samples,
    order: Sequence[str],
    cells: Mapping[Cell, tuple[TaskSpec, PromptMode]],
    seed: int,
    n_cases: int = N_CASES,
) -> ProbeSet:
    """Return the prompts of each cell on the first ``n_cases`` cases of its task, as the evaluation draws them.

    Cases that cannot be read, and modes that fail to simulate a prompt, are left to the evaluation, which reports them.
    """
    trial = ProbeSet([], {})
    taken = dict.fromkeys((task.name for task, _ in cells.values()), 0)
    for case_id in order:
        wanted = {cell: pair for cell, pair in cells.items() if taken[pair[0].name] < n_cases}
        if not wanted:
            break
        probes = list(_probes(samples, case_id, wanted, seed))
        if probes and _read(samples, case_id, trial.images):
            trial.probes.extend(probes)
            for name in {probe.cell.task for probe in probes}:
                taken[name] += 1
    return trial


def _probes(
    samples: Samples, case_id: str, cells: Mapping[Cell, tuple[TaskSpec, PromptMode]], seed: int
) -> Iterator[Probe]:
    try:
        labels = samples.labels(case_id)
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return
    for cell, (task, mode) in cells.items():
        target = target_of(task, labels)
        if target.any() and (simulated := _first_prompts(task, mode, target, case_id, seed)):
            yield Probe(cell, case_id, target, simulated)


def _first_prompts(task: TaskSpec, mode: PromptMode, target: Mask, case_id: str, seed: int) -> tuple[Prompt, ...]:
    rng = prompts.generator(seed, task.name, case_id, 0)
    if mode.grid:
        return prompts.point_largest(target, rng)
    try:
        simulate = resolve(mode.simulate)
        return (simulate(target, None, Prompt(), rng),) if mode.iterative else tuple(simulate(target, rng))
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return ()


def _read(samples: Samples, case_id: str, images: dict[str, Image]) -> bool:
    try:
        images[case_id] = samples.image(case_id)
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return False
    return True


# ---------------------------------------------------------------------------------------------- the answers


@torch_may_read()
def answers(model: Segmenter, trial: ProbeSet, batch_size: int) -> list[ProbeAnswer | Exception]:
    """Return the model's answer to each probe, or why there is none.

    Args:
        model: in float32, or the fast one.
        trial: the probes.
        batch_size: images encoded together, as in the run.
    """
    boundary = Boundary(model)
    ids, encoding, decoding = list(trial.images), BatchSize(batch_size, batch_size), BatchSize(TOGETHER, TOGETHER)

    def embed(images: Sequence[Image]) -> list[Encoded]:
        return boundary.embed([boundary.prepare(sealed(image)) for image in images])

    embeddings = dict(zip(ids, _in_batches(embed, [trial.images[i] for i in ids], encoding), strict=True))
    found: list[ProbeAnswer | Exception] = []
    for start in range(0, len(trial.probes), TOGETHER):
        probes = [(probe, embeddings[probe.case_id]) for probe in trial.probes[start : start + TOGETHER]]
        queries = [
            Query(embedding, _size_hw(probe), prompt, target=probe.target if boundary.sees_target else None)
            for probe, embedding in probes
            if not isinstance(embedding, Exception)
            for prompt in probe.prompts
        ]
        predictions = iter(_in_batches(boundary.predict, queries, decoding))
        for probe, embedding in probes:
            if isinstance(embedding, Exception):
                found.append(embedding)
            else:
                found.append(_answer(probe, [next(predictions) for _ in probe.prompts]))
    return found


def _in_batches(
    ask: Callable[[Sequence[Question]], Sequence[Answer]], questions: Sequence[Question], size: BatchSize
) -> list[Answer | Exception]:
    """Return the answer to each question, or the error of those that fail also when asked alone."""
    found: list[Answer | Exception] = []
    while len(found) < len(questions):
        found += answered(ask, questions[len(found) : len(found) + size.size], size)
    return found


def _size_hw(probe: Probe) -> tuple[int, int]:
    height, width = probe.target.shape
    return height, width


def _answer(probe: Probe, outcomes: list[Prediction | Exception]) -> ProbeAnswer | Exception:
    predictions = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            return outcome
        predictions.append(outcome)
    try:
        choice = metrics.choose(tuple(predictions), probe.target)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return error.with_traceback(None)  # its frames hold the masks
    return ProbeAnswer({select: np.packbits(mask) for select, mask in choice.masks.items()}, choice.iou)


# ---------------------------------------------------------------------------------------------- the comparison


def compare(
    trial: ProbeSet, reference: Sequence[ProbeAnswer | Exception], fast: Sequence[ProbeAnswer | Exception], bound: float
) -> dict[Cell, Agreement]:
    """Return how well the fast model agrees with the reference, cell by cell.

    Cases on which the reference fails are left to the evaluation; a cell without any other case has no agreement.
    """
    by_cell: dict[Cell, list[Compared]] = {}
    for probe, expected, answer in zip(trial.probes, reference, fast, strict=True):
        if isinstance(expected, ProbeAnswer):
            by_cell.setdefault(probe.cell, []).append(_compared(probe.case_id, expected, answer))
    return {cell: _agreement(cases, bound) for cell, cases in by_cell.items()}


def _compared(case_id: str, expected: ProbeAnswer, answer: ProbeAnswer | Exception) -> Compared:
    if isinstance(answer, Exception):
        failed: dict[str, float] = dict.fromkeys(SELECTS, 1.0)
        nothing: dict[str, float] = dict.fromkeys(SELECTS, 0.0)
        reason = f"{type(answer).__name__}: {answer}"
        return Compared(case_id=case_id, disagreement=failed, reference=expected.iou, fast=nothing, problem=reason)
    distances: dict[str, float] = {
        select: jaccard_distance(expected.masks[select], answer.masks[select]) for select in SELECTS
    }
    return Compared(case_id=case_id, disagreement=distances, reference=expected.iou, fast=answer.iou)


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
    samples: Samples,
    order: Sequence[str],
    ask: Callable[[Runtime, ProbeSet], list[ProbeAnswer | Exception]],
    *,
    runtime: Runtime,
    seed: int,
    keys: Mapping[Cell, str],
    what: str,
    bound: float,
) -> dict[Cell, Mapping[str, Any]]:
    """Return the provenance entry of each cell; agreements of earlier runs are not computed again.

    Args:
        cells: to be guarded.
        samples: the data set.
        order: its case ids in seeded order.
        ask: returns the answers of the model, loaded for a runtime, to probes; called for float32 first, and for one
            runtime after the other, so that one model at a time needs memory.
        runtime: of the run.
        seed: of the prompts.
        keys: all that each cell's agreement depends on, hashed; see `key_of`.
        what: the model and the data set, for the message.
        bound: largest mean disagreement of a cell that is allowed.

    Raises:
        PrecisionError: a cell is beyond the bound; says where, and by how much.
    """
    known: dict[Cell, Mapping[str, Any]] = {cell: entry for cell in cells if (entry := _stored(keys[cell], bound))}
    missing = {cell: pair for cell, pair in cells.items() if cell not in known}
    if not missing:
        return known
    what = f"{what} with {', '.join([runtime.dtype, *sorted(runtime.fast)])}"
    probes = trial(samples, order, missing, seed)
    expected = ask(Runtime(device=runtime.device), probes)
    agreements = compare(probes, expected, ask(runtime, probes), bound)
    for probe, answer in zip(probes.probes, expected, strict=True):
        if probe.cell not in agreements:
            raise PrecisionError(f"{what}: float32 has no answer to compare with; {probe.case_id!r}: {answer!r}")
    if beyond := {cell: a for cell, a in agreements.items() if not a.holds}:
        lines = "\n".join(evidence(cell, agreement) for cell, agreement in sorted(beyond.items()))
        raise PrecisionError(
            f"{what}: not the masks of float32, so nothing was scored. {len(beyond)} of {len(agreements)} cells are "
            f"beyond the bound:\n{lines}\nLeave the fast path out, or evaluate with --seg-dtype float32."
        )
    computed = {cell: agreement.as_json() for cell, agreement in agreements.items()}
    for cell, entry in computed.items():
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            atomic.write_json(_path(keys[cell]), entry)
    return {**known, **computed}


def key_of(*parts: Any) -> str:
    """Return the sha256 of what an agreement depends on, as JSON can hold it."""
    return hashlib.sha256(json.dumps([N_CASES, *parts], sort_keys=True).encode()).hexdigest()


def _stored(key: str, bound: float) -> dict[str, Any]:
    """Return the agreement stored by an earlier run if it is within the bound of this one; else nothing."""
    entry = atomic.read_json(_path(key))
    disagreement = entry.get("disagreement")
    if not isinstance(disagreement, dict) or disagreement.keys() != set(SELECTS) or max(disagreement.values()) > bound:
        return {}
    return {**entry, "bound": bound}


def _path(key: str) -> Path:
    return cache.cache_dir() / "precision" / f"{key}.json"
