"""From rows to numbers: means, intervals, curves. Pure functions."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import SELECTS, MaskChoice

BOOTSTRAP_SAMPLES = 2000
DEFAULT_SELECT: MaskChoice = "confident"
_DRAWN_TOGETHER = 2**18  # subjects; bounds the memory
_KEPT = 2**14  # subjects; of more the draws are made anew each time, as they take more than 64 MiB
NOC_CLICKS = 20
NOC_IOUS = (0.80, 0.85, 0.90)


@dataclass(frozen=True, kw_only=True)
class Noc:
    """The number of clicks (NoC) that an IoU takes.

    Attributes:
        clicks: mean over the cases that reach the IoU within `NOC_CLICKS` clicks; NaN if none does.
        n_reached: number of these cases.
        n_failures: number of the others, which have no number of clicks: they are counted apart, never as 20.
    """

    clicks: float
    n_reached: int
    n_failures: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well predicted IoU agrees with the IoU, over all candidates of all prompts.

    Attributes:
        n: number of candidates.
        rank_correlation: Spearman's, in [-1, 1]; NaN where either IoU is the same for all candidates.
        mean_absolute_error: of predicted IoU.
    """

    n: int
    rank_correlation: float
    mean_absolute_error: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of one cell.

    Attributes:
        n: cases scored.
        n_errors: cases that could not be scored.
        select: the choice of mask that ``mean_iou``, ``ci95`` and ``worst`` speak of.
        mean_iou: mean over cases; for an iterative mode of each case's mean over its clicks. NaN without cases.
        iou: the same for each choice of mask.
        ci95: bootstrap interval of ``mean_iou`` over subjects (over cases where no subject is known), None
            for fewer than two.
        iou_per_click: mean over cases after each click, for each choice of mask; None for static modes.
        noc: number of clicks to each of `NOC_IOUS` under ``select``, by the names noc80, noc85 and noc90; None for
            modes of fewer than `NOC_CLICKS` clicks.
        coverage: mean over cases of the part of the target that any mask covers; None for modes of given prompts.
        calibration: of predicted IoU; None where the model predicts none, or not of this target.
        worst: up to three (case_id, IoU), lowest first.
        errors: (case_id, reason) of the cases that could not be scored.
    """

    n: int
    n_errors: int
    select: MaskChoice
    mean_iou: float
    iou: Mapping[str, float]
    ci95: tuple[float, float] | None
    iou_per_click: Mapping[str, Sequence[float]] | None
    worst: Sequence[tuple[str, float]]
    errors: Sequence[tuple[str, str]]
    noc: Mapping[str, Noc] | None = None
    coverage: float | None = None
    calibration: Calibration | None = None


def summarise(rows: Sequence[ResultRow], select: MaskChoice) -> Summary:
    """Reduce the rows of one cell."""
    errors = [(row.case_id, row.error) for row in rows if row.error]
    failed = {case_id for case_id, _ in errors}
    scored = [row for row in rows if row.case_id not in failed]
    values = {choice: case_values(scored, choice) for choice in SELECTS}
    chosen = values[select]
    subjects = {row.case_id: row.subject_id or row.case_id for row in scored}
    return Summary(
        n=len(chosen),
        n_errors=len(failed),
        select=select,
        mean_iou=_mean(list(chosen.values())),
        iou={choice: _mean(list(values[choice].values())) for choice in SELECTS},
        ci95=interval([(subjects[case], value) for case, value in sorted(chosen.items())]),
        iou_per_click=_per_click(scored),
        worst=sorted(chosen.items(), key=lambda item: (item[1], item[0]))[:3],
        errors=sorted(errors),
        noc=_noc(scored, select),
        coverage=_coverage(scored),
        calibration=_calibration(scored),
    )


def select_of(result: CellResult) -> MaskChoice:
    """Return the choice of mask that counts for a result: what its mode says, else the confident one."""
    mode = result.provenance.mode
    return next((choice for choice in SELECTS if choice in (mode.select, mode.guide)), DEFAULT_SELECT)


def case_values(rows: Sequence[ResultRow], select: MaskChoice) -> dict[str, float]:
    """Return each case's IoU under one choice of mask, averaged over its clicks if there are several."""
    per_case: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        per_case[row.case_id].append(_iou(row, select))
    return {case_id: _mean(values) for case_id, values in per_case.items()}


def _iou(row: ResultRow, select: MaskChoice) -> float:
    value = getattr(row, f"iou_{select}")
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    # math.fsum: the same sum in every order, so that shards and resumed runs agree to the last bit.
    return math.fsum(values) / len(values) if values else math.nan


