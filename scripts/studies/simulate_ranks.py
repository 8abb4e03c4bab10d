"""Simulate how often ranks of the leaderboard are wrong, for equally good models and for different ones.

    python scripts/studies/simulate_ranks.py --boards 400

A board is a table of models over subjects: a part that all models have in common, and one of each, normal or as skewed
as IoUs are. Without a true difference no model may be significantly better than another: the share of boards on
which one is must not exceed 5 %. The last column is the share of pairs, one better than the other by 0.1, that a board
separates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from promptseg.stats.ranks import significantly_better
from promptseg.text import table

Array = npt.NDArray[np.float64]
SIZES = ((10, 3), (10, 10), (20, 10), (20, 30), (100, 10), (100, 30))
SPREAD = 0.1  # of what a model has of its own, in IoU
KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: 1 - rng.exponential(size=size),
}


def errs(draw: Callable[[np.random.Generator, tuple[int, int]], Array], size: tuple[int, int], boards: int) -> float:
    """Return the share of boards of equal models on which one is significantly better than another."""
    return sum(bool(_better(draw, size, seed, 0.0).any()) for seed in range(boards)) / boards


def finds(draw: Callable[[np.random.Generator, tuple[int, int]], Array], size: tuple[int, int], boards: int) -> float:
    """Return the share of worse models that are separated from the one that is better by 0.1."""
    return float(np.mean([_better(draw, size, seed, 0.1)[0, 1:].mean() for seed in range(boards)]))


def _better(
    draw: Callable[[np.random.Generator, tuple[int, int]], Array], size: tuple[int, int], seed: int, lead: float
) -> npt.NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(size[0], 1)) + SPREAD * draw(rng, size)
    scores[:, 0] += lead
    means = scores.mean(axis=0)
    found = significantly_better(means, [(scores - means) / len(scores)])
    assert found is not None  # noqa: S101 - there are ten subjects
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=400, help="of each kind and size (default: 400)")
    boards = parser.parse_args().boards
    rows = [
        [kind, *map(str, size), f"{100 * errs(draw, size, boards):.1f}", f"{100 * finds(draw, size, boards // 4):.0f}"]
        for kind, draw in KINDS.items()
        for size in SIZES
    ]
    print(table(("differences", "subjects", "models", "boards that err, %", "pairs separated, %"), rows))


if __name__ == "__main__":
    main()
