"""Which ranks can models have? Simultaneous confidence sets by a paired bootstrap over subjects. Pure functions.

Of every pair of models the difference of their means is divided by its standard error, clustered by subject. What such
a number must exceed for the better model to be surely better is the 95 % quantile, over bootstrap draws, of the largest
one among all pairs: so all pairs of a table hold together with 95 % confidence, and with them every model's range of
ranks, from one more than the number of models that are surely better, to the number of models that are not surely
worse, itself counted (M. Mogstad, J. Romano, A. Shaikh, D. Wilhelm, "Inference for Ranks with Applications to Mobility
across Neighbourhoods and Academic Achievement across Countries", Review of Economic Studies 91, 2024).

A draw gives each subject's part in all differences the same random sign: the wild bootstrap of clusters, which keeps
its level for few of them (A. Cameron, J. Gelbach, D. Miller, "Bootstrap-Based Improvements for Inference with
Clustered Errors", Review of Economics and Statistics 90, 2008). `scripts/studies/simulate_ranks.py` measures that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from promptseg.stats.bootstrap import BOOTSTRAP_SAMPLES
from promptseg.stats.means import ROUNDING
from promptseg.stats.paired import LEVEL, MIN_SUBJECTS

Array = npt.NDArray[np.float64]
_DRAWN_TOGETHER = 2**22  # signs; bounds the memory


def ranges(better: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return each model's first and last possible rank, from the (K, K) array of `surely_better`."""
    beaten_by, beats = better.sum(axis=0), better.sum(axis=1)
    return [(1 + int(above), len(better) - int(below)) for above, below in zip(beaten_by, beats, strict=True)]


def surely_better(means: Array, pools: Sequence[Array], level: float = LEVEL) -> npt.NDArray[np.bool_] | None:
    """Return a (K, K) array: whether the model of the row is surely better than that of the column.

    Two models whose difference is the same for every subject have no standard error: the better one is surely better.

    Args:
        means: (K,) score of each model, on cases that all share; more is better.
        pools: (S, K) for each data set: what each subject adds to the scores beyond its share, so that columns sum to
            zero and the mean of a sample of subjects is off by the sum of their rows, about.
        level: of all pairs together.

    Returns:
        None for fewer than `MIN_SUBJECTS` subjects in all, or a data set of one.
    """
    if sum(map(len, pools)) < MIN_SUBJECTS or min(map(len, pools)) < 2:
        return None
    differences = means[:, None] - means[None, :]
    errors = np.sqrt(sum(_variance(len(pool), _squares(pool)) for pool in pools))
    needed = _critical(pools, errors > ROUNDING, level) * errors
    return np.asarray(differences > np.maximum(np.where(errors > ROUNDING, needed, 0.0), ROUNDING))


def _squares(pool: Array) -> Array:
    """Return (K, K): over the subjects, the summed squares of the differences of two models."""
    products = pool.T @ pool
    own = np.diag(products)
    return np.asarray(np.maximum(own[:, None] + own[None, :] - 2 * products, 0.0))


def _variance(count: int, squares: Array) -> Array:
    return np.asarray(count / (count - 1) * squares)


def _critical(pools: Sequence[Array], vary: npt.NDArray[np.bool_], level: float) -> float:
    """Return how many standard errors are sure, over the pairs that ``vary``."""
    largest = np.concatenate([_largest(draws, pools, vary) for draws in _draws(pools)])
    return float(np.quantile(largest, level))


def _draws(pools: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield some draws at a time: of each data set (draws, K), the sums over its subjects with random signs."""
    rng = np.random.default_rng(0)
    together = max(1, _DRAWN_TOGETHER // max(map(len, pools)))
    for start in range(0, BOOTSTRAP_SAMPLES, together):
        count = min(together, BOOTSTRAP_SAMPLES - start)
        yield [(1.0 - 2.0 * rng.integers(2, size=(count, len(pool)), dtype=np.int8)) @ pool for pool in pools]


def _largest(draws: Sequence[Array], pools: Sequence[Array], vary: npt.NDArray[np.bool_]) -> Array:
    """Return (draws,): the largest difference of a pair in its own standard errors, which signs leave easy to tell.

    Squares have no sign, so the variance of a draw is that of its data set less the square of its own mean.
    """
    squares = [_squares(pool) for pool in pools]
    largest = np.zeros(len(draws[0]))
    for model, others in enumerate(vary):
        apart = [drawn[:, [model]] - drawn[:, others] for drawn in draws]
        variance = sum(
            _variance(len(pool), np.maximum(square[model, others] - found**2 / len(pool), 0.0))
            for pool, square, found in zip(pools, squares, apart, strict=True)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            sure = np.abs(sum(apart)) / np.sqrt(variance)
        largest = np.maximum(largest, np.nan_to_num(sure, nan=0.0, posinf=np.inf).max(axis=1, initial=0.0))
    return largest
