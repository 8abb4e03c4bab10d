"""The leaderboard and the comparison with the paper: read all results, write one Markdown file, whole or not at all.

A session that has just scored its cells has the board read them again from the results folder, on purpose: what is
stored is the one truth, so a board of the session and one of ``promptseg leaderboard`` cannot differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from promptseg.errors import PromptsegError, ResultsError
from promptseg.files.atomic import write_text
from promptseg.leaderboard import aggregate, paper_report, staleness
from promptseg.leaderboard.merge import FolderResult, merge
from promptseg.leaderboard.render import render
from promptseg.leaderboard.speed_table import read_speeds, section
from promptseg.registry.entries import Registry
from promptseg.results.parquet import UnusableResultError
from promptseg.results.rows import CellResult
from promptseg.results.store import MisplacedResultError, read_all, results_in
from promptseg.specs import Cell


def write_leaderboard(results: Sequence[Path], target: Path, registry: Registry | None = None) -> aggregate.Board:
    """Rebuild ``target`` from results folders and return what is on it.

    Args:
        results: the folders.
        target: Markdown file to write.
        registry: what is installed, to find the results that are out of date; None to skip that.

    Raises:
        ResultsError: ``target`` cannot be written.
    """
    board = read_board(results, registry)
    try:
        write_text(target, "\n".join(filter(None, [render(board), section(*read_speeds(results))])))
    except OSError as error:
        named = " ".join(map(str, results))
        raise ResultsError(
            f"The leaderboard {target} cannot be written: {error}. The results in {named} are complete; "
            f"`promptseg leaderboard {named} --output PATH` writes it elsewhere."
        ) from error
    return board


def paper_comparison(results: Path, notify: Callable[[str], None] = lambda _: None) -> str:
    """Compare a results folder with what the paper published, as Markdown.

    Args:
        results: the folder.
        notify: called with a sentence about each file that had to be left out.
    """
    board = read_board([results], wanted=paper_report.is_comparable)
    for line in board.unreadable:
        notify(f"left out: {line}")
    return paper_report.render(board)


def write_paper_comparison(results: Path, target: Path, notify: Callable[[str], None] = lambda _: None) -> None:
    """Write `paper_comparison` to ``target``.

    Raises:
        ResultsError: ``target`` cannot be written.
    """
    try:
        write_text(target, paper_comparison(results, notify))
    except OSError as error:
        raise ResultsError(f"The comparison {target} cannot be written: {error}. Name another --output.") from error


def read_board(
    results: Sequence[Path], registry: Registry | None = None, wanted: Callable[[Cell], bool] = lambda _: True
) -> aggregate.Board:
    """Return the board of the wanted cells in results folders; it names the files that cannot be used."""
    folders = sorted({folder.resolve() for folder in results})
    stored: list[FolderResult] = []
    unreadable: list[str] = []
    for folder, label in zip(folders, _labels(folders), strict=True):
        read, problems = read_results(folder, wanted)
        stored += [FolderResult(folder=label, result=result) for result in read]
        unreadable += [f"{label}/{problem}" if len(folders) > 1 else problem for problem in problems]
    merged = merge(stored, lambda result: _changes(result, registry))
    return aggregate.build(
        merged.results,
        merged.changes,
        unreadable=sorted(unreadable),
        conflicts=merged.conflicts,
        versions=merged.versions,
    )


def read_results(folder: Path, wanted: Callable[[Cell], bool] = lambda _: True) -> tuple[list[CellResult], list[str]]:
    """Return the wanted results of a folder, and what is wrong with the files that cannot be used."""
    unreadable: list[str] = []

    def skip(path: Path, error: UnusableResultError) -> None:
        name = path.relative_to(results_in(folder)).as_posix()
        if isinstance(error, MisplacedResultError):
            unreadable.append(f"{name} holds the result of {error.cell.id}; a copy counts only where it was written")
        else:
            unreadable.append(
                f"{name} is no readable result ({error.reason}); move it away and evaluate its cell again"
            )

    return [result for _, result in read_all(folder, skip, wanted)], unreadable


def _changes(result: CellResult, registry: Registry | None) -> tuple[str, ...] | None:
    """Return what is out of date about a result, None if that is unknown."""
    if registry is None:
        return ()
    try:
        return staleness.changes(result, registry)
    except PromptsegError:
        return None


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ: a board shows no more of a machine's folders."""
    for count in itertools.count(1):
        labels = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    raise AssertionError  # resolved paths differ
