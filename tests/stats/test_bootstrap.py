"""The interval of a mean by the bootstrap over subjects: by hand, against the classical one, and properties."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.stats.bootstrap import interval

UNIT = st.floats(0, 1, allow_nan=False)


def alone(values: Sequence[float]) -> list[tuple[str, float]]:
    """Return the values, each of a subject of its own."""
    return [(f"s{i:04}", value) for i, value in enumerate(values)]


def width(ci95: tuple[float, float] | None) -> float:
    """Return the length of an interval."""
    assert ci95 is not None
    return ci95[1] - ci95[0]


def test_one_subject_has_no_interval() -> None:
    """Nothing can be said from one patient, however many slices there are."""
    assert interval([]) is None
    assert interval([("p", 0.1)]) is None
    assert interval([("p", 0.1), ("p", 0.9), ("p", 0.4)]) is None
    assert interval([("p", 0.1), ("q", 0.9)]) is not None


def test_equal_values_have_an_interval_of_no_length() -> None:
    """No spread, no uncertainty from it."""
    assert interval(alone([0.25] * 8)) == (0.25, 0.25)


def test_the_interval_is_the_classical_one_for_many_cases() -> None:
    """For 400 cases the bootstrap agrees with mean +- 1.96 standard errors to a tenth of its width."""
    values = np.random.default_rng(3).beta(4, 2, size=400).tolist()
    low, high = interval(alone(values)) or (math.nan, math.nan)
    error = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    assert low == pytest.approx(statistics.fmean(values) - error, abs=0.2 * error)
    assert high == pytest.approx(statistics.fmean(values) + error, abs=0.2 * error)


@settings(max_examples=25, deadline=None)
@given(half=st.lists(UNIT, min_size=1, max_size=10), seed=st.integers(0, 99))
def test_symmetric_data_have_their_mean_inside(half: list[float], seed: int) -> None:
    """Values that lie evenly about 0.5: so does 0.5 in the interval, and the interval in the range of the values."""
    values = [0.5, 0.5, *(0.5 - h / 2 for h in half), *(0.5 + h / 2 for h in half)]
    low, high = interval(alone(values), seed) or (math.nan, math.nan)
    assert low - 1e-12 <= 0.5 <= high + 1e-12
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


def test_the_interval_shrinks_with_more_cases() -> None:
    """Four times the cases: about half the length."""
    values = [0.2, 0.4, 0.6, 0.8, 0.9]
    assert width(interval(alone(values * 16))) == pytest.approx(width(interval(alone(values * 4))) / 2, rel=0.15)


def test_slices_of_one_patient_do_not_narrow_the_interval() -> None:
    """Homogeneous patients: 5 of 40 equal slices each know as little as 5 slices, and much less than 200 patients."""
    values = [0.2, 0.4, 0.6, 0.8, 0.9]
    clustered = [(f"p{p}", value) for p, value in enumerate(values) for _ in range(40)]
    assert interval(clustered) == pytest.approx(interval([(f"p{p}", value) for p, value in enumerate(values)]))
    assert width(interval(clustered)) > 4 * width(interval(alone([value for _, value in clustered])))


def test_large_patients_weigh_by_their_cases() -> None:
    """The interval belongs to the mean over cases, so it leans to where most cases are."""
    low, high = interval([("small", 0.0), *(("large", 1.0) for _ in range(99))]) or (math.nan, math.nan)
    assert (low, high) == (0.0, 1.0)
    values = [(f"p{p}", float(p == 0)) for p in range(6) for _ in range(50 if p == 0 else 2)]
    assert statistics.fmean(value for _, value in values) > 0.8
    assert (interval(values) or (0, 0))[1] > 0.9


def test_the_interval_is_seeded() -> None:
    """The same seed gives the same interval, another a slightly different one; no global state is involved."""
    values = alone(np.linspace(0, 1, 23).tolist())
    assert interval(values) == interval(values, 0) == interval(values[::-1])
    assert interval(values, 1) != interval(values, 0)
    assert interval(values, 1) == pytest.approx(interval(values, 0), abs=0.03)
