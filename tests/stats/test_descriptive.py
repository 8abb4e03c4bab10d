"""Mean and rank correlation: by hand, and against scipy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.stats.descriptive import mean, rank_correlation

UNIT = st.floats(0, 1, allow_nan=False)


def test_the_mean_of_nothing_is_nan() -> None:
    """Not 0 and not an exception."""
    assert math.isnan(mean([]))
    assert mean(value for value in (0.2, 0.4)) == pytest.approx(0.3)


def test_the_mean_does_not_depend_on_the_order() -> None:
    """To the last bit, for numbers whose plain sum does."""
    values = [0.1] * 10 + [1e16, -1e16, 1 / 3]
    expected = mean(values)
    for seed in range(5):
        random.Random(seed).shuffle(values)  # noqa: S311 - not for secrets
        assert mean(values) == expected
    assert mean([0.1] * 10) == 0.1


@settings(deadline=None)
@given(st.lists(st.tuples(UNIT, st.integers(0, 5).map(lambda i: i / 5)), min_size=2, max_size=30))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    """Ties share the mean of their ranks; without any spread there is no correlation."""
    from scipy.stats import spearmanr

    a, b = np.array(pairs).T
    found = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic)
