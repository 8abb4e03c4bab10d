"""How two lists of numbers go together: rank correlation. Pure functions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


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
