"""From rows to numbers: means, intervals, curves. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.results import Row
from promptseg.specs import SELECTS, Select

BOOTSTRAP_SAMPLES = 2000


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
        worst: up to three (case_id, IoU), lowest first.
        errors: (case_id, reason) of the cases that could not be scored.
    """

    n: int
    n_errors: int
    select: Select
    mean_iou: float
    iou: Mapping[str, float]
    ci95: tuple[float, float] | None
    iou_per_click: Mapping[str, Sequence[float]] | None
    worst: Sequence[tuple[str, float]]
    errors: Sequence[tuple[str, str]]


def summarise(rows: Sequence[Row], select: Select) -> Summary:
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
    )


def case_values(rows: Sequence[Row], select: Select) -> dict[str, float]:
    """Return each case's IoU under one choice of mask, averaged over its clicks if there are several."""
    per_case: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        per_case[row.case_id].append(_iou(row, select))
    return {case_id: _mean(values) for case_id, values in per_case.items()}


def _iou(row: Row, select: Select) -> float:
    value = getattr(row, f"iou_{select}")
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    # math.fsum: the same sum in every order, so that shards and resumed runs agree to the last bit.
    return math.fsum(values) / len(values) if values else math.nan


def _per_click(rows: Sequence[Row]) -> dict[str, list[float]] | None:
    clicks = sorted({row.click for row in rows})
    if clicks in ([], [0]):
        return None
    return {s: [_mean([_iou(r, s) for r in rows if r.click == c]) for c in clicks] for s in SELECTS}


def interval(values: Sequence[tuple[str, float]], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of a mean, or None for fewer than two subjects.

    Args:
        values: (subject, value) of each case; whole subjects are drawn with replacement, as their cases are
            not independent (Field and Welsh, J. R. Stat. Soc. B 69, 2007).
        seed: of the resampling.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for subject, value in values:
        sums[subject][0] += value
        sums[subject][1] += 1
    if len(sums) < 2:
        return None
    totals = np.array([sums[s] for s in sorted(sums)])
    rng = np.random.default_rng(seed)
    resampled = np.empty((BOOTSTRAP_SAMPLES, 2))
    for i in range(BOOTSTRAP_SAMPLES):
        drawn = rng.integers(len(totals), size=len(totals), dtype=np.uint32)
        resampled[i] = np.bincount(drawn, minlength=len(totals)) @ totals
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], [2.5, 97.5])
    return float(low), float(high)
