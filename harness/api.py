"""promptseg from Python: stored results as tables.

The names here are public as ``promptseg.load_results`` and ``promptseg.Results``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from promptseg.errors import ResultsError, UnavailableError
from promptseg.results.parquet import read_parquet
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import read_all, result_files
from promptseg.specs import SELECTS
from promptseg.text import counted
from promptseg.verdicts.summary import select_of, summarise

if TYPE_CHECKING:
    import pandas as pd

_CELL = ("model", "task", "mode")
_CHOICES = tuple(f"iou_{choice}" for choice in SELECTS)
_NUMBERS = ("n", "n_errors", "n_images", "select", "mean_iou", "ci95_low", "ci95_high", *_CHOICES)
_ORIGIN = ("dtype", "device", "seed", "date", "fingerprint")
_SHOWN = 5  # names of a kind in the repr
Fact = TypeVar("Fact")


@dataclass(frozen=True, repr=False)
class Results:
    """Results of cells, one for each (model, task, prompt mode), as tables.

    Attributes:
        results: the results, sorted by cell.
    """

    results: tuple[CellResult, ...]

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.results)

    def __repr__(self) -> str:
        """Say how many cells there are, and of which models, tasks and prompt modes."""
        names = (_named(name, [getattr(result.cell, name) for result in self.results]) for name in _CELL)
        return f"<Results of {counted(len(self), 'cell')}: {', '.join(names)}>" if self.results else "<Results: none>"

    def cells(self) -> pd.DataFrame:
        """Return a row for each cell, with the numbers of the leaderboard.

        The columns are

        - ``model``, ``task``, ``mode``;
        - ``n``, ``n_errors``, ``n_images``: cases scored, cases that failed, images in the data set;
        - ``select``: the choice of mask that ``mean_iou`` and its interval describe;
        - ``mean_iou``: mean over cases, of an iterative mode of each case's mean over its clicks; NaN without cases;
        - ``ci95_low``, ``ci95_high``: 95 % bootstrap interval of ``mean_iou`` over subjects, NaN for fewer than two;
        - ``iou_first``, ``iou_confident``, ``iou_oracle``: the mean for each choice of mask;
        - ``dtype``, ``device``, ``seed``, ``date``, ``fingerprint``: how, when and of what the result was made.

        Raises:
            UnavailableError: pandas is not installed.
        """
        table = _table([_cell_record(result) for result in self.results], [*_CELL, *_NUMBERS, *_ORIGIN])
        return table.astype({"n_images": "Int64", "seed": "Int64"})  # missing where a result does not record them

    def cases(self) -> pd.DataFrame:
        """Return a row for each stored row: a case, or one click on it; failed cases with their ``error``.

        The columns are ``model``, ``task``, ``mode``, those of a result file (`docs/results.md`), and for each metric
        beside IoU one for each choice of mask, as ``dice_first``, ``dice_confident``, ``dice_oracle``; missing where a
        result does not have the metric.

        Raises:
            UnavailableError: pandas is not installed.
        """
        records = [_case_record(result, row) for result in self.results for row in result.rows]
        names = [*_CELL, *(name for name in ResultRow(case_id="").as_dict() if name != "metrics")]
        return _table(records, list(dict.fromkeys([*names, *(name for record in records for name in record)])))


def load_results(path: str | os.PathLike[str]) -> Results:
    """Return stored results: the latest one of every cell.

    A file of a folder that cannot be read is named in a warning, and is not among the results.

    Args:
        path: a results folder, a submission, or the Parquet file of one cell.

    Raises:
        ResultsError: there is no result, or none that can be read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return Results((read_parquet(place),))
    count = len(result_files(place))
    problems: list[str] = []
    read = read_all(place, lambda _, error: problems.append(str(error)))
    results = tuple(sorted((result for _, result in read), key=lambda result: result.cell))
    if not results:
        raise ResultsError(f"{place.absolute()} holds {counted(count, 'result')}, none readable. {' '.join(problems)}")
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return Results(results)


def _cell_record(result: CellResult) -> dict[str, Any]:
    """Return the row of `Results.cells` for a result."""
    summary = summarise(result.rows, select_of(result))
    low, high = summary.ci95 or (None, None)
    made = result.provenance
    return {
        **{name: getattr(result.cell, name) for name in _CELL},
        "n": summary.n,
        "n_errors": summary.n_errors,
        "n_images": result.n_images,
        "select": summary.select,
        "mean_iou": summary.mean_iou,
        "ci95_low": low,
        "ci95_high": high,
        **{f"iou_{choice}": summary.iou[choice] for choice in SELECTS},
        "dtype": made.dtype,
        "device": made.device,
        "date": made.date,
        "seed": made.seed,
        "fingerprint": result.fingerprint,
    }


def _case_record(result: CellResult, row: ResultRow) -> dict[str, Any]:
    """Return the row of `Results.cases` for a stored row."""
    values = row.as_dict()
    del values["metrics"]
    spread = {f"{name}_{choice}": getattr(found, choice) for name, found in row.metrics.items() for choice in SELECTS}
    return {**{name: getattr(result.cell, name) for name in _CELL}, **values, **spread}


def _table(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return a table with these columns, also where it has no rows. Raises `UnavailableError` without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise UnavailableError(
            "Tables of scores need the package pandas, which comes with the package datasets: pip install pandas"
        ) from error
    return pd.DataFrame.from_records(records, columns=list(columns))


def _named(kind: str, names: Sequence[str]) -> str:
    """Return the different names of a kind in words: all of a few, else the first ones and the number."""
    different = sorted(set(names))
    if len(different) <= _SHOWN:
        return f"{kind}{'s' if len(different) > 1 else ''} {' '.join(different)}"
    return f"{len(different)} {kind}s ({' '.join(different[:_SHOWN])} ...)"
