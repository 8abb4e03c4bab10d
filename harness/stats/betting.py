"""When enough cases are seen: is a mean over a finite population at least so much? Pure functions of arrays.

A gambler bets, case after case, that the mean lies above the floor; another one that it lies below. Cases are drawn in
random order without replacement, so that, if the first one is wrong, no way of betting is expected to win: the chance
that he ever owns 1 / (1 - level) times what he began with is at most 1 - level (Ville's inequality), and when he does,
he is believed. I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat.
Soc. B 86 (2024): the capital process is their section 4, without replacement their section 5.

The population are the images of a data set. How many of them belong to the task need not be known: one that does not
counts as exactly the floor, which leaves the side on which the mean lies as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Part of the capital that bets as is best where the mean is that far from the floor; they only set how soon it settles.
_BETS = {0.0125: 0.1, 0.025: 0.2, 0.05: 0.4, 0.1: 0.2, 0.2: 0.1}
_MOST = 0.99  # of what a case can lose is staked at most, so that no single one ruins
_SMALL = 100  # images; of so many half of the capital stakes the most on each
_LEAST_ROOM = 1e-9  # that is staked on; less is rounding
_PRIOR_VARIANCE = 0.25**2  # of IoU, as much as one case tells
_LEAST_VARIANCE = 1e-4
_STEP = 0.0025  # between the means that `interval` tries
_TOGETHER = 2**18  # numbers; bounds the memory

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """What is asked: is the mean at least ``floor``?

    Attributes:
        floor: that the mean is held against.
        population: number of images in the data set.
        level: chance of being right that is asked for, whatever the values are; 1 where the images left must not be
            able to change the answer.
        low, high: between which all values lie.
    """

    floor: float
    population: int
    level: float
    low: float = 0.0
    high: float = 1.0

    @property
    def wanted(self) -> float:
        """Logarithm of the capital at which a gambler is believed."""
        return -math.log1p(-self.level) if self.level < 1 else math.inf


class Decision(NamedTuple):
    """On which side of the floor the mean lies, and after how many images that was settled."""

    above: bool
    examined: int


def decide(values: Numbers, terms: SequentialTest) -> Decision | None:
    """Return what the first images settle, None if nothing yet.

    Args:
        values: (T,) of the first T images in random order, NaN for those that have none.
        terms: what is asked.
    """
    above, below = (int(side) for side in settled_after(values, terms))
    if not above and not below:
        return None
    is_above = bool(above) and (not below or above <= below)
    return Decision(is_above, above if is_above else below)


def settled_after(values: Numbers, terms: SequentialTest) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return after how many images it is settled that the mean is at least the floor, and that it is not; 0 for never.

    Args:
        values: (..., T), as for `decide`.
        terms: what is asked.
    """
    rising = log_capital(values, terms.floor, terms.low, terms.population)
    falling = log_capital(-values, -terms.floor, -terms.high, terms.population)
    scored = np.cumsum(~np.isnan(values), axis=-1) > 0
    wanted = terms.wanted
    return _first(scored & (rising >= wanted)), _first(scored & (falling >= wanted))


def _first(reached: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the number of the first True along the last axis, counted from one; 0 where there is none."""
    return np.asarray(np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, 0))


def log_capital(values: Numbers, floor: float | Numbers, low: float, population: int) -> Numbers:
    """Return the logarithm of what a gambler owns after each image who bets that the mean exceeds the floor, from 0.

    The conditional mean m of the next image's excess over the floor is known if the mean is the floor: all excesses
    together are zero then. A bet of l makes l (excess - m) of every unit; for each distance d of `_BETS`, scaled to the
    images that are left, l = d / (variance + d^2), at most `_MOST` / (m - least excess). Another part of the capital,
    `_SMALL` / (`_SMALL` + population), always stakes that most: of a small population the doubt that lasts longest is
    whether the images left are all as low as can be. Ville's inequality asks only that the parts are fixed before the
    first image and that every l depends on earlier images alone. Infinite once the images left cannot bring the mean
    down to the floor.

    Args:
        values: (..., T) in random order, NaN for images that have none.
        floor: one, or an array that broadcasts with ``values``.
        low: of which no value is less.
        population: number of images, at least T.
    """
    seen = ~np.isnan(values)
    excess = np.where(seen, values - floor, 0.0)
    least = np.minimum(low - np.asarray(floor), 0.0)  # images that have no value count as 0
    left = population - np.arange(values.shape[-1], dtype=np.float64)
    total = np.cumsum(excess, axis=-1)
    mean = -(total - excess) / left
    most = _MOST / np.maximum(mean - least, _LEAST_ROOM)
    variance = _variance_before(excess, seen)
    part_of_most = _SMALL / (_SMALL + population)
    gained = np.log(part_of_most) + _log_growth(most, excess - mean)
    for distance, part in _BETS.items():
        scaled = distance * population / left
        bet = np.minimum(scaled / (variance + scaled**2), most)
        gained = np.logaddexp(gained, np.log(part * (1 - part_of_most)) + _log_growth(bet, excess - mean))
    certain = np.maximum.accumulate(total + (left - 1) * least > 0, axis=-1)
    return np.where(certain, np.inf, gained)


def _log_growth(bet: Numbers, surprise: Numbers) -> Numbers:
    """Return the logarithm of what a unit has become after each image."""
    return np.asarray(np.cumsum(np.log1p(bet * surprise), axis=-1))


def _variance_before(excess: Numbers, seen: npt.NDArray[np.bool_]) -> Numbers:
    """Return the variance of the values before each image."""
    count = np.cumsum(seen, axis=-1) - seen + 1
    mean = (np.cumsum(excess, axis=-1) - excess) / count
    squares = (np.cumsum(excess**2, axis=-1) - excess**2 + _PRIOR_VARIANCE) / count
    return np.asarray(np.maximum(squares - mean**2, _LEAST_VARIANCE))


def interval(values: Numbers, terms: SequentialTest) -> tuple[float, float]:
    """Return between which bounds the mean lies; each of the two holds at the level of the terms, whenever one stops.

    Both are rounded outwards to multiples of a fixed step, but never across a floor on whose side the mean was settled.

    Args:
        values: (T,), as for `decide`.
        terms: what is asked; the bounds do not depend on its floor but for that rounding.
    """
    steps = np.arange(0.0, terms.high - terms.low, _STEP)
    lowest = terms.low + _run(values, terms.low + steps, terms.low, terms)
    highest = terms.high - _run(-values, steps - terms.high, -terms.high, terms)
    decision = decide(values, terms)
    if decision is None:
        return lowest, highest
    return (max(lowest, terms.floor), highest) if decision.above else (lowest, min(highest, terms.floor))


def _run(values: Numbers, floors: Numbers, low: float, terms: SequentialTest) -> float:
    """Return by how much the mean exceeds the lowest of rising floors for sure."""
    wanted = terms.wanted
    together = max(1, _TOGETHER // len(values))
    reached = 0
    for start in range(0, len(floors), together):
        some = floors[start : start + together, None]
        refuted = log_capital(values[None], some, low, terms.population).max(axis=-1) >= wanted
        run = int(np.argmin(refuted)) if not refuted.all() else len(refuted)
        reached += run
        if run < len(refuted):
            break
    return float(floors[reached - 1] - floors[0]) if reached else 0.0