def _per_click(rows: Sequence[ResultRow]) -> dict[str, list[float]] | None:
    clicks = sorted({row.click for row in rows})
    if clicks in ([], [0]):
        return None
    return {s: [_mean([_iou(r, s) for r in rows if r.click == c]) for c in clicks] for s in SELECTS}


def _noc(rows: Sequence[ResultRow], select: MaskChoice) -> dict[str, Noc] | None:
    if max((row.click for row in rows), default=0) < NOC_CLICKS:
        return None
    curves: dict[str, list[float]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.click):
        curves[row.case_id].append(_iou(row, select))
    return {f"noc{round(100 * wanted)}": _clicks_to(wanted, list(curves.values())) for wanted in NOC_IOUS}


def _clicks_to(wanted: float, curves: Sequence[Sequence[float]]) -> Noc:
    first = [next((click for click, iou in enumerate(c[:NOC_CLICKS], 1) if iou >= wanted), None) for c in curves]
    reached = [click for click in first if click is not None]
    return Noc(clicks=_mean(reached), n_reached=len(reached), n_failures=len(first) - len(reached))


def _coverage(rows: Sequence[ResultRow]) -> float | None:
    found = [row.coverage for row in rows if row.coverage is not None]
    return _mean(found) if found else None


def _calibration(rows: Sequence[ResultRow]) -> Calibration | None:
    pairs = [
        pair
        for row in rows
        if row.predicted_iou is not None and row.candidate_iou is not None
        for pair in zip(row.predicted_iou, row.candidate_iou, strict=True)
    ]
    if not pairs:
        return None
    predicted, found = np.array(pairs).T
    return Calibration(
        n=len(pairs),
        rank_correlation=rank_correlation(predicted, found),
        mean_absolute_error=_mean(np.abs(predicted - found).tolist()),
    )


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two (N,) arrays, NaN if the values of one are all equal.

    As scipy.stats.spearmanr, whose import takes longer than most runs spend on all their scores.
    """
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else math.nan


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (N,) ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def interval(values: Sequence[tuple[str, float]], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of a mean, or None for fewer than two subjects.

    Args:
        values: (subject, value) of each case; whole subjects are drawn with replacement, as their cases are
            not independent (Field and Welsh, J. R. Stat. Soc. B 69, 2007).
        seed: of the resampling.
    """
    totals = subject_totals(values)
    if len(totals) < 2:
        return None
    low, high = np.percentile(resampled_means(totals, seed), [2.5, 97.5])
    return float(low), float(high)


def subject_totals(values: Iterable[tuple[str, float]]) -> npt.NDArray[np.float64]:
    """Return an (S, 2) array: the sum and the number of each subject's values, sorted by subject."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for subject, value in values:
        sums[subject][0] += value
        sums[subject][1] += 1
    return np.array([sums[s] for s in sorted(sums)]).reshape(-1, 2)


def resampled_means(totals: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the means of `BOOTSTRAP_SAMPLES` draws, each of as many subjects as there are, with replacement.

    Args:
        totals: of `subject_totals`.
        seed: of the draws.
    """
    sums, numbers = resampled_sums(totals, seed).T
    return np.asarray(sums / numbers)


def resampled_sums(values: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """Return sums over `BOOTSTRAP_SAMPLES` draws of as many subjects as there are, with replacement, (draws, K).

    Args:
        values: (S, K), a row for each subject; all columns go by the same draws.
        seed: of the draws.
    """
    # As floats: the product of integers would take a hundred times as long.
    return np.concatenate([times.astype(np.float64) @ values for times in _draws(len(values), seed)])


def _draws(count: int, seed: int) -> Iterable[npt.NDArray[np.integer[Any]]]:
    """Return how often each of ``count`` subjects is drawn, (draws, count), some draws at a time."""
    return _kept_draws(count, seed) if count <= _KEPT else _new_draws(count, seed)


@functools.lru_cache(maxsize=2)
def _kept_draws(count: int, seed: int) -> tuple[npt.NDArray[np.integer[Any]], ...]:
    """Return the draws all at once; a table has one data set and many models."""
    return tuple(times.astype(np.uint16) for times in _new_draws(count, seed))


def _new_draws(count: int, seed: int) -> Iterator[npt.NDArray[np.integer[Any]]]:
    rng = np.random.default_rng(seed)
    together = max(1, _DRAWN_TOGETHER // count)
    for start in range(0, BOOTSTRAP_SAMPLES, together):
        rows = min(together, BOOTSTRAP_SAMPLES - start)
        drawn = rng.integers(count, size=(rows, count), dtype=np.uint32)
        places = drawn + np.arange(rows)[:, None] * count
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)
