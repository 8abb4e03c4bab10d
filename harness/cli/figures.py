"""The command ``promptseg figures``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.cli.terminal import RESULTS, Config, complain, existing, open_registry, say
from promptseg.errors import ResultsError, UnknownNameError
from promptseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from promptseg.leaderboard.figures.inputs import Drawn


def figures(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder with the results.")] = RESULTS,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figures.")] = Path("figures"),
    only: Annotated[str | None, typer.Option(metavar="A,B", help="These figures: fig2, fig4, ...")] = None,
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="These models; Figure 4 compares the first with the others.")
    ] = None,
    config: Config = None,
) -> None:
    """Draw the study's figures, as SVG and PNG, from the results on disk and those that the study published.

    A figure that lacks results is named with the results that it needs. The exit code is 1 if none could be drawn.
    """
    from promptseg.leaderboard.board import read_results
    from promptseg.leaderboard.case_views import CellViews, samples_of
    from promptseg.leaderboard.figures import catalogue, numbers, style
    from promptseg.leaderboard.figures.inputs import FigureInputs, Missing

    stored, unreadable = read_results(existing(results))
    for line in unreadable:
        complain(f"left out: {line}")
    by_cell = numbers.by_cell(stored)
    names = _chosen("figure", "--only", only, catalogue.KINDS) or list(catalogue.KINDS)
    asked = _chosen("model", "--models", models, {*numbers.models_of(by_cell), *numbers.STUDIED})
    samples = samples_of(open_registry(config))
    inputs = FigureInputs(results=by_cell, views=lambda result: CellViews(result, samples, results), asked=asked)
    count = 0
    with style.settings():
        for figure in catalogue.draw(inputs, names):
            if isinstance(figure, Missing):
                say(f"{figure.name}: not drawn: {figure.why}.")
            else:
                _write(figure, output)
                count += 1
    say(f"{counted(count, 'figure')}: {output.absolute()}")
    raise typer.Exit(0 if count else 1)


def _chosen(kind: str, option: str, text: str | None, known: Collection[str]) -> list[str] | None:
    """Return the names in a comma-separated list, each once; None without a list."""
    if text is None:
        return None
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    if not names:
        raise typer.BadParameter(f"must be a comma-separated list of names, not {text!r}.", param_hint=option)
    return names


def _write(drawn: Drawn, folder: Path) -> None:
    from promptseg.leaderboard.figures.style import save

    try:
        paths = save(drawn.figure, folder, drawn.name)
    except OSError as error:
        raise ResultsError(f"{drawn.name} cannot be written to {folder}: {error}. Name another --output.") from error
    say(f"{drawn.name}: {' '.join(path.name for path in paths)}")
