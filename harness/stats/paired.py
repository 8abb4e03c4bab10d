"""Paired comparison of two runs over the same cases: differences, intervals, p-values, detectable drops. Pure.

Intervals and tests resample subjects, since the cases of one subject are not independent; a case whose subject is
unknown is a subject of its own. Symbols: S subjects; s_i the sum and n_i the number of the differences of subject i;
N = n_1 + ... + n_S; the mean difference m = (s_1 + ... + s_S) / N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from promptseg.stats.bootstrap import resampled_sums, subject_totals
from promptseg.stats.means import ROUNDING, mean

LEVEL = 0.95
MIN_SUBJECTS = 10
"""Fewer subjects have no interval: that of the bootstrap would be too narrow (docs/gates.md has the simulation)."""
MIN_ANNOUNCED = 20
"""Fewer subjects have no detectable drop: their spread says too little about that of other subjects."""
FLIPS = 10_000  # sign patterns at most
_N_WORST = 3  # cases that a comparison names
_MIN_ERROR = 0.2  # of the standard error at hand: the smallest that a bootstrap draw may have


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
        p: two-sided, of the null hypothesis that the two runs are exchangeable.
        detectable: minimum detectable drop: the smallest true drop that fails a gate in at least 95 % of runs (see
            `detectable_drop`); None where it cannot be computed.
        worst: up to three cases with the largest loss, largest first.
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


def compare(pairs: Sequence[Pair], max_drop: float, level: float = LEVEL) -> Comparison:
    """Compare two runs over at least one case.

    Args:
        pairs: the cases.
        max_drop: the mean drop that a gate tolerates; the detectable drop depends on it.
        level: of the interval.
    """
    totals = subject_totals((p.subject, p.delta) for p in pairs)
    mean_before = mean(p.before for p in pairs)
    return Comparison(
        n=len(pairs),
        n_subjects=len(totals),
        before=mean_before,
        after=mean(p.after for p in pairs),
        delta=mean(p.delta for p in pairs),
        level=level,
        interval=confidence_interval(totals, level),
        p=sign_flip_p(totals[:, 0]),
        detectable=detectable_drop(totals, mean_before, max_drop, level),
        worst=tuple(sorted((p for p in pairs if p.delta < 0), key=lambda p: (p.delta, p.case_id))[:_N_WORST]),
    )


def drops(comparison: Comparison, max_drop: float) -> bool:
    """Whether the mean drop exceeds the tolerated one."""
    return -comparison.delta > max_drop + ROUNDING


def significantly_worse(comparison: Comparison) -> bool:
    """Whether the whole interval is below zero."""
    return comparison.interval is not None and comparison.interval[1] < 0


def confidence_interval(totals: npt.NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """Return the bootstrap interval of the mean difference m, None for fewer than `MIN_SUBJECTS` subjects.

    Each end is the outer one of `_percentiles` and `_studentised`: a few subjects may not include the rare large
    differences, and neither interval alone covers all real data often enough (docs/gates.md has the simulation).

    Args:
        totals: of `promptseg.verdicts.summary.subject_totals`, of differences in [-1, 1].
        level: for example 0.95.
    """
    if len(totals) < MIN_SUBJECTS:
        return None
    lows, highs = zip(_percentiles(totals, level), _studentised(totals, level), strict=True)
    return max(-1.0, min(lows)), min(1.0, max(highs))


def _percentiles(totals: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the percentile interval of the bootstrap, with one made-up subject added.

    The added subject has n = N / S differences of the size max |s_i / n_i|: losses for the lower end, gains for the
    upper end, since without a true change both are equally likely. The levels are expanded by sqrt(S / (S - 1)), with
    S counting the added subject, and from the normal to Student's distribution (T. Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69, 2015, section 4.2).
    """
    count = len(totals) + 1
    change = float(np.abs(totals[:, 0] / totals[:, 1]).max())
    further = np.array([0.0, 1.0, change]) * totals[:, 1].mean()
    sums, numbers, changes = resampled_sums(np.vstack([np.pad(totals, ((0, 0), (0, 1))), further])).T
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t_quantile((1 + level) / 2, count - 1))
    low = np.quantile((sums - changes) / numbers, tail)
    high = np.quantile((sums + changes) / numbers, 1 - tail)
    return float(low), float(high)


