"""What the commands share: opening the registry, and printing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.errors import ResultsError
from promptseg.results.store import results_in

if TYPE_CHECKING:
    from promptseg.progress import OpenBar
    from promptseg.registry.entries import Registry
from promptseg.text import printable

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        exists=True,
        dir_okay=False,
        help="promptseg.toml to use; default: the one in this folder or the nearest above it.",
    ),
]

Results = Annotated[Path, typer.Option(metavar="DIR", help="Folder with the results, as --seg-results of pytest.")]
RESULTS = Path("leaderboard/results")


def existing(results: Path) -> Path:
    """Return a results folder, or that of a submission. Raises `ResultsError` if there is none."""
    if not results.is_dir():
        raise ResultsError(f"There is no folder {results.absolute()}. Run pytest first, or name another folder.")
    return results_in(results)


def say(text: str = "") -> None:
    """Print a line."""
    typer.echo(printable(text))


def complain(text: str) -> None:
    """Print a line to the standard error."""
    typer.echo(printable(text), err=True)


def print_plain(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns, nothing cut: for pipes and logs."""
    from tabulate import tabulate

    safe = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    typer.echo(tabulate(safe, headers=header, tablefmt="plain", disable_numparse=True))


def find_config(start: Path) -> Path | None:
    """Return the promptseg.toml in ``start`` or the nearest folder above it."""
    from promptseg.registry.config import FILE_NAME

    candidates = (folder / FILE_NAME for folder in (start, *start.parents))
    return next((path for path in candidates if path.is_file()), None)


def open_registry(config: Path | None) -> Registry:
    """Return everything registered, with ``config`` or the nearest promptseg.toml."""
    from promptseg import registry

    return registry.build(config or find_config(Path.cwd()))


def progress() -> OpenBar:
    """Return how the progress of long work is shown: a bar on a person's terminal, nothing elsewhere."""
    from promptseg.progress import hidden, shown

    return shown if sys.stdout.isatty() else hidden
