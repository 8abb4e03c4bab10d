"""The leaderboard on disk: read all results, write one Markdown file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.leaderboard import aggregate
from promptseg.leaderboard.render import render
from promptseg.results import CellResult, ResultStore, atomic_file, read_parquet


def write_leaderboard(results: Path, target: Path) -> int:
    """Rebuild ``target`` from the results folder and return the number of cells on it.

    Raises:
        ResultsError: ``target`` cannot be written.
    """
    board = read_board(results)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            temporary.write_text(render(board), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultsError(
            f"The leaderboard {target} cannot be written: {error}. The results in {results} are complete; "
            f"`promptseg leaderboard --results {results} --output PATH` writes it elsewhere."
        ) from error
    return len(board.entries)


def read_board(results: Path) -> aggregate.Board:
    """Return the board of everything in a results folder; files that cannot be used are named on it."""
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
        if store.path(result.cell) == path:
            found.append(result)
        else:
            unreadable.append(f"{name} holds the result of {result.cell.id}; a copy counts only where it was written")
    return aggregate.build(found, unreadable)
