"""Simulate ``--seg-until-sure`` on real IoU: how often it errs, and which part of the cases it takes.

    python scripts/studies/simulate_sure.py [--results leaderboard/results] [--runs 10]

Prints the tables of docs/early-stopping.md. Populations of the study's 28 sizes are drawn from real IoU: those of
tests/golden/paired_iou.json, and of all cells of ``--results`` that have at least 30 cases. Each is taken in random
orders, and compared with thresholds at some distances below and above its mean. With ``--results`` every cell of it is
also a population by itself, whole and in random orders. A decision is wrong if all cases would decide otherwise; a run
that is not settled before its last case takes them all, and cannot be wrong.

Beside the median stand those of two references, which know the distance and the level, and look once: `one_look` and
`no_method_below`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist

import numpy as np
from tabulate import tabulate

from promptseg.leaderboard import paper
from promptseg.results.store import read_all
from promptseg.stats import betting
from promptseg.stats.betting import Numbers, SequentialTest
from promptseg.verdicts.summary import case_values, scored

PAIRS = Path(__file__).resolve().parents[2] / "tests/golden/paired_iou.json"
DISTANCES = (0.005, 0.02, 0.05, 0.1, 0.2)
DISTANCE = 0.05
LEVEL = 0.99
MIN_POOL = 30
OUTSIDE = (0.0, 0.5, 0.9)


@dataclass(frozen=True)
class Runs:
    """Some runs: which part of the cases each took, whether it was settled early and whether wrongly, and references.

    Attributes:
        share: (R,) of the cases that each run took, 0 to 1.
        early, wrong: (R,) 1 where it did, 0 where not.
        one_look, no_method_below: (R,) what these functions give for the run's population and threshold, 0 to 1.
    """

    share: Numbers
    early: Numbers
    wrong: Numbers
    one_look: Numbers
    no_method_below: Numbers

    def row(self) -> list[str]:
        """Return number of runs, wrong ones, settled early, medians of shares, and ours' 10th to 90th percentile."""
        low, middle, high = 100 * np.quantile(self.share, [0.1, 0.5, 0.9])
        settled = f"{100 * self.early.mean():.0f} %"
        return [
            str(len(self.share)),
            str(int(self.wrong.sum())),
            settled,
            f"{middle:.0f} %",
            *(f"{100 * np.median(shares):.0f} %" for shares in (self.one_look, self.no_method_below)),
            f"{low:.0f} to {high:.0f} %",
        ]


def together(runs: Iterable[Runs]) -> Runs:
    """Return all runs as one."""
    found = list(runs)
    return Runs(*(np.concatenate([getattr(r, field.name) for r in found]) for field in fields(Runs)))


def pools(results: Path | None) -> dict[str, Numbers]:
    """Return real IoU by where they are from."""
    golden: Mapping[str, list[list[tuple[float, float]]]] = json.loads(PAIRS.read_text(encoding="utf-8"))["pools"]
    found: dict[str, Numbers] = {}
    for name, subjects in golden.items():
        pairs = np.array([case for subject in subjects for case in subject])
        found |= {f"{name}, before": pairs[:, 0], f"{name}, after": pairs[:, 1]}
    return found | {name: values for name, values in cells(results) if len(values) >= MIN_POOL}


def cells(results: Path | None) -> Iterator[tuple[str, Numbers]]:
    """Yield the IoU of the cases of each cell of a results folder, under the confident mask."""
    for _, result in read_all(results) if results else ():
        values = case_values(scored(result.rows), "confident")
        if values:
            yield result.cell.id, np.array([values[case_id] for case_id in sorted(values)])


def runs(population: Numbers, distance: float, count: int, rng: np.random.Generator, outside: float = 0.0) -> Runs:
    """Return runs against thresholds that far below and above the mean, ``count`` of each.

    Args:
        population: IoU of all cases.
        distance: of the threshold from their mean.
        count: of random orders.
        rng: draws them.
        outside: part of the images that do not belong to the task.
    """
    others = round(len(population) * outside / (1 - outside))
    images = np.concatenate([population, np.full(others, np.nan)])
    orders = rng.permuted(np.tile(images, (count, 1)), axis=1)
    mean = float(population.mean())
    return together(_runs(orders, mean, mean + side * distance) for side in (-1, 1))


