"""Sequential test of a mean by betting: is the mean of a finite population at least a floor? Pure functions of arrays.

Notation of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc.
B 86 (2024): X_t is the t-th value, m the floor, N the size of the population, K_t the capital of a bettor after t
values. Values are drawn in random order without replacement, so under the hypothesis that the mean is m the value X_t
has the conditional mean

    m_t = (N m - (X_1 + ... + X_{t-1})) / (N - t + 1)                                               (their section 5)

A bettor who claims that the mean is larger stakes lambda_t >= 0, chosen before X_t is seen, and owns

    K_t = (1 + lambda_1 (X_1 - m_1)) ... (1 + lambda_t (X_t - m_t))                                 (their section 4)

K_t is a nonnegative martingale if the mean is m, and a supermartingale if it is smaller, however lambda_t is chosen. So
the probability that K_t ever reaches 1 / (1 - level) is at most 1 - level (Ville's inequality): when it does, the claim
is accepted. A second bettor claims that the mean is smaller, with the same test of -X_t and -m.

The population is the images of a data set. How many of them belong to the task need not be known: an image that does
not has the value m, which does not change on which side of m the mean is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Distances d of the mean from the floor, each with the fraction of the capital that is bet as is best at that distance.
# They decide how soon a test ends, not whether it is right.
_DISTANCES = {0.0125: 0.1, 0.025: 0.2, 0.05: 0.4, 0.1: 0.2, 0.2: 0.1}
_MAX_LOSS = 0.99  # largest fraction of the capital that one value can cost, so that no value bankrupts the bettor
_HALF_AT = 100  # images; population at which half of the capital follows the maximum-stake strategy
_MIN_RANGE = 1e-9  # of m_t above the smallest possible value; less is rounding
_PRIOR_VARIANCE = 0.25**2  # of IoU; weighs as much as one value
_MIN_VARIANCE = 1e-4
_STEP = 0.0025  # between the means that `interval` tests
_AT_ONCE = 2**18  # numbers; bounds the memory

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """The test of one mean.

    Attributes:
        floor: m, that the mean is compared with.
        population: N, number of images in the data set.
        level: confidence of the decision, whatever the values are; 1 asks for certainty: the images left must not be
            able to change the decision.
        low: lower bound of the values.
        high: upper bound of the values.
    """

    floor: float
    population: int
    level: float
    low: float = 0.0
    high: float = 1.0

    @property
    def log_wealth(self) -> float:
        """Logarithm of 1 / (1 - level): the capital at which a claim is accepted."""
        return -math.log1p(-self.level) if self.level < 1 else math.inf


class Decision(NamedTuple):
    """The accepted claim: whether the mean is at least the floor, and after how many images that was decided."""

    above: bool
    examined: int


def decide(values: Numbers, test: SequentialTest) -> Decision | None:
    """Return the claim that the first T images decide, None while they decide neither.

    Args:
        values: (T,) of the first T images in random order, NaN for images that do not belong to the task.
        test: the test.
    """
    above, below = (int(side) for side in settled_after(values, test))
    if not above and not below:
        return None
    is_above = bool(above) and (not below or above <= below)
    return Decision(is_above, above if is_above else below)


def settled_after(values: Numbers, test: SequentialTest) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return after how many images each claim is accepted: that the mean is at least the floor, and that it is not.

    0 stands for never.

    Args:
        values: (..., T), as for `decide`.
        test: the test.
    """
    rising = log_capital(values, test.floor, test.low, test.population)
    falling = log_capital(-values, -test.floor, -test.high, test.population)
    scored = np.cumsum(~np.isnan(values), axis=-1) > 0
    return _first(scored & (rising >= test.log_wealth)), _first(scored & (falling >= test.log_wealth))


