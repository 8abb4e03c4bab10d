"""Simulate the gate against a baseline, and a plain gate on the mean difference beside it, on real differences of IoU.

    python scripts/simulate_gate.py [--pairs PATH] [--runs 1000] [--subjects 10,20,50]

Prints the tables of docs/gates.md. The pairs are IoU before and after, grouped by subject, of models that really
differ; subjects are drawn from them with replacement, with all their cases (clustered) or a case of one each. Without
a true change means: the two sides of each subject are exchanged at random, or the mean difference is taken away (which
leaves the skew of the differences, and is harder). A true drop is taken off the IoU of every case.

The announced drop is what the gate announces on some drawn cases without a true change; next come runs that lose just
so much: on cases drawn anew from those at hand, and on cases drawn anew from all pairs (found elsewhere). Figures are
per cent of the runs, in brackets those of the plain gate.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from promptseg import gates, paired
from promptseg.baselines import MAX_DROP
from promptseg.paired import Pair

PAIRS = Path(__file__).resolve().parents[1] / "tests/golden/paired_iou.json"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
Subject = Sequence[tuple[float, float]]


def pools(path: Path) -> dict[str, list[Subject]]:
    """Return the IoU before and after of each subject's cases, by name of pool."""
    found: dict[str, list[Subject]] = json.loads(path.read_text(encoding="utf-8"))["pools"]
    return found


def alone(subjects: Sequence[Subject]) -> list[Subject]:
    """Return every case as a subject of its own."""
    return [[case] for subject in subjects for case in subject]


def exchanged(subjects: Sequence[Subject], rng: np.random.Generator) -> list[Subject]:
    """Return the subjects, each with its sides exchanged or not: before and after are then alike."""
    return [[(b, a) for a, b in subject] if rng.integers(2) else subject for subject in subjects]


def centred(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects of a pool without the mean difference between before and after."""
    change = statistics.fmean(after - before for subject in subjects for before, after in subject)
    return [[(before, after - change) for before, after in subject] for subject in subjects]


def drawn(subjects: Sequence[Subject], count: int, rng: np.random.Generator) -> list[Subject]:
    """Return so many subjects, drawn with replacement."""
    return [subjects[i] for i in rng.integers(len(subjects), size=count)]


def pairs(subjects: Sequence[Subject], drop: float = 0.0) -> list[Pair]:
    """Return the cases of subjects, each ``drop`` worse than it is."""
    return [
        Pair(case_id=f"{i}.{j}", subject=str(i), before=before, after=after - drop)
        for i, subject in enumerate(subjects)
        for j, (before, after) in enumerate(subject)
    ]


def fails(subjects: Sequence[Subject], drop: float = 0.0) -> tuple[bool, bool]:
    """Return whether the gate fails, and whether a plain gate on the mean difference does."""
    found = paired.compare(pairs(subjects, drop), MAX_DROP)
    return gates.judge(found, MAX_DROP)[0] == "fail", paired.drops(found, MAX_DROP)


def share(outcomes: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Return the shares of failures, of the gate and of the plain one."""
    ours, plain = np.mean(np.array(outcomes), axis=0)
    return float(ours), float(plain)


def false_alarms(draw: Callable[[], list[Subject]], runs: int) -> tuple[float, float]:
    """Return how often runs without a true change fail."""
    return share([fails(draw()) for _ in range(runs)])


def announced(draw: Callable[[], list[Subject]]) -> tuple[list[Subject], float]:
    """Return cases without a true change, and the drop that the gate announces on them; those all alike are redrawn."""
    while True:
        at_hand = centred(draw())
        found = paired.compare(pairs(at_hand), MAX_DROP)
        if found.detectable is not None:
            return at_hand, found.detectable


def power(
    subjects: Sequence[Subject], count: int, runs: int, rng: np.random.Generator
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return how often runs that lost the announced drop fail: on the cases at hand, and on others; and its median."""
    same, others, announcements = [], [], []
    whole = centred(subjects)
    for _ in range(runs):
        at_hand, drop = announced(lambda: drawn(subjects, count, rng))
        same.append(fails(drawn(at_hand, count, rng), drop))
        others.append(fails(drawn(whole, count, rng), drop))
        announcements.append(drop)
    return share(same), share(others), statistics.median(announcements)


def row(name: str, pool: Sequence[Subject], count: int, runs: int, *, clustered: bool) -> list[str]:
    """Return a line of the first table."""
    rng = np.random.default_rng(count)
    subjects = pool if clustered else alone(pool)
    no_change = [
        false_alarms(lambda: exchanged(drawn(subjects, count, rng), rng), runs),
        false_alarms(lambda: drawn(centred(subjects), count, rng), runs),
    ]
    same, others, drop = power(subjects, count, runs, rng)
    numbers = [f"{100 * ours:.1f} ({100 * plain:.0f})" for ours, plain in (*no_change, same, others)]
    return [name, "clustered" if clustered else "alone", str(count), *numbers, f"{drop:.3f}"]


def curve(subjects: Sequence[Subject], count: int, runs: int) -> Iterator[list[str]]:
    """Yield the lines of the second table: failures by the part of the announced drop that is true."""
    rng = np.random.default_rng(count)
    for part in SHARES:
        outcomes = []
        for _ in range(runs):
            at_hand, drop = announced(lambda: drawn(subjects, count, rng))
            outcomes.append(fails(drawn(at_hand, count, rng), part * drop))
        ours, plain = share(outcomes)
        yield [f"{part:.2f}", f"{100 * ours:.1f}", f"{100 * plain:.1f}"]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="JSON; default: those of the tests")
    parser.add_argument("--runs", type=int, default=1000, help="runs for each figure (default: 1000)")
    parser.add_argument("--subjects", default="10,20,50", help="numbers of subjects (default: 10,20,50)")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.subjects.split(",")]
    if min(counts) < paired.MIN_SUBJECTS:
        parser.error(f"--subjects: of fewer than {paired.MIN_SUBJECTS} the gate announces nothing")
    found = pools(arguments.pairs)
    header = ["pairs", "cases", "subjects", "exchanged", "centred", "found", "found elsewhere", "announced"]
    rows = [
        row(name, pool, count, arguments.runs, clustered=clustered)
        for name, pool in found.items()
        for clustered in (False, True)
        for count in counts
    ]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    print()
    name = next(iter(found))
    lines = curve(found[name], counts[-1], arguments.runs)
    header = [f"true part of the announced drop ({name}, {counts[-1]} subjects)", "gate fails", "plain gate fails"]
    print(tabulate(lines, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