def _runs(orders: Numbers, mean: float, floor: float) -> Runs:
    n_runs, n_images = orders.shape
    population = orders[0][~np.isnan(orders[0])]
    away = population if mean >= floor else 1 - population
    references = one_look(population, abs(mean - floor)), no_method_below(away, abs(mean - floor))
    above, below = betting.settled_after(orders, SequentialTest(floor=floor, population=n_images, level=LEVEL))
    at_above, at_below = (np.where(at == 0, n_images, at) for at in (above, below))
    at = np.minimum(at_above, at_below)
    early = at < n_images
    says_above = at_above <= at_below
    wrong = early & (says_above != (mean >= floor))
    return Runs(
        at / n_images, early.astype(float), wrong.astype(float), *(np.full(n_runs, share) for share in references)
    )


def one_look(population: Numbers, distance: float) -> float:
    """Return the share of the cases that a test takes that knows the standard deviation and looks once.

    It is the number of cases at which a mean that far from the threshold is z standard errors away from it: by normal
    approximation, without replacement, and with z of one side at the level, as a mean is on the wrong side of a
    threshold on one side only. Of such tests half are settled, as half of our runs are by their median: whoever looks
    again and again and has stopped by n cases in half of the runs is a test of n cases with a power of one half, and
    for a known standard deviation none of that level has more than this one (Neyman and Pearson).
    """
    n = len(population)
    spread = (NormalDist().inv_cdf(LEVEL) * population.std(ddof=1)) ** 2 if n > 1 else 0.0
    return max(1, math.ceil(n * spread / (spread + n * distance**2))) / n


def no_method_below(population: Numbers, distance: float) -> float:
    """Return the share of the cases below which no method that holds for all IoU has settled half of its runs.

    The population's mean exceeds the threshold. Were the k cases of a set 0 instead, and were these k together worth
    more than the distance times all cases, it would not; yet who has seen none of them cannot know. So where the method
    stops by n cases with a chance of a half, it stops wrongly in that other population with a chance of half of q(n),
    that n cases hold none of k, if the set is drawn at random, and thus for some set. That is at most 1 - level
    only if q(n) is at most twice that. k is such that the least k cases are worth enough, so that all sets are.

    Args:
        population: (N,) IoU of all cases; less than 1 by it where the mean is below the threshold.
        distance: of the mean from the threshold.
    """
    n = len(population)
    k = int(np.searchsorted(np.cumsum(np.sort(population)), n * distance, side="right")) + 1
    seen = np.arange(n)
    none_of_them = np.cumprod(np.maximum(n - k - seen, 0) / (n - seen))
    return (int(np.argmax(none_of_them <= 2 * (1 - LEVEL))) + 1) / n


def by_size(found: Mapping[str, Numbers], count: int, distance: float, outside: float = 0.0) -> dict[int, Runs]:
    """Return runs on populations of each of the study's sizes, drawn from each pool."""
    rng = np.random.default_rng(0)
    return {
        size: together(runs(rng.choice(pool, size), distance, count, rng, outside) for pool in found.values())
        for size in sorted({task.n_masks for task in paper.tasks().values()})
    }


def of_tasks(sizes: Mapping[int, Runs]) -> Runs:
    """Return the runs of the study's tasks, each counted by its own size."""
    return together(sizes[task.n_masks] for task in paper.tasks().values())


HEADER = [
    "runs",
    "wrong",
    "settled early",
    "median of the cases",
    "known sd, one look",
    "no method below",
    "10th to 90th percentile",
]


def show(name: str, rows: list[list[str]]) -> None:
    """Print a table."""
    print(tabulate(rows, [name, *HEADER], tablefmt="pipe", disable_numparse=True), end="\n\n", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="folder of results with real IoU")
    parser.add_argument("--runs", type=int, default=10, help="random orders for each population and side (default: 10)")
    given = parser.parse_args()
    found = pools(given.results)
    print(f"{len(found)} pools, thresholds {DISTANCE} from the mean\n")
    sizes = by_size(found, given.runs, DISTANCE)
    rows = [[str(size), *r.row()] for size, r in sizes.items()]
    show("cases", [*rows, ["the 28 tasks", *of_tasks(sizes).row()]])
    rows = [[str(d), *of_tasks(by_size(found, max(1, given.runs // 3), d)).row()] for d in DISTANCES]
    show("distance (the 28 tasks)", rows)
    some = dict(list(found.items())[:2])
    rows = [
        [f"{outside:.0%}", *together(by_size(some, max(1, given.runs // 3), DISTANCE, outside).values()).row()]
        for outside in OUTSIDE
    ]
    show("images outside of the task", rows)
    if given.results is not None:
        rng = np.random.default_rng(1)
        rows = []
        for distance in DISTANCES:
            real = [
                runs(values, distance, 2 * given.runs, rng) for _, values in cells(given.results) if len(values) > 1
            ]
            rows.append([f"{distance} ({len(real)} cells)", *together(real).row()])
        show("real cells, distance", rows)


if __name__ == "__main__":
    main()
