"""What describes numbers without inference: the mean, and rank correlation. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

ROUNDING = 1e-9
"""Scores, and sums and differences of them, that differ by no more than this are equal but for rounding."""


def mean(values: Iterable[float]) -> float:
    """Return the mean of some numbers, NaN of none.

    The sum is that of `math.fsum`, the same in every order, so that shards and resumed runs agree to the last bit.
    """
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two (N,) arrays, NaN if the values of one are all equal.

    As scipy.stats.spearmanr, whose import takes longer than most runs spend on all their scores.
    """
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else math.nan


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (N,) ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])
