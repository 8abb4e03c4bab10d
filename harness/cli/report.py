"""The command ``promptseg report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptseg.cli import gates
from promptseg.cli.terminal import RESULTS, Config, complain, existing, open_registry, progress, say
from promptseg.text import counted
from promptseg.verdicts import baselines

DEFAULT_OUTPUT = Path("leaderboard/report")


def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder with the results.")] = RESULTS,
    *,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")] = DEFAULT_OUTPUT,
    baseline: Annotated[
        str | None, typer.Option(metavar="REF", help="A baseline, or a results folder, to compare with.")
    ] = None,
    cases: Annotated[int, typer.Option(min=0, metavar="N", help="Number of cases of each cell to draw.")] = 24,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Thresholds of your own, as --seg-thresholds of pytest.")
    ] = None,
    folder: gates.Folder = baselines.FOLDER,
    config: Config = None,
) -> None:
    """Write a static site of the results: a board, and a page for each cell with its cases to look at.

    It opens from the folder, without a server or a network. Cases are drawn if their data set is on this machine, and
    masks if the results were made with --seg-save-masks. A file that cannot be used is left out, and named on the board
    and here; the exit code is 1 if none can be used.
    """
    from promptseg.leaderboard.paper import shipped
    from promptseg.leaderboard.site.build import Plan, build
    from promptseg.text import human_size
    from promptseg.verdicts.thresholds import read

    plan = Plan(
        results=existing(results),
        registry=open_registry(config),
        thresholds=shipped() | (read(thresholds) if thresholds else {}),
        baseline=baselines.locate(baseline, folder, Path()) if baseline is not None else None,
        cases=cases,
    )
    built = build(plan, output, progress())
    for line in built.unreadable:
        complain(f"left out: {line}")
    for problem, count in sorted(built.problems.items()):
        say(f"not drawn in {counted(count, 'cell')}: {problem}")
    say(
        f"report ({counted(built.cells, 'cell')}, {built.pictures} cases drawn, "
        f"{human_size(built.size)}): {(output / 'index.html').absolute()}"
    )
    if built.pictures:
        say("It holds images of the data sets: mind their licences before you share it.")
