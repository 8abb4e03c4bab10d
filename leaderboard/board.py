"""The leaderboard and the comparison with the paper: read all results, write one Markdown file, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.leaderboard import aggregate, paper_report
from promptseg.leaderboard.render import render
from promptseg.results import CellResult, ResultStore, atomic_file, read_parquet
from promptseg.specs import Cell


def write_leaderboard(results: Path, target: Path) -> int:
    """Rebuild ``target`` from the results folder and return the number of cells on it.

    Raises:
        ResultsError: ``target`` cannot be written.
    """
    board = read_board(results)
    try:
        _write(target, render(board))
    except OSError as error:
        raise ResultsError(
            f"The leaderboard {target} cannot be written: {error}. The results in {results} are complete; "
            f"`promptseg leaderboard --results {results} --output PATH` writes it elsewhere."
        ) from error
    return len(board.entries)


def paper_comparison(results: Path) -> str:
    """Return what is in a results folder beside what the paper published, as Markdown."""
    return paper_report.render(read_board(results, paper_report.is_comparable))


def write_paper_comparison(results: Path, target: Path) -> None:
    """Write `paper_comparison` to ``target``.

    Raises:
        ResultsError: ``target`` cannot be written.
    """
    try:
        _write(target, paper_comparison(results))
    except OSError as error:
        raise ResultsError(f"The comparison {target} cannot be written: {error}. Name another --output.") from error


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_board(results: Path, wanted: Callable[[Cell], bool] = lambda _: True) -> aggregate.Board:
    """Return the board of the wanted cells in a results folder; files that cannot be used are named on it."""
    return aggregate.build(*read_results(results, wanted))


def read_results(results: Path, wanted: Callable[[Cell], bool] = lambda _: True) -> tuple[list[CellResult], list[str]]:
    """Return the latest results of the wanted cells, sorted, and a sentence for each file that cannot be used."""
    store = ResultStore(results)
    found: list[CellResult] = []
    unreadable: list[str] = []
    for path in sorted(results.glob("*/*/*.parquet")):
        name = path.relative_to(results).as_posix()
        try:
            result = read_parquet(path)
        except ResultsError:
            unreadable.append(f"{name} is no readable result; evaluate its cell again")
            continue
        if store.path(result.cell) != path:
            unreadable.append(f"{name} holds the result of {result.cell.id}; a copy counts only where it was written")
        elif wanted(result.cell):
            found.append(result)
    return found, unreadable
