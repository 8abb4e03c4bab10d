"""From the rows of results to numbers: means, intervals, curves, and pairs of cases. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import SELECTS, MaskChoice, Stratum
from promptseg.stats.bootstrap import interval
from promptseg.stats.correlation import rank_correlation
from promptseg.stats.means import mean
from promptseg.stats.paired import Pair

DEFAULT_SELECT: MaskChoice = "confident"
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
        mean_iou=mean(list(chosen.values())),
        iou={choice: mean(list(values[choice].values())) for choice in SELECTS},
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
    return {case_id: mean(values) for case_id, values in per_case.items()}


def _iou(row: ResultRow, select: MaskChoice) -> float:
    value = getattr(row, f"iou_{select}")
    return math.nan if value is None else float(value)


def _per_click(rows: Sequence[ResultRow]) -> dict[str, list[float]] | None:
    clicks = sorted({row.click for row in rows})
    if clicks in ([], [0]):
        return None
    return {s: [mean([_iou(r, s) for r in rows if r.click == c]) for c in clicks] for s in SELECTS}


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
    return Noc(clicks=mean(reached), n_reached=len(reached), n_failures=len(first) - len(reached))


def _coverage(rows: Sequence[ResultRow]) -> float | None:
    found = [row.coverage for row in rows if row.coverage is not None]
    return mean(found) if found else None


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
        mean_absolute_error=mean(np.abs(predicted - found).tolist()),
    )


def pair(before: Iterable[ResultRow], after: Iterable[ResultRow], select: MaskChoice) -> list[Pair]:
    """Return the cases that both runs scored under a choice of mask, sorted by case."""
    old, new = scored(before), scored(after)
    was, now = case_values(old, select), case_values(new, select)
    return [
        Pair(
            case_id=row.case_id,
            subject=row.subject_id or row.case_id,
            before=was[row.case_id],
            after=now[row.case_id],
            area_fraction=row.area_fraction,
            n_components=row.n_components,
        )
        for row in sorted(new, key=lambda row: row.case_id)
        if row.case_id in was and row.click <= 1
    ]


def scored(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Return the rows of the cases that did not fail."""
    rows = list(rows)
    failed = {row.case_id for row in rows if row.error}
    return [row for row in rows if row.case_id not in failed]


def strata(pairs: Sequence[Pair], kinds: Iterable[Stratum]) -> Mapping[str, list[Pair]]:
    """Return the cases by name of stratum: thirds by the size of the object, and by its number of parts.

    A stratum without cases is left out. Thirds are those of the cases at hand, equal sizes in the order of case ids.
    """
    by_name: dict[str, list[Pair]] = {}
    if "size" in kinds:
        by_size = sorted(pairs, key=lambda p: (p.area_fraction, p.case_id))
        edges = [round(third * len(pairs) / 3) for third in range(4)]
        for third, name in enumerate(("small objects", "medium objects", "large objects")):
            by_name[name] = by_size[edges[third] : edges[third + 1]]
    if "parts" in kinds:
        by_name["objects of one part"] = [p for p in pairs if p.n_components == 1]
        by_name["objects of several parts"] = [p for p in pairs if p.n_components > 1]
    return {name: found for name, found in by_name.items() if found}
