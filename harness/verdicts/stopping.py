"""Early stopping: at which case, in seeded order, the verdict on a cell is settled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypedDict

import numpy as np

from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import MaskChoice
from promptseg.stats import betting, paired
from promptseg.stats.betting import Decision, Numbers, SequentialTest
from promptseg.stats.bootstrap import subject_totals
from promptseg.stats.means import ROUNDING
from promptseg.verdicts.summary import case_values, scored
from promptseg.verdicts.thresholds import Threshold

Cases = Mapping[str, Sequence[ResultRow]]


@dataclass(frozen=True, kw_only=True)
class StopCriterion:
    """What must be settled before a cell may stop.

    Attributes:
        kind: whether the criterion is the cell's threshold or its baseline.
        select: the choice of mask that counts.
        test: the sequential test that settles it.
        before: IoU of each case in the baseline; a case without one does not count. None for a threshold.
    """

    kind: Literal["threshold", "baseline"]
    select: MaskChoice
    test: SequentialTest
    before: Mapping[str, float] | None = None

    def value(self, case_id: str, rows: Sequence[ResultRow]) -> float:
        """Return the case's IoU, or what it gained over the baseline; NaN where it has none or failed."""
        if not rows or _failed(rows):
            return math.nan
        now = case_values(rows, self.select)[case_id]
        return now if self.before is None else now - self.before.get(case_id, math.nan)


def of_threshold(threshold: Threshold, n_images: int, level: float) -> StopCriterion:
    """Return the criterion that is settled once the mean IoU reaches a threshold, or cannot."""
    test = SequentialTest(floor=threshold.lowest, population=n_images, level=level)
    return StopCriterion(kind="threshold", select=threshold.select, test=test)