def _first(reached: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the number of the first True along the last axis, counted from one; 0 where there is none."""
    return np.asarray(np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, 0))


def log_capital(values: Numbers, floor: float | Numbers, low: float, population: int) -> Numbers:
    """Return log K_t after each image, for the claim that the mean exceeds the floor; K_0 = 1.

    K_t is a mixture of strategies, the weights fixed before the first image:

    - for each distance d of `_DISTANCES`: lambda_t = d_t / (v_t + d_t^2), where d_t = d N / (N - t + 1) is the distance
      that the images left must have, and v_t the variance of the values before X_t; at most the maximum stake;
    - the maximum stake, lambda_t = `_MAX_LOSS` / (m_t - low), with the weight `_HALF_AT` / (`_HALF_AT` + N): in a small
      population the last doubt to go is that all images left have the smallest possible value.

    Infinite from where the images left cannot bring the mean down to the floor any more.

    Args:
        values: (..., T) in random order, NaN for images that do not belong to the task.
        floor: m, a number or an array that broadcasts with ``values``.
        low: lower bound of the values.
        population: N, at least T.
    """
    seen = ~np.isnan(values)
    excess = np.where(seen, values - floor, 0.0)  # X_t - m; all below is relative to m
    smallest = np.minimum(low - np.asarray(floor), 0.0)  # images that do not belong to the task count as 0
    left = population - np.arange(values.shape[-1], dtype=np.float64)  # N - t + 1
    total = np.cumsum(excess, axis=-1)
    mean = -(total - excess) / left  # m_t - m
    max_stake = _MAX_LOSS / np.maximum(mean - smallest, _MIN_RANGE)
    variance = _variance_before(excess, seen)
    max_stake_weight = _HALF_AT / (_HALF_AT + population)
    capital = np.log(max_stake_weight) + _log_growth(max_stake, excess - mean)
    for distance, weight in _DISTANCES.items():
        scaled = distance * population / left
        stake = np.minimum(scaled / (variance + scaled**2), max_stake)
        capital = np.logaddexp(capital, np.log(weight * (1 - max_stake_weight)) + _log_growth(stake, excess - mean))
    certain = np.maximum.accumulate(total + (left - 1) * smallest > 0, axis=-1)
    return np.where(certain, np.inf, capital)


def _log_growth(stake: Numbers, surprise: Numbers) -> Numbers:
    """Return the sum of log(1 + lambda_i (X_i - m_i)) up to each image."""
    return np.asarray(np.cumsum(np.log1p(stake * surprise), axis=-1))


def _variance_before(excess: Numbers, seen: npt.NDArray[np.bool_]) -> Numbers:
    """Return v_t, the variance of the values before each image; `_PRIOR_VARIANCE` counts as one more value."""
    count = np.cumsum(seen, axis=-1) - seen + 1
    mean = (np.cumsum(excess, axis=-1) - excess) / count
    squares = (np.cumsum(excess**2, axis=-1) - excess**2 + _PRIOR_VARIANCE) / count
    return np.asarray(np.maximum(squares - mean**2, _MIN_VARIANCE))


def interval(values: Numbers, test: SequentialTest) -> tuple[float, float]:
    """Return bounds of the mean, each of which holds at the level of the test whenever one stops looking.

    A floor is refuted where the bettor against it reaches the capital of the test. Both bounds are rounded outwards to
    multiples of a fixed step, but not across the floor of the test once the side of the mean is decided.

    Args:
        values: (T,), as for `decide`.
        test: the test; its floor matters for that rounding alone.
    """
    steps = np.arange(0.0, test.high - test.low, _STEP)
    lowest = test.low + _refuted(values, test.low + steps, test.low, test)
    highest = test.high - _refuted(-values, steps - test.high, -test.high, test)
    decision = decide(values, test)
    if decision is None:
        return lowest, highest
    return (max(lowest, test.floor), highest) if decision.above else (lowest, min(highest, test.floor))


def _refuted(values: Numbers, floors: Numbers, low: float, test: SequentialTest) -> float:
    """Return how far the mean is above the first of some rising floors: up to the last one before one that stands."""
    at_once = max(1, _AT_ONCE // len(values))
    count = 0
    for start in range(0, len(floors), at_once):
        some = floors[start : start + at_once, None]
        refuted = log_capital(values[None], some, low, test.population).max(axis=-1) >= test.log_wealth
        run = int(np.argmin(refuted)) if not refuted.all() else len(refuted)
        count += run
        if run < len(refuted):
            break
    return float(floors[count - 1] - floors[0]) if count else 0.0
