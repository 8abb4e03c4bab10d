"""Rank correlation against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.stats.correlation import rank_correlation

UNIT = st.floats(0, 1, allow_nan=False)


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