def _studentised(totals: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the bootstrap-t interval, which follows the skew (B. Efron and R. Tibshirani, 1993, section 12.5).

    Each draw gives t = (m* - m) / se*. A draw without the subjects that differ has hardly any spread, so se* is taken
    to be at least `_MIN_ERROR` times the standard error at hand.
    """
    mean, error = _mean_of(totals), standard_error(totals)
    if error <= ROUNDING:
        return mean, mean
    count = len(totals)
    residuals, numbers = totals[:, 0] - mean * totals[:, 1], totals[:, 1]
    products = (residuals, numbers, residuals**2, residuals * numbers, numbers**2)
    r, n, rr, rn, nn = resampled_sums(np.stack(products, axis=1)).T
    shift = r / n
    squares = np.maximum(rr - 2 * shift * rn + shift**2 * nn, 0)
    errors = np.maximum(np.sqrt(count / (count - 1) * squares) / n, _MIN_ERROR * error)
    low, high = np.quantile(shift / errors, [(1 - level) / 2, (1 + level) / 2])
    return mean - float(high) * error, mean - float(low) * error


def _mean_of(totals: npt.NDArray[np.float64]) -> float:
    return float(totals[:, 0].sum() / totals[:, 1].sum())


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

    It is that of a ratio of sums over clusters: sqrt(S / (S - 1) * sum((s_i - m n_i)^2)) / N.
    """
    count = len(totals)
    residuals = _residuals(totals)
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(totals[:, 1].sum())


def _residuals(totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (S,) residuals s_i - m n_i."""
    sums, numbers = totals.T
    return np.asarray(sums - sums.sum() / numbers.sum() * numbers)


def detectable_drop(
    totals: npt.NDArray[np.float64], before: float, max_drop: float, level: float = LEVEL
) -> float | None:
    """Return the minimum detectable drop: the smallest true drop that a gate fails in at least 95 % of runs.

    It is max(max_drop, t U) + t95 U, with the quantiles t of Student's distribution for the level of the interval and
    t95 for 95 %. A gate fails where the measured drop exceeds ``max_drop`` and the interval ends below zero (first
    term); the measured drop varies around the true one (second term). U bounds the standard error on other cases of the
    same kind: U = se + (2 + 80 / S) max |s_i - m n_i| / N; 2 and 80 come from the simulation in docs/gates.md.

    None for fewer than `MIN_ANNOUNCED` subjects; where no case differs, so that no spread is known; and where the drop
    would exceed the mean IoU ``before``, the largest possible loss.
    """
    count = len(totals)
    if count < MIN_ANNOUNCED:
        return None
    error = standard_error(totals)
    if error <= ROUNDING:
        return None
    largest = float(np.abs(_residuals(totals)).max() / totals[:, 1].sum())
    bound = error + (2 + 80 / count) * largest
    wide, margin = (t_quantile((1 + side) / 2, count - 1) * bound for side in (level, LEVEL))
    drop = max(max_drop, wide) + margin
    return drop if drop < before else None


def sign_flip_p(sums: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the sign-flip test.

    Under the null hypothesis the signs of the s_i are independent, and either one is equally likely.
    All 2^S sign patterns are enumerated where there are at most `FLIPS`; otherwise p comes from `FLIPS` patterns: the
    observed one and a seeded sample (B. Phipson and G. Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010), so p is never 0.

    Args:
        sums: (S,) the sums s_i of the subjects' differences.
    """
    observed = abs(float(sums.sum()))
    slack = ROUNDING * float(np.abs(sums).sum())
    if 2 ** len(sums) <= FLIPS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed - slack))
    return float(1 + np.sum(np.abs(_flipped(sums)) >= observed - slack)) / FLIPS


def _flipped(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (`FLIPS` - 1,) totals under random signs: a random byte picks the signs of eight subjects at once."""
    padded = np.pad(sums, (0, -len(sums) % 8)).reshape(-1, 8)
    signs = 1 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    rng = np.random.default_rng(0)
    flipped = np.zeros(FLIPS - 1)
    for by_byte in padded @ signs.T:
        flipped += by_byte[rng.integers(256, size=FLIPS - 1, dtype=np.uint8)]
    return flipped


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (S. Holm, Scand. J. Statist. 6, 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
