"""Which ranks can models have? Simultaneous confidence sets by a paired bootstrap over subjects. Pure functions.

For each pair (j, k) of K models, the difference of their means is divided by its standard error, clustered by subject.
Model j is significantly better than k where this ratio exceeds c, the 95 % quantile over bootstrap draws of the largest
ratio among all pairs. So all pairs hold together with 95 % confidence, and with them the range of ranks of each model:
from 1 + the number of models that are significantly better, to K - the number of models that are significantly worse
(M. Mogstad, J. Romano, A. Shaikh, D. Wilhelm, "Inference for Ranks with Applications to Mobility across Neighbourhoods
and Academic Achievement across Countries", Review of Economic Studies 91, 2024).

A draw multiplies the contribution of each subject to all differences by the same random sign: the wild cluster
bootstrap with Rademacher weights, which keeps its level for few clusters (A. Cameron, J. Gelbach, D. Miller,
"Bootstrap-Based Improvements for Inference with Clustered Errors", Review of Economics and Statistics 90, 2008).
`scripts/studies/simulate_ranks.py` measures the level.
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
    """Return each model's first and last possible rank, from the (K, K) array of `significantly_better`."""
    beaten_by, beats = better.sum(axis=0), better.sum(axis=1)
    return [(1 + int(above), len(better) - int(below)) for above, below in zip(beaten_by, beats, strict=True)]


def significantly_better(means: Array, pools: Sequence[Array], level: float = LEVEL) -> npt.NDArray[np.bool_] | None:
    """Return a (K, K) array: whether the model of the row is significantly better than that of the column.

    A difference that is the same for every subject has the standard error 0: the better model is significantly better.

    Args:
        means: (K,) score of each model, on the same cases; larger is better.
        pools: (S, K) for each data set: the influence of each subject on the scores. Columns sum to zero, and the score
            over a resample of subjects differs from ``means`` by about the sum of their rows.
        level: simultaneous, of all pairs.

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
    """Return (K, K): the sum over subjects of the squared difference of two models' columns."""
    products = pool.T @ pool
    own = np.diag(products)
    return np.asarray(np.maximum(own[:, None] + own[None, :] - 2 * products, 0.0))


def _variance(count: int, squares: Array) -> Array:
    return np.asarray(count / (count - 1) * squares)


def _critical(pools: Sequence[Array], vary: npt.NDArray[np.bool_], level: float) -> float:
    """Return c, the quantile over draws of the largest ratio among the pairs that ``vary``."""
    largest = np.concatenate([_largest(draws, pools, vary) for draws in _draws(pools)])
    return float(np.quantile(largest, level))


def _draws(pools: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield batches of draws: for each data set (draws, K), the sum over its subjects with random signs."""
    rng = np.random.default_rng(0)
    together = max(1, _DRAWN_TOGETHER // max(map(len, pools)))
    for start in range(0, BOOTSTRAP_SAMPLES, together):
        count = min(together, BOOTSTRAP_SAMPLES - start)
        yield [(1.0 - 2.0 * rng.integers(2, size=(count, len(pool)), dtype=np.int8)) @ pool for pool in pools]


def _largest(draws: Sequence[Array], pools: Sequence[Array], vary: npt.NDArray[np.bool_]) -> Array:
    """Return (draws,): the largest ratio of a pair's difference to its standard error in the draw.

    Signs do not change squares, so the variance in a draw is that of the data set less the square of the draw's mean.
    """
    squares = [_squares(pool) for pool in pools]
    largest = np.zeros(len(draws[0]))
    for model, others in enumerate(vary):
        apart = [drawn[:, [model]] - drawn[:, others] for drawn in draws]
        variance = sum(
            _variance(len(pool), np.maximum(square[model, others] - drawn**2 / len(pool), 0.0))
            for pool, square, drawn in zip(pools, squares, apart, strict=True)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(sum(apart)) / np.sqrt(variance)
        largest = np.maximum(largest, np.nan_to_num(ratio, nan=0.0, posinf=np.inf).max(axis=1, initial=0.0))
    return largest
