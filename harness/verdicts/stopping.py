"""When a cell needs no more cases: what its verdict asks, held against the cases so far, in seeded order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

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
    """Something that a verdict depends on.

    Attributes:
        about: the threshold of the cell, or its baseline.
        select: the choice of mask it speaks of.
        terms: of the sequential test.
        before: IoU of each case in the baseline; a case without one does not count. None for a threshold.
    """

    about: Literal["threshold", "baseline"]
    select: MaskChoice
    terms: SequentialTest
    before: Mapping[str, float] | None = None

    def value(self, case_id: str, rows: Sequence[ResultRow]) -> float:
        """Return the case's IoU, or what it gained over the baseline; NaN where it has none or failed."""
        if not rows or _failed(rows):
            return math.nan
        now = case_values(rows, self.select)[case_id]
        return now if self.before is None else now - self.before.get(case_id, math.nan)


def of_threshold(threshold: Threshold, n_images: int, level: float) -> StopCriterion:
    """Ask whether the mean IoU reaches a threshold."""
    terms = SequentialTest(floor=threshold.lowest, population=n_images, level=level)
    return StopCriterion(about="threshold", select=threshold.select, terms=terms)


def of_baseline(before: CellResult, select: MaskChoice, max_drop: float, n_images: int, level: float) -> StopCriterion:
    """Ask whether the mean drop against a baseline is tolerated; no case can lose more than the highest IoU there.

    A baseline that is a sample has the first images of the order alone. Where it ended may have depended on the order,
    which is not random then to whoever knows the baseline: the answer waits until no image of the sample can change it.
    """
    known = case_values(scored(before.rows), select)
    terms = SequentialTest(
        floor=-max_drop - ROUNDING,
        population=before.n_examined if before.is_sample else n_images,
        level=1.0 if before.is_sample else level,
        low=-max(known.values(), default=1.0),
        high=1 - min(known.values(), default=0.0),
    )
    return StopCriterion(about="baseline", select=select, terms=terms, before=known)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Within what a cell is evaluated.

    Attributes:
        limit: number of cases that it is about at most, None for all.
        max_errors: number of cases that may fail; with more there is nothing left to find out.
    """

    limit: int | None
    max_errors: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to a question.

    Attributes:
        question: that was asked.
        decision: the answer, and after how many images it was clear.
        values: (T,) of all images that the cell looked at, NaN for those that have none.
    """

    question: StopCriterion
    decision: Decision
    values: Numbers

    @property
    def mean(self) -> float:
        """Mean of the cases so far."""
        return float(np.nanmean(self.values))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bounds of the mean over all cases; each of the two holds at the question's level."""
        return betting.interval(self.values, self.question.terms)

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a question in ``until_sure`` of ``--seg-json``."""
        return {
            "side": "above" if self.decision.above else "below",
            "floor": self.question.terms.floor,
            "n_examined": self.decision.examined,
            "mean": self.mean,
            "interval": list(self.interval),
            "level": self.question.terms.level,
        }

    def explain(self) -> str:
        """Return the numbers in words."""
        low, high = self.interval
        what = "mean IoU" if self.question.about == "threshold" else "mean difference"
        terms = self.question.terms
        sure = f"at {100 * terms.level:.6g} % to each side"
        if terms.level == 1:
            sure = "whatever the baseline's other cases give"
        return f"{what} {self.mean:.3f} in [{low:.3f}, {high:.3f}] {sure}, wanted {terms.floor:.3f}"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Where a cell stopped before its data set ended.

    Attributes:
        case_ids: the images that were looked at, in order.
        n_images: number of images in the data set.
        findings: what was settled; lacks questions only where too many cases failed.
    """

    case_ids: Sequence[str]
    n_images: int
    findings: Sequence[Finding]

    def finding(self, about: str) -> Finding | None:
        """Return what was found about the threshold or the baseline."""
        return next((found for found in self.findings if found.question.about == about), None)

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``until_sure`` of a cell in ``--seg-json``."""
        found = {about: self.finding(about) for about in ("threshold", "baseline")}
        return {
            "n_examined": len(self.case_ids),
            "reason": self.explain(),
            **{about: finding.as_json() if finding else None for about, finding in found.items()},
        }

    def explain(self) -> str:
        """Return where and why, in words."""
        found = "; ".join(finding.explain() for finding in self.findings) or "too many cases failed"
        return f"settled after {len(self.case_ids)} of {self.n_images} images: {found}"


def stop(order: Sequence[str], questions: Sequence[StopCriterion], bounds: Bounds, cases: Cases) -> Stop | None:
    """Return where a cell stops, None where it does not yet: of its first images only as many count as it needs.

    Where that is does not depend on how many cases are there: all that has been evaluated beyond it is left aside.

    Args:
        order: case ids in seeded order.
        questions: what is to be settled; without any a cell does not stop.
        bounds: within which the cell is evaluated.
        cases: rows of each finished case; empty rows for a case that does not belong to the task.
    """
    seen, too_many_errors = _first_cases(order, cases, bounds)
    if not questions or not seen:
        return None
    found = [(question, values := _values(question, seen), _answer(question, seen, values)) for question in questions]
    ends = [decision.examined for _, _, decision in found if decision]
    if len(ends) < len(questions) and not too_many_errors:
        return None
    end = max(ends) if len(ends) == len(questions) else len(seen)
    findings = [Finding(question=asked, decision=d, values=values[:end]) for asked, values, d in found if d]
    return Stop(case_ids=order[:end], n_images=len(order), findings=findings)


def _first_cases(
    order: Sequence[str], cases: Cases, bounds: Bounds
) -> tuple[list[tuple[str, Sequence[ResultRow]]], bool]:
    """Return the cases that are there without a gap, up to the limit, and whether more of them failed than may."""
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


def _values(question: StopCriterion, seen: Sequence[tuple[str, Sequence[ResultRow]]]) -> Numbers:
    images = seen[: question.terms.population]
    return np.array([question.value(case_id, rows) for case_id, rows in images])


def _answer(
    question: StopCriterion, seen: Sequence[tuple[str, Sequence[ResultRow]]], values: Numbers
) -> Decision | None:
    decision = betting.decide(values, question.terms)
    if decision is None or decision.above or question.before is None:
        return decision
    images = seen[: len(values)]
    subjects = [(rows[0].subject_id if rows else None) or case_id for case_id, rows in images]
    return _confirmed(decision, list(zip(subjects, values.tolist(), strict=True)))


def _confirmed(decision: Decision, values: Sequence[tuple[str, float]]) -> Decision | None:
    """Return the decision that the mean drop is not tolerated where the gate fails too, None where it does not.

    It fails only if its own interval excludes zero as well. That is looked at once, as soon as there can be one: an
    interval that is looked at again and again is no longer valid.
    """
    subjects: set[str] = set()
    for examined, (subject, value) in enumerate(values, 1):
        subjects |= set() if math.isnan(value) else {subject}
        if examined >= decision.examined and len(subjects) >= paired.MIN_SUBJECTS:
            found = [(name, gain) for name, gain in values[:examined] if not math.isnan(gain)]
            interval = paired.confidence_interval(subject_totals(found))
            return Decision(above=False, examined=examined) if interval and interval[1] < 0 else None
    return None


class Watch:
    """Says of a running evaluation whether a cell has stopped.

    Looks again only when the cases have grown by a hundredth, so that looking costs little however many there are.

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
