"""When enough cases are seen: how the test bets, how seldom it errs, and that its numbers are those of the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from promptseg.stats import betting
from promptseg.stats.betting import SequentialTest

RUNS = 2000


def in_random_order(values: np.ndarray, runs: int = RUNS, outside: int = 0) -> np.ndarray:
    """Return (runs, T) random orders of the values and of some images that have none."""
    images = np.concatenate([values, np.full(outside, np.nan)])
    return np.random.default_rng(0).permuted(np.tile(images, (runs, 1)), axis=1)


def wrong(orders: np.ndarray, terms: SequentialTest, *, above: bool) -> float:
    """Return how often the wrong side is settled, where ``above`` is the right one."""
    up, down = betting.settled_after(orders, terms)
    is_above = (up > 0) & ((down == 0) | (up <= down))
    return float(np.mean((down > 0) & ~is_above if above else is_above))


@pytest.mark.parametrize("outside", [0, 60])
@pytest.mark.parametrize("values", [np.linspace(0, 1, 90), np.repeat([0.02, 0.9], [30, 60]), np.repeat([0.0, 1.0], 40)])
def test_the_wrong_side_is_seldom_settled_even_where_the_mean_is_the_floor(values: np.ndarray, outside: int) -> None:
    """At most 1 %, give or take chance, in the worst case: the mean is a hair from the floor."""
    orders = in_random_order(values, outside=outside)[:, :-1]  # the last image would settle it by arithmetic
    mean = float(values.mean())
    for hair in (1e-6, -1e-6):
        terms = SequentialTest(floor=mean + hair, population=len(values) + outside, level=0.99)
        assert wrong(orders, terms, above=hair < 0) <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / RUNS)


def test_capital_grows_as_bets_of_the_formula_make_it() -> None:
    """Two cases by hand: variance 1/16 before the first, the second one's mean follows from three images left.

    Of four images 100 parts in 104 of the capital stake the most, 0.99 of what can be lost.
    """
    values, floor, population = np.array([0.9, 0.7]), 0.5, 4
    found = betting.log_capital(values, floor, 0.0, population)
    bets = {0.0125: 0.1, 0.025: 0.2, 0.05: 0.4, 0.1: 0.2, 0.2: 0.1}
    parts = {d: part * 4 / 104 for d, part in bets.items()} | {math.inf: 100 / 104}
    first = {d: 1 + min(d / (1 / 16 + d**2), 0.99 / 0.5) * 0.4 for d in bets} | {math.inf: 1 + 0.99 / 0.5 * 0.4}
    mean, variance = -0.4 / 3, (0.4**2 + 1 / 16) / 2 - 0.2**2
    most = 0.99 / (mean + 0.5)
    second = {d: 1 + min(e / (variance + e**2), most) * (0.2 - mean) for d in bets for e in [d * 4 / 3]}
    second[math.inf] = 1 + most * (0.2 - mean)
    assert np.exp(found[0]) == pytest.approx(sum(parts[d] * first[d] for d in parts))
    assert np.exp(found[1]) == pytest.approx(sum(parts[d] * first[d] * second[d] for d in parts))


def test_what_the_images_left_cannot_change_is_certain() -> None:
    """Of four images three at 1: the mean is at least 0.75 whatever the last one has; before, nothing is certain."""
    terms = SequentialTest(floor=0.74, population=4, level=0.9999)
    assert betting.decide(np.ones(2), terms) is None
    assert betting.decide(np.ones(3), terms) == (True, 3)
    assert betting.decide(np.zeros(2), SequentialTest(floor=0.51, population=4, level=0.9999)) == (False, 2)


def test_without_any_doubt_only_arithmetic_settles() -> None:
    """At level 1 an answer waits until the images left cannot change it, however well the bets went."""
    values = np.repeat([0.9, 0.0], [60, 40])
    terms = SequentialTest(floor=0.5, population=100, level=1)
    assert betting.decide(values[:50], terms) is None
    assert betting.decide(values, terms) == (True, 56)  # 55 of 0.9 are 49.5, not yet 50
    assert betting.interval(values[:50], terms) == (0.4475, 0.9525)  # 0.45 and 0.95, a step outwards


def test_little_room_is_no_place_for_rounding() -> None:
    """The mean is a hair below the floor, all cases left are at the bottom: nobody wins by an error of rounding."""
    values = np.concatenate([np.full(30, 0.7), np.zeros(60)])
    for hair in (1e-13, 1e-12, 1e-10, 1e-8):
        capital = betting.log_capital(values, values.mean() + hair, 0.0, len(values))
        assert np.isfinite(capital).all()
        assert capital[30:].max() <= capital[30]


def test_images_without_a_case_settle_nothing() -> None:
    """Without a case there is no mean to speak of, and a mean at the floor stays there."""
    terms = SequentialTest(floor=0.5, population=100, level=0.99)
    assert betting.decide(np.full(99, np.nan), terms) is None
    assert betting.decide(np.array([np.nan, 0.5, np.nan, 0.5]), terms) is None


def test_the_decision_is_the_first_one_whatever_follows() -> None:
    """More cases than needed change nothing."""
    values = in_random_order(np.linspace(0.4, 1, 300), runs=1)[0]
    terms = SequentialTest(floor=0.6, population=300, level=0.99)
    decision = betting.decide(values, terms)
    assert decision is not None
    assert decision.above
    assert betting.decide(values[: decision.examined], terms) == decision
    assert betting.decide(values[: decision.examined - 1], terms) is None


def test_the_interval_holds_the_mean_and_ends_at_a_settled_floor() -> None:
    """Of 200 runs stopped when settled, each bound misses in at most a few; none crosses the floor that was settled."""
    values = np.random.default_rng(3).beta(5, 2, 400)
    missed = [0, 0]
    for order in in_random_order(values, runs=200):
        terms = SequentialTest(floor=0.64, population=400, level=0.99)
        decision = betting.decide(order, terms)
        assert decision is not None
        low, high = betting.interval(order[: decision.examined], terms)
        assert low >= 0.64 if decision.above else high <= 0.64
        missed[0] += low > values.mean()
        missed[1] += high < values.mean()
    assert max(missed) <= 7  # 2 are to be expected at most; 8 or more happen once in a thousand times


def test_other_ranges_are_tested_alike() -> None:
    """Differences in [-1, 1] at half the distances settle as the same values moved into [0, 1]."""
    values = in_random_order(np.linspace(-0.3, 0.5, 200), runs=1)[0]
    decision = betting.decide(values, SequentialTest(floor=-0.01, population=200, level=0.99, low=-1, high=1))
    moved = betting.decide(values + 1, SequentialTest(floor=0.99, population=200, level=0.99, low=0, high=2))
    assert decision is not None
    assert decision == moved
