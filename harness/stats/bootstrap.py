"""The bootstrap over subjects: draws, resampled sums and means, and the interval of a mean. Pure functions."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BOOTSTRAP_SAMPLES = 2000
_DRAWN_TOGETHER = 2**18  # subjects; bounds the memory
_KEPT = 2**14  # subjects; draws of more are made anew each time, as they take more than 64 MiB


def interval(values: Sequence[tuple[str, float]], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of a mean, or None for fewer than two subjects.

    Args:
        values: (subject, value) of each case; whole subjects are drawn with replacement, as their cases are
            not independent (Field and Welsh, J. R. Stat. Soc. B 69, 2007).
        seed: of the resampling.
    """
    totals = subject_totals(values)
    if len(totals) < 2:
        return None
    low, high = np.percentile(resampled_means(totals, seed), [2.5, 97.5])
    return float(low), float(high)


def subject_totals(values: Iterable[tuple[str, float]]) -> npt.NDArray[np.float64]:
    """Return an (S, 2) array: the sum and the number of each subject's values, sorted by subject."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for subject, value in values:
        sums[subject][0] += value
        sums[subject][1] += 1
    return np.array([sums[s] for s in sorted(sums)]).reshape(-1, 2)


def resampled_means(totals: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the means of `BOOTSTRAP_SAMPLES` draws, each of as many subjects as there are, with replacement.

    Args:
        totals: of `subject_totals`.
        seed: of the draws.
    """
    sums, numbers = resampled_sums(totals, seed).T
    return np.asarray(sums / numbers)


def resampled_sums(values: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """Return sums over `BOOTSTRAP_SAMPLES` draws of as many subjects as there are, with replacement, (draws, K).

    Args:
        values: (S, K), a row for each subject; all columns use the same draws.
        seed: of the draws.
    """
    # As floats: the product of integers would take a hundred times as long.
    return np.concatenate([times.astype(np.float64) @ values for times in _draws(len(values), seed)])


def _draws(count: int, seed: int) -> Iterable[npt.NDArray[np.integer[Any]]]:
    """Return batches of draws (draws, count): how often each of ``count`` subjects is drawn."""
    return _kept_draws(count, seed) if count <= _KEPT else _new_draws(count, seed)


@functools.lru_cache(maxsize=2)
def _kept_draws(count: int, seed: int) -> tuple[npt.NDArray[np.integer[Any]], ...]:
    """Return the draws all at once; a table has one data set and many models."""
    return tuple(times.astype(np.uint16) for times in _new_draws(count, seed))


def _new_draws(count: int, seed: int) -> Iterator[npt.NDArray[np.integer[Any]]]:
    rng = np.random.default_rng(seed)
    together = max(1, _DRAWN_TOGETHER // count)
    for start in range(0, BOOTSTRAP_SAMPLES, together):
        rows = min(together, BOOTSTRAP_SAMPLES - start)
        drawn = rng.integers(count, size=(rows, count), dtype=np.uint32)
        places = drawn + np.arange(rows)[:, None] * count
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)
