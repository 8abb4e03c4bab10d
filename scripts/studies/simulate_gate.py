"""Simulate the gate against a baseline, and a plain gate on the mean difference beside it, on real differences of IoU.

    python scripts/studies/simulate_gate.py [--pairs PATH] [--runs 500] [--subjects 10,20,50] [--plot PATH.svg]

Prints the tables of docs/gates.md; some minutes on one core. The pairs are IoU before and after, grouped by subject, of
models that really differ; subjects are drawn from them with replacement, with all their cases (clustered) or a case of
one each (alone).

Without a true change means: the two sides of each subject are exchanged at random, or the mean difference is taken
away, which leaves the skew of the differences and is harder. A true drop is taken off the IoU of every case. The
announced drop is what the gate announces on some drawn cases without a true change; next come runs that lose just so
much: on cases drawn anew from those at hand (found), and on cases drawn anew from all pairs (found anew).

Of a pair of models either can be the one before. But for exchanged sides, which are the same both ways, figures are
those of the worse way. All are per cent of the runs, in brackets those of the plain gate.

With --plot, a figure (SVG, PNG, PDF) of failures against the true drop, on clustered cases; it needs the extra figures.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from promptseg.stats import paired
from promptseg.stats.paired import Comparison, Pair
from promptseg.verdicts import gates
from promptseg.verdicts.baselines import MAX_DROP

PAIRS = Path(__file__).resolve().parents[2] / "tests/golden/paired_iou.json"
DROPS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
PLOTTED = (20, 50)
Pool = npt.NDArray[np.float64]
"""(S, 3): the sums of IoU before and after over each subject's cases, and their number."""


class Power(NamedTuple):
    """Shares of runs with a drop as announced that fail, and the median of the announced drops."""

    same: tuple[float, float]
    anew: tuple[float, float]
    drop: float


def pools(path: Path) -> dict[str, tuple[Pool, Pool]]:
    """Return by name the pool with every case a subject of its own, and the pool of whole subjects."""
    found = json.loads(path.read_text(encoding="utf-8"))["pools"]
    return {name: (alone(subjects), clustered(subjects)) for name, subjects in found.items()}


def alone(subjects: Sequence[Sequence[Sequence[float]]]) -> Pool:
    """Return every case as a subject of its own."""
    return np.array([[before, after, 1] for subject in subjects for before, after in subject])


def clustered(subjects: Sequence[Sequence[Sequence[float]]]) -> Pool:
    """Return subjects with all their cases."""
    return np.array([[*np.sum(subject, axis=0), len(subject)] for subject in subjects])


def turned(pool: Pool) -> Pool:
    """Return the pool with before and after exchanged."""
    return pool[:, [1, 0, 2]]


def exchanged(pool: Pool, rng: np.random.Generator) -> Pool:
    """Return the pool, each subject with its sides exchanged or not: before and after then have one distribution."""
    return np.where(rng.integers(2, size=(len(pool), 1)) == 1, turned(pool), pool)


def worse(pool: Pool, drop: float) -> Pool:
    """Return the pool with every case ``drop`` worse than it is."""
    return np.stack([pool[:, 0], pool[:, 1] - drop * pool[:, 2], pool[:, 2]], axis=1)


def centred(pool: Pool) -> Pool:
    """Return the pool without the mean difference between before and after."""
    return worse(pool, float((pool[:, 1] - pool[:, 0]).sum() / pool[:, 2].sum()))


def drawn(pool: Pool, count: int, rng: np.random.Generator) -> Pool:
    """Return so many subjects, drawn with replacement."""
    return pool[rng.integers(len(pool), size=count)]


def totals(pool: Pool) -> npt.NDArray[np.float64]:
    """Return (S, 2): sum and number of each subject's differences, as `stats.bootstrap.subject_totals` does."""
    return np.stack([pool[:, 1] - pool[:, 0], pool[:, 2]], axis=1)


def fails(pool: Pool) -> tuple[bool, bool]:
    """Return whether the gate fails, and whether a plain gate on the mean difference does."""
    before, after, number = pool.sum(axis=0)
    found = Comparison(
        n=int(number),
        n_subjects=len(pool),
        before=before / number,
        after=after / number,
        delta=(after - before) / number,
        level=paired.LEVEL,
        interval=paired.confidence_interval(totals(pool)),
        p=math.nan,  # the verdict does not go by it, and it takes time
        detectable=None,
        worst=(),
    )
    return gates.judge(found, MAX_DROP)[0] == "fail", paired.drops(found, MAX_DROP)


