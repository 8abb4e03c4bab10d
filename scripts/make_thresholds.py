"""Print thresholds for stored results: what a model scored today is what it must score tomorrow.

    python scripts/make_thresholds.py leaderboard/results --models box_fill,grabcut --tasks phantom_ct > own.toml

Each value is the measured mean IoU, rounded to three digits: of the mask that the mode says counts (in an iterative
mode the one that guides it), else of --select. Results of a sample (--seg-limit), of another seed than --seed and
results with failed cases are refused: a threshold applies to the whole data set. docs/results.md describes the format.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from promptseg.results.rows import CellResult
from promptseg.results.store import read_all
from promptseg.specs import SELECTS, MaskChoice
from promptseg.verdicts.summary import summarise

HEADER = """\
# The mean IoU that each cell must reach: [MODEL.TASK], then a line for each prompt mode; see docs/results.md.
# value: what the source says; select: the choice of mask it applies to; passes at value - tolerance. n: the number of
# cases it applies to; a score over others is not compared with it.
"""


def names(text: str) -> list[str]:
    """Return comma-separated names."""
    return [name.strip() for name in text.split(",")]


def chosen(results: Iterable[CellResult], models: list[str] | None, tasks: list[str] | None) -> list[CellResult]:
    """Return the results of the named (None: all) models and tasks, in the order of the file."""
    kept = [r for r in results if (not models or r.cell.model in models) and (not tasks or r.cell.task in tasks)]
    return sorted(kept, key=lambda r: r.cell)


def objection(result: CellResult, seed: int) -> str | None:
    """Return why a result is no baseline, None where it is one."""
    if result.n_examined != result.n_images:
        return f"is of a sample ({result.n_examined} of {result.n_images} images)"
    if result.provenance.seed != seed:
        return f"is of seed {result.provenance.seed}, not {seed}"
    if any(row.error for row in result.rows):
        return "has failed cases"
    return None if result.rows else "has no case"


def line(result: CellResult, select: MaskChoice, tolerance: float) -> str:
    """Return one prompt mode's line of the file."""
    made = result.provenance
    choice = next((choice for choice in SELECTS if choice in (made.mode.select, made.mode.guide)), select)
    summary = summarise(result.rows, choice)
    source = f"baseline of {made.date}, promptseg {made.versions['pytest-promptseg']}, seed {made.seed}"
    entry = f'value = {summary.mean_iou:.3f}, select = "{choice}", tolerance = {tolerance}, n = {summary.n}'
    return f'{result.cell.mode} = {{{entry}, source = "{source}"}}'


def document(results: Iterable[CellResult], select: MaskChoice, tolerance: float) -> Iterator[str]:
    """Yield the lines of the file for sorted results."""
    yield HEADER
    for (model, task), group in groupby(results, key=lambda r: (r.cell.model, r.cell.task)):
        yield f"[{model}.{task}]"
        yield from (line(result, select, tolerance) for result in group)
        yield ""


def main() -> int:
    """Print the file, or say which results cannot serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results folder")
    parser.add_argument("--models", type=names, metavar="A,B", help="only these models")
    parser.add_argument("--tasks", type=names, metavar="A,B", help="only these tasks")
    parser.add_argument("--select", choices=SELECTS, default="confident", help="for static modes (default: confident)")
    parser.add_argument("--tolerance", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments = parser.parse_args()
    unusable: list[str] = []
    read = read_all(arguments.results, lambda _, error: unusable.append(str(error)))
    results = chosen((result for _, result in read), arguments.models, arguments.tasks)
    objections = unusable + [f"{r.cell.id} {why}" for r in results if (why := objection(r, arguments.seed))]
    if objections or not results:
        print("\n".join(objections) or f"no such results in {arguments.results}", file=sys.stderr)
        return 1
    print("\n".join(document(results, arguments.select, arguments.tolerance)).rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
