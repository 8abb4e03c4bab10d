"""The mean: of nothing, and in every order the same."""

from __future__ import annotations

import math
import random

import pytest

from promptseg.stats.means import mean


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
