"""Baselines: results of an earlier run, kept under a name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promptseg.errors import ConfigError, ResultsError
from promptseg.files.atomic import atomic_folder
from promptseg.results.rows import CellResult
from promptseg.results.store import OldResultsError, ResultStore, read_all, result_files, results_in
from promptseg.specs import Cell

FOLDER = Path("leaderboard/baselines")
MAX_DROP = 0.01
"""Of mean IoU; what a gate tolerates where nothing else is said."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class BaselineResults:
    """What a baseline has of some cells.

    Attributes:
        reference: the baseline as the user named it.
        results: of the cells that it has.
        problems: why a result cannot be used, of those cells whose file is there and cannot be read.
    """

    reference: str
    results: Mapping[Cell, CellResult]
    problems: Mapping[Cell, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """Stored results of an earlier run: ``reference`` is how the user named it, ``root`` its folder."""

    reference: str
    root: Path

    def result(self, cell: Cell) -> CellResult | None:
        """Return the result of a cell, None where there is none. Raises `ResultsError` for one that cannot be used."""
        return ResultStore(self.root).latest(cell)

    def of_cells(self, cells: Iterable[Cell]) -> BaselineResults:
        """Return the results of some cells, each read once; those that cannot be used with the reason."""
        results: dict[Cell, CellResult] = {}
        problems: dict[Cell, str] = {}
        for cell in cells:
            try:
                result = self.result(cell)
            except ResultsError as error:
                problems[cell] = str(error)
                continue
            if result is not None:
                results[cell] = result
        return BaselineResults(self.reference, results, problems)

    def read(self) -> BaselineResults:
        """Return all results, and the cells whose file cannot be used. Raises `ResultsError` if there is no file."""
        result_files(self.root)
        problems: dict[Cell, str] = {}

        def skip(path: Path, error: ResultsError) -> None:
            problems[Cell(path.parts[-3], path.parts[-2], path.stem)] = str(error)

        results = {result.cell: result for _, result in read_all(self.root, skip)}
        return BaselineResults(self.reference, results, problems)


def locate(reference: str, folder: Path, *bases: Path) -> Baseline:
    """Return the baseline of a name in ``folder``, or else the results folder, or submission, of a path from a base.

    Raises:
        ConfigError: there is neither, or no result in it.
    """
    folders = [path for path in (folder / reference, *(base / reference for base in bases)) if path.is_dir()]
    if not folders:
        known = ", ".join(names(folder)) or "none"
        raise ConfigError(
            f"There is no baseline {reference!r}: neither a name in {folder} (there: {known}) nor a results folder. "
            f"`promptseg baseline save NAME` keeps the results that are there now."
        )
    try:
        result_files(folders[0])
    except OldResultsError as error:
        raise ConfigError(
            f"Baseline {reference!r}: {folders[0].absolute()} was written by promptseg before 0.2.0, which this "
            "version does not read; nothing in it was changed. Run again what it holds, and keep that as a baseline."
        ) from error
    except ResultsError as error:
        raise ConfigError(f"Baseline {reference!r}: {error}") from error
    return Baseline(reference, results_in(folders[0]))


def names(folder: Path) -> list[str]:
    """Return the names of the baselines in a folder, sorted."""
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and _NAME.fullmatch(path.name))


def save(name: str, results: Path, folder: Path) -> Baseline:
    """Keep the latest results of a results folder as a baseline: whole or not at all.

    Raises:
        ConfigError: the name cannot be used, or is taken.
        ResultsError: there are no results, one cannot be read, or the copy cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"A baseline's name is letters, digits, '.', '_' and '-', not {name!r}.")
    target = folder / name
    if target.exists():
        raise ConfigError(f"There is a baseline {name!r} already: {target}. Take another name, or remove the folder.")
    result_files(results)
    try:
        with atomic_folder(target) as whole:
            for path, _ in read_all(results):
                copy = whole / path.relative_to(results_in(results))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise ResultsError(f"The baseline {target} cannot be written: {error}.") from error
    return Baseline(name, target)
