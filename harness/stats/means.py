"""The mean of scores, and the slack for rounding when scores are compared. Without numpy, as collection loads it."""

from __future__ import annotations

import math
from collections.abc import Iterable

ROUNDING = 1e-9
"""Scores, and sums and differences of them, that differ by no more than this are equal but for rounding."""


def mean(values: Iterable[float]) -> float:
    """Return the mean of some numbers, NaN of none.

    The sum is that of `math.fsum`, the same in every order, so that shards and resumed runs agree to the last bit.
    """
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