def of_baseline(before: CellResult, select: MaskChoice, max_drop: float, n_images: int, level: float) -> StopCriterion:
    """Return the criterion that is settled once the mean drop against a baseline is tolerated, or is not.

    No case can lose more than the highest IoU of the baseline.

    A baseline that is a sample has only the first images of the order. Where it ended may have depended on the order,
    so given the baseline the order is not random: the answer waits until no image of the sample can change it.
    """
    known = case_values(scored(before.rows), select)
    test = SequentialTest(
        floor=-max_drop - ROUNDING,
        population=before.n_examined if before.is_sample else n_images,
        level=1.0 if before.is_sample else level,
        low=-max(known.values(), default=1.0),
        high=1 - min(known.values(), default=0.0),
    )
    return StopCriterion(kind="baseline", select=select, test=test, before=known)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of a cell.

    Attributes:
        limit: maximum number of cases, None for no limit.
        max_errors: number of cases that may fail; with more of them the cell has failed and may stop.
    """

    limit: int | None
    max_errors: int


class FindingEntry(TypedDict):
    """How a criterion was settled, in ``--seg-json``; ``level`` is that of each of the two bounds of ``interval``."""

    side: Literal["above", "below"]
    floor: float
    n_examined: int
    mean: float
    interval: list[float]
    level: float


class StopEntry(TypedDict):
    """The entry ``until_sure`` of a cell in ``--seg-json``: None where a cell has no such criterion."""

    n_examined: int
    reason: str
    threshold: FindingEntry | None
    baseline: FindingEntry | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How a criterion was settled.

    Attributes:
        criterion: what was settled.
        decision: the answer, and the number of images that settled it.
        values: (T,) the values of all images that the cell looked at, NaN for those that have none.
    """

    criterion: StopCriterion
    decision: Decision
    values: Numbers

    @property
    def mean(self) -> float:
        """Mean of the cases so far."""
        return float(np.nanmean(self.values))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bounds of the mean over all cases; each of the two holds at the test's level."""
        return betting.interval(self.values, self.criterion.test)

    def as_json(self) -> FindingEntry:
        """Return the entry of a criterion in ``until_sure`` of ``--seg-json``."""
        return {
            "side": "above" if self.decision.above else "below",
            "floor": self.criterion.test.floor,
            "n_examined": self.decision.examined,
            "mean": self.mean,
            "interval": list(self.interval),
            "level": self.criterion.test.level,
        }

    def explain(self) -> str:
        """Return the numbers in words."""
        low, high = self.interval
        what = "mean IoU" if self.criterion.kind == "threshold" else "mean difference"
        test = self.criterion.test
        confidence = f"at {100 * test.level:.6g} % to each side"
        if test.level == 1:
            confidence = "whatever the baseline's other cases give"
        return f"{what} {self.mean:.3f} in [{low:.3f}, {high:.3f}] {confidence}, wanted {test.floor:.3f}"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Where a cell stopped before its data set ended.

    Attributes:
        case_ids: the images that were looked at, in order.
        n_images: number of images in the data set.
        findings: how each criterion was settled; some criteria are missing only where too many cases failed.
    """

    case_ids: Sequence[str]
    n_images: int
    findings: Sequence[Finding]

    def finding(self, kind: Literal["threshold", "baseline"]) -> Finding | None:
        """Return how the threshold or the baseline was settled, None where it was not."""
        return next((finding for finding in self.findings if finding.criterion.kind == kind), None)

    def as_json(self) -> StopEntry:
        """Return the entry ``until_sure`` of a cell in ``--seg-json``."""
        threshold, baseline = self.finding("threshold"), self.finding("baseline")
        return {
            "n_examined": len(self.case_ids),
            "reason": self.explain(),
            "threshold": threshold.as_json() if threshold else None,
            "baseline": baseline.as_json() if baseline else None,
        }

    def explain(self) -> str:
        """Return where and why, in words."""
        reasons = "; ".join(finding.explain() for finding in self.findings) or "too many cases failed"
        return f"settled after {len(self.case_ids)} of {self.n_images} images: {reasons}"


def stop(order: Sequence[str], criteria: Sequence[StopCriterion], bounds: Bounds, cases: Cases) -> Stop | None:
    """Return where a cell stops, None where it does not yet.

    Where it stops does not depend on how many cases there are: those evaluated beyond that image do not count.

    Args:
        order: case ids in seeded order.
        criteria: what is to be settled; without any a cell does not stop.
        bounds: limits of the cell.
        cases: rows of each finished case; empty rows for a case that does not belong to the task.
    """
    seen, too_many_errors = _first_cases(order, cases, bounds)
    if not criteria or not seen:
        return None
    tried = [
        (criterion, values := _values(criterion, seen), _decision(criterion, seen, values)) for criterion in criteria
    ]
    ends = [decision.examined for _, _, decision in tried if decision]
    if len(ends) < len(criteria) and not too_many_errors:
        return None
    end = max(ends) if len(ends) == len(criteria) else len(seen)
    findings = [
        Finding(criterion=criterion, decision=decision, values=values[:end])
        for criterion, values, decision in tried
        if decision
    ]
    return Stop(case_ids=order[:end], n_images=len(order), findings=findings)


def _first_cases(
    order: Sequence[str], cases: Cases, bounds: Bounds
) -> tuple[list[tuple[str, Sequence[ResultRow]]], bool]:
    """Return the first cases without a gap, up to the limit, and whether more of them failed than may."""
    seen: list[tuple[str, Sequence[ResultRow]]] = []
    n_cases = n_errors = 0
    for case_id in order:
        if case_id not in cases or n_cases == bounds.limit or n_errors > bounds.max_errors:
            break
        seen.append((case_id, cases[case_id]))
        n_cases += bool(cases[case_id])
        n_errors += _failed(cases[case_id])
    return seen, n_errors > bounds.max_errors


def _failed(rows: Sequence[ResultRow]) -> bool:
    return any(row.error for row in rows)


def _values(criterion: StopCriterion, seen: Sequence[tuple[str, Sequence[ResultRow]]]) -> Numbers:
    images = seen[: criterion.test.population]
    return np.array([criterion.value(case_id, rows) for case_id, rows in images])


def _decision(
    criterion: StopCriterion, seen: Sequence[tuple[str, Sequence[ResultRow]]], values: Numbers
) -> Decision | None:
    decision = betting.decide(values, criterion.test)
    if decision is None or decision.above or criterion.before is None:
        return decision
    images = seen[: len(values)]
    subjects = [(rows[0].subject_id if rows else None) or case_id for case_id, rows in images]
    return _confirmed(decision, list(zip(subjects, values.tolist(), strict=True)))


def _confirmed(decision: Decision, values: Sequence[tuple[str, float]]) -> Decision | None:
    """Return the decision that the mean drop is not tolerated if the gate fails too, None if it does not.

    The gate fails only if its own interval excludes zero as well. That is checked once, as soon as there are subjects
    enough for an interval: an interval that is checked again and again is no longer valid.
    """
    subjects: set[str] = set()
    for examined, (subject, value) in enumerate(values, 1):
        subjects |= set() if math.isnan(value) else {subject}
        if examined >= decision.examined and len(subjects) >= paired.MIN_SUBJECTS:
            gains = [(name, gain) for name, gain in values[:examined] if not math.isnan(gain)]
            interval = paired.confidence_interval(subject_totals(gains))
            return Decision(above=False, examined=examined) if interval and interval[1] < 0 else None
    return None


class Watch:
    """Whether a cell that is being evaluated has stopped.

    Checked again only when the number of cases has grown by a hundredth, so that it costs little for many cases.

    Args:
        look: returns where the cell stops.
    """

    def __init__(self, look: Callable[[Cases], Stop | None]) -> None:
        self._look = look
        self._look_at = 0
        self._stopped = False

    def __call__(self, cases: Cases) -> bool:
        """Return whether the cell, of which ``cases`` are finished by now, needs no more."""
        if not self._stopped and len(cases) >= self._look_at:
            self._look_at = len(cases) + 1 + len(cases) // 100
            self._stopped = self._look(cases) is not None
        return self._stopped