def share(outcomes: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Return the shares of failures, of the gate and of the plain one."""
    ours, plain = np.mean(np.array(outcomes), axis=0)
    return float(ours), float(plain)


def false_alarms(pool: Pool, count: int, runs: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return how often runs without a true change fail: exchanged, and centred."""
    whole = centred(pool)
    return [
        share([fails(exchanged(drawn(pool, count, rng), rng)) for _ in range(runs)]),
        share([fails(drawn(whole, count, rng)) for _ in range(runs)]),
    ]


def announced(pool: Pool) -> float | None:
    """Return the drop that the gate announces."""
    return paired.detectable_drop(totals(pool), float(pool[:, 0].sum() / pool[:, 2].sum()), MAX_DROP)


def power(pool: Pool, count: int, runs: int, rng: np.random.Generator) -> Power | None:
    """Return how often runs that lost the announced drop fail; None where none is announced in one of ten draws."""
    same, anew, drops = [], [], []
    whole = centred(pool)
    for _ in range(10 * runs):
        at_hand = centred(drawn(whole, count, rng))
        drop = announced(at_hand)
        if drop is not None:
            same.append(fails(worse(drawn(at_hand, count, rng), drop)))
            anew.append(fails(worse(drawn(whole, count, rng), drop)))
            drops.append(drop)
        if len(drops) == runs:
            return Power(share(same), share(anew), statistics.median(drops))
    return None


def row(name: str, kind: str, pool: Pool, count: int, runs: int) -> list[str]:
    """Return a line of the first table."""
    rng = np.random.default_rng(count)
    ways = pool, turned(pool)
    alarms = [false_alarms(way, count, runs, rng) for way in ways]
    powers = [found for way in ways if (found := power(way, count, runs, rng))]
    numbers = [alarms[0][0], max(alarm[1] for alarm in alarms)]
    cells = ["", "", "none"]
    if powers:
        numbers += [min(found.same for found in powers), min(found.anew for found in powers)]
        cells = [f"{max(power.drop for power in powers):.3f}"]
    return [name, kind, str(count), *(f"{100 * ours:.1f} ({100 * plain:.0f})" for ours, plain in numbers), *cells]


def with_strata(pool: Pool, count: int, runs: int, rng: np.random.Generator) -> float:
    """Return how often a gate with strata by size and by parts fails without a true change (exchanged sides).

    Small objects score less, so the mean IoU of both sides, which is the same before and after, stands for the size.
    Every fourth object counts as one of several parts, the stratum with the fewest cases.
    """
    terms = gates.GateSettings(reference="simulated", select="confident", strata=("size", "parts"))
    outcomes = []
    for _ in range(runs):
        subjects = exchanged(drawn(pool, count, rng), rng)
        pairs = [
            Pair(
                case_id=f"{i:04}",
                subject=f"{i:04}",
                before=before,
                after=after,
                area_fraction=(before + after) / 2,
                n_components=1 + (i % 4 == 0),
            )
            for i, (before, after, _) in enumerate(subjects.tolist())
        ]
        outcomes.append(gates.judge_all(*gates.compared(pairs, terms), MAX_DROP)[0] == "fail")
    return float(np.mean(outcomes))


def curve(pool: Pool, count: int, runs: int, drops: Sequence[float] = DROPS) -> list[tuple[float, float]]:
    """Return failures by true drop, of the gate and of the plain one; each draw of subjects loses every drop."""
    rng = np.random.default_rng(count)
    whole = centred(pool)
    draws = [drawn(whole, count, rng) for _ in range(runs)]
    return [share([fails(worse(draw, drop)) for draw in draws]) for drop in drops]


def plot(path: Path, found: dict[str, tuple[Pool, Pool]], runs: int) -> None:
    """Draw failures against the true drop, a panel for each pool; the same bytes for the same numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context(
        {
            "svg.hashsalt": "promptseg",
            "svg.fonttype": "none",
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure, axes = pyplot.subplots(1, len(found), figsize=(2.6 * len(found), 3.2), sharey=True, squeeze=False)
        for axis, (name, (_, pool)) in zip(axes.flat, found.items(), strict=True):
            for count, colour in zip(PLOTTED, ("#d95f02", "#1b6ca8"), strict=True):
                ours, plain = 100 * np.array(curve(pool, count, runs)).T
                axis.plot(DROPS, ours, "-", color=colour, label=f"gate, {count} subjects ({ours[0]:.1f} % false)")
                axis.plot(DROPS, plain, ":", color=colour, label=f"plain, {count} subjects ({plain[0]:.0f} % false)")
            for level in (5, 95):
                axis.axhline(level, color="0.7", linewidth=0.6, zorder=0)
            axis.set(title=name, xlabel="true drop of mean IoU", ylim=(-2, 102))
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, fontsize=7)
        axes[0, 0].set(ylabel="runs that fail, %", yticks=[5, 25, 50, 75, 95])
        figure.tight_layout()
        suffix = path.suffix.removeprefix(".").lower()
        undated = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}[suffix]
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=undated, dpi=150)
        pyplot.close(figure)


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="JSON; default: those of the tests")
    parser.add_argument("--runs", type=int, default=500, help="runs for each figure (default: 500)")
    parser.add_argument("--subjects", default="10,20,50", help="numbers of subjects (default: 10,20,50)")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="figure to write: .svg, .png or .pdf")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.subjects.split(",")]
    if min(counts) < paired.MIN_SUBJECTS:
        parser.error(f"--subjects: of fewer than {paired.MIN_SUBJECTS} the gate has no interval")
    if arguments.plot and arguments.plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        parser.error(f"--plot: must end in .svg, .png or .pdf, not {arguments.plot.name!r}")
    found = pools(arguments.pairs)
    header = ["pairs", "cases", "subjects", "exchanged", "centred", "found", "found anew", "announced"]
    rows = [
        row(name, kind, pool, count, arguments.runs)
        for name, both in found.items()
        for kind, pool in zip(("alone", "clustered"), both, strict=True)
        for count in counts
    ]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    print()
    lines = [
        [name, *(f"{100 * with_strata(pool, n, arguments.runs, np.random.default_rng(n)):.1f}" for n in (30, 60))]
        for name, (pool, _) in found.items()
    ]
    header = ["pairs, with strata by size and parts", "30 subjects", "60 subjects"]
    print(tabulate(lines, header, tablefmt="pipe", disable_numparse=True))
    if arguments.plot:
        plot(arguments.plot, found, arguments.runs)


if __name__ == "__main__":
    main()
