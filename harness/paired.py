"""Two runs over the same cases: differences, intervals, p-values, and what could have been found. Pure functions.

All intervals and tests are over subjects, as the cases of one subject are not independent; a case whose subject is not
known counts as a subject of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from promptseg.results import Row
from promptseg.scores import case_values, resampled_means, subject_totals
from promptseg.specs import Select, Stratum

LEVEL = 0.95
MIN_SUBJECTS = 10
"""Fewer subjects have no interval: the bootstrap's would be too narrow (docs/gates.md has the simulation)."""
FLIPS = 10_000
_FLIPPED_TOGETHER = 256  # subjects; bounds the memory
_WORST = 3
ROUNDING = 1e-9  # of sums and differences of numbers with few digits


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One case in two runs.

    Attributes:
        case_id: the image's id.
        subject: the patient, else the case itself.
        before, after: IoU in each run; of an iterative mode the mean over clicks.
        area_fraction: target pixels / image pixels.
        n_components: number of parts of the target.
    """

    case_id: str
    subject: str
    before: float
    after: float
    area_fraction: float = 0.0
    n_components: int = 1

    @property
    def delta(self) -> float:
        """After less before: negative where the case got worse."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired comparison of two runs.

    Attributes:
        n, n_subjects: cases that both runs scored, and their subjects.
        before, after: mean IoU of these cases in each run.
        delta: mean difference, after less before.
        level: of the interval.
        interval: of ``delta``; None for fewer than `MIN_SUBJECTS` subjects.
        p: two-sided, of the hypothesis that the two runs could be exchanged.
        detectable: the smallest true drop that fails a gate in at least 95 % of runs (see `detectable_drop`), None
            where nothing can be said.
        worst: up to three cases that lost most, worst first.
    """

    n: int
    n_subjects: int
    before: float
    after: float
    delta: float
    level: float
    interval: tuple[float, float] | None
    p: float
    detectable: float | None
    worst: tuple[Pair, ...]


def pair(before: Iterable[Row], after: Iterable[Row], select: Select) -> list[Pair]:
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


def scored(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the cases that did not fail."""
    rows = list(rows)
    failed = {row.case_id for row in rows if row.error}
    return [row for row in rows if row.case_id not in failed]


def compare(pairs: Sequence[Pair], max_drop: float, level: float = LEVEL) -> Comparison:
    """Compare two runs over at least one case.

    Args:
        pairs: the cases.
        max_drop: the mean drop that a gate tolerates, which the detectable drop depends on.
        level: of the interval.
    """
    totals = subject_totals((p.subject, p.delta) for p in pairs)
    return Comparison(
        n=len(pairs),
        n_subjects=len(totals),
        before=_mean(p.before for p in pairs),
        after=_mean(p.after for p in pairs),
        delta=_mean(p.delta for p in pairs),
        level=level,
        interval=confidence_interval(totals, level),
        p=sign_flip_p(totals[:, 0]),
        detectable=detectable_drop(totals, max_drop, level),
        worst=tuple(sorted((p for p in pairs if p.delta < 0), key=lambda p: (p.delta, p.case_id))[:_WORST]),
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def drops(comparison: Comparison, max_drop: float) -> bool:
    """Whether the mean drop exceeds what is tolerated."""
    return -comparison.delta > max_drop + ROUNDING


def surely_worse(comparison: Comparison) -> bool:
    """Whether the whole interval is below zero."""
    return comparison.interval is not None and comparison.interval[1] < 0


def confidence_interval(totals: npt.NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """Return the bootstrap interval of a mean, None for fewer than `MIN_SUBJECTS` subjects.

    The percentile interval at expanded levels, which undoes its being too narrow for few subjects: by sqrt((S - 1) / S)
    and by the difference between the normal and Student's distribution (T. Hesterberg, "What Teachers Should Know About
    the Bootstrap", The American Statistician 69, 2015, section 4.2).

    Args:
        totals: of `promptseg.scores.subject_totals`.
        level: for example 0.95.
    """
    count = len(totals)
    if count < MIN_SUBJECTS:
        return None
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t_quantile((1 + level) / 2, count - 1))
    low, high = np.quantile(resampled_means(totals), [tail, 1 - tail])
    return float(low), float(high)


def t_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's distribution, for at least `MIN_SUBJECTS` - 1 degrees of freedom to three digits.

    The expansion of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z, v = NormalDist().inv_cdf(probability), freedom
    return math.fsum(
        (
            z,
            (z**3 + z) / (4 * v),
            (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2),
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3),
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4),
        )
    )


def standard_error(totals: npt.NDArray[np.float64]) -> float:
    """Return the standard error of a mean over the cases of at least two subjects.

    With the sum s_i and the number n_i of each of S subjects' values, N values in all and their mean m:
    sqrt(S / (S - 1) * sum((s_i - m n_i)^2)) / N.
    """
    count = len(totals)
    sums, numbers = totals.T
    residuals = sums - sums.sum() / numbers.sum() * numbers
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(numbers.sum())


def detectable_drop(totals: npt.NDArray[np.float64], max_drop: float, level: float = LEVEL) -> float | None:
    """Return the smallest true drop that a gate fails on in at least 95 % of runs, at the spread of these differences.

    max(max_drop, t SE) + t95 SE: a gate fails where the measured drop exceeds ``max_drop`` and where the interval,
    about t SE wide to each side, ends below zero; the second term is the margin for chance. t is Student's quantile
    for the level of the interval; t95, the one for 95 % to both sides, aims at 97.5 % of runs, so that 95 are left
    where differences are skewed.

    None for fewer than `MIN_SUBJECTS` subjects, and where no case differs: there is no spread to go by.
    """
    count = len(totals)
    if count < MIN_SUBJECTS:
        return None
    error = standard_error(totals)
    if error == 0:
        return None
    wide, margin = (t_quantile((1 + side) / 2, count - 1) * error for side in (level, LEVEL))
    return max(max_drop, wide) + margin


def sign_flip_p(sums: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p-value of subjects' sums of differences, (S,), if each could as well have the other sign.

    All signs are tried where there are at most `FLIPS` of them, else a seeded sample of so many, with the signs that
    were found among them (B. Phipson and G. Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010), so it is never zero.
    """
    found = abs(float(sums.sum()))
    slack = ROUNDING * float(np.abs(sums).sum())
    if 2 ** len(sums) <= FLIPS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= found - slack))
    rng = np.random.default_rng(0)
    flipped = np.zeros(FLIPS - 1)
    for start in range(0, len(sums), _FLIPPED_TOGETHER):
        part = sums[start : start + _FLIPPED_TOGETHER]
        flipped += (1 - 2.0 * rng.integers(2, size=(FLIPS - 1, len(part)), dtype=np.int8)) @ part
    return float(1 + np.sum(np.abs(flipped) >= found - slack)) / FLIPS


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (S. Holm, Scand. J. Statist. 6, 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


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
