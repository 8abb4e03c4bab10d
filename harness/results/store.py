"""The results folder: one Parquet file for each cell, older versions, and journals of cells still being evaluated.

Layout, under the results folder::

    MODEL/TASK/MODE.parquet                                  the latest result, a link to one of the next
    MODEL/TASK/.versions/MODE-FINGERPRINT.NUMBER.parquet     every result: of other seeds, dtypes, revisions, ... too
    MODEL/TASK/.journals/MODE-FINGERPRINT.PID-RANDOM.journal a line of JSON for each finished case of an unfinished one

Beside the latest results all is in folders whose names begin with a dot, which readers of Parquet data sets pass over:
``pandas.read_parquet`` of the results folder has every row once.

Nobody locks anything: a process appends to journals of its own, reads those of all, and replaces files whole,
after adding what others have put into them. A file that cannot be read is never replaced or deleted.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.files.atomic import linked, replace_by, sweep
from promptseg.results.journal import Journal, entries_of
from promptseg.results.parquet import OldResultError, is_old, read_parquet, write_parquet
from promptseg.results.rows import CellResult, ResultRow, merged
from promptseg.specs import Cell

SUBMISSION, SUBMITTED = "submission.json", "results"
"""The document of a submission and the folder of its results (`promptseg.leaderboard.submission`)."""
VERSIONS, JOURNALS = ".versions", ".journals"
"""Folders beside the latest results of a model on a task."""
_LATEST = "*/*/*.parquet"
# Folders and files that promptseg wrote before 0.2.0 and writes no more.
_OLD_LAYOUT = (
    "*/*/history/*-*.*.parquet",
    "*/*/*-*.*.journal",
    "*/*/masks/*-*.*.parquet",
    "*/*/masks/*-*.*.journal",
    "*/speed/*-*float*.json",
)


class OldResultsError(ResultsError):
    """A folder holds results that promptseg wrote before 0.2.0.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        is_submission = (root / SUBMISSION).is_file()
        what, remedy = (
            ("a submission", "Evaluate its cells again and submit those results.")
            if is_submission
            else (
                "results",
                "Move the folder away or name another with --seg-results, then run the same command again.",
            )
        )
        super().__init__(
            f"{root.absolute()} holds {what} written by promptseg before 0.2.0, which this version does not read; "
            f"nothing in it was changed. {remedy}"
        )


def results_in(root: Path) -> Path:
    """Return the results folder of a submission; any other folder is one itself."""
    return root / SUBMITTED if (root / SUBMISSION).is_file() else root


def refuse_old(root: Path) -> None:
    """Raise `OldResultsError` if a results folder or submission holds what promptseg wrote before 0.2.0.

    Of result files only the first is looked at: those of one folder were written by one version. Another one among them
    is refused when it is read.
    """
    folder = results_in(root)
    has_old_files = any(True for pattern in _OLD_LAYOUT for _ in folder.glob(pattern))
    if has_old_files or any(is_old(path) for path in ResultStore(folder).files()[:1]):
        raise OldResultsError(root)


def result_files(root: Path) -> list[Path]:
    """Return the latest result of every cell in a results folder or a submission, sorted.

    Raises:
        OldResultsError: they were written before 0.2.0.
        ResultsError: there is none.
    """
    refuse_old(root)
    files = ResultStore(results_in(root)).files()
    if not files:
        raise ResultsError(
            f"{root.absolute()} holds no results (MODEL/TASK/MODE.parquet). Run pytest first, or name another folder."
        )
    return files


def read_all(
    root: Path,
    skip: Callable[[Path, ResultsError], None] | None = None,
    wanted: Callable[[Cell], bool] = lambda _: True,
) -> Iterator[tuple[Path, CellResult]]:
    """Yield the latest results in a results folder or a submission, sorted by file.

    Args:
        root: the folder.
        skip: called with each file that cannot be used, and why; by default that is an error.
        wanted: the cells to yield.

    Raises:
        OldResultsError: a result was written before 0.2.0.
        ResultsError: a file cannot be used, or is stored where that of another cell belongs.
    """
    refuse_old(root)
    store = ResultStore(results_in(root))
    for path in store.files():
        try:
            result = store.read(path)
        except OldResultError:
            raise OldResultsError(root) from None
        except ResultsError as error:
            if skip is None:
                raise
            skip(path, error)
        else:
            if wanted(result.cell):
                yield path, result


class MisplacedResultError(ResultsError):
    """A file holds the result of another cell than its place says.

    Attributes:
        cell: whose result it is.
    """

    def __init__(self, path: Path, cell: Cell) -> None:
        super().__init__(f"{path} holds the result of {cell.id}; move it away.")
        self.cell = cell


def add_version(files: Callable[[], list[Path]], name: Callable[[int], Path], write: Callable[[Path], None]) -> None:
    """Write the next version of a file that several processes may store at once, and drop the older ones.

    A version is made by a link, which fails if its number is taken; whoever comes second adds what the first one wrote
    and takes the next number.

    Args:
        files: returns the versions that there are, oldest first.
        name: returns the path of the version with a number.
        write: writes to a path what is stored together with what is new; raises `FileExistsError` if it is taken.
    """
    while True:
        versions = files()
        ours = name(int(versions[-1].suffixes[-2][1:]) + 1 if versions else 0)
        try:
            write(ours)
        except FileExistsError:
            continue
        if files()[-1:] == [ours]:
            break  # else somebody was faster, and has not seen ours
    for older in files()[:-1]:
        older.unlink(missing_ok=True)
    sweep(ours.parent, ".*.parquet.*")


class ResultStore:
    """The results folder.

    Args:
        root: the folder.
        notify: called with a sentence about each line of a journal that had to be left aside; by default a warning.
    """

    def __init__(self, root: Path, notify: Callable[[str], None] = warnings.warn) -> None:
        self.root = root
        self._notify = notify

    # --- results ------------------------------------------------------------------------------------------------

    def path(self, cell: Cell) -> Path:
        """Return where the latest result of ``cell`` is stored."""
        return self.root / cell.model / cell.task / f"{cell.mode}.parquet"

    def files(self) -> list[Path]:
        """Return the latest result of every cell, as files, sorted."""
        return sorted(self.root.glob(_LATEST))

    def read(self, path: Path) -> CellResult:
        """Return the result in one of `files`. Raises `ResultsError` for one that cannot be used."""
        result = read_parquet(path)
        if path != self.path(result.cell):
            raise MisplacedResultError(path, result.cell)
        return result

    def latest(self, cell: Cell) -> CellResult | None:
        """Return the latest result of a cell, None where there is none.

        Raises:
            ResultsError: it cannot be used.
        """
        path = self.path(cell)
        return self.read(path) if path.is_file() else None

    def check(self, cell: Cell) -> None:
        """Make sure that a result of a cell can be stored.

        Raises:
            ResultsError: the latest one cannot be used, so it must not be replaced.
        """
        self._keep_latest(cell)

    def load(self, cell: Cell, fingerprint: str) -> CellResult | None:
        """Return the stored result with exactly this fingerprint, None if there is none.

        It becomes the latest again if it was not.

        Raises:
            ResultsError: a stored result cannot be used. It stays where it is.
        """
        self._keep_latest(cell)
        result = self._newest(cell, fingerprint)
        if result is not None:
            self._publish(cell, fingerprint)
        return result

    def save(self, result: CellResult) -> CellResult:
        """Store a result with what other processes stored of it meanwhile, and drop the journals that it covers.

        Returns what is stored now: never fewer cases than before.

        Raises:
            ResultsError: it cannot be written, or a stored result cannot be used, which stays where it is.
        """
        cell, fingerprint = result.cell, result.fingerprint

        def write(path: Path) -> None:
            nonlocal result
            result = merged(self.load(cell, fingerprint), result)
            write_parquet(path, result, replace=False)

        add_version(
            lambda: self._versions(cell, fingerprint), lambda number: self._version(cell, fingerprint, number), write
        )
        self._publish(cell, fingerprint)
        self.drop_journals(result)
        return result

    def _versions(self, cell: Cell, fingerprint: str = "") -> list[Path]:
        """Return the files of one result, oldest first; but for moments there is one. Without a fingerprint all."""
        return sorted((self.path(cell).parent / VERSIONS).glob(f"{cell.mode}-{fingerprint[:16]}*.*.parquet"))

    def _version(self, cell: Cell, fingerprint: str, number: int) -> Path:
        return self.path(cell).parent / VERSIONS / f"{cell.mode}-{fingerprint[:16]}.{number:06}.parquet"

    def _newest(self, cell: Cell, fingerprint: str) -> CellResult | None:
        while versions := self._versions(cell, fingerprint):
            try:
                return read_parquet(versions[-1])
            except ResultsError as error:
                if not _is_gone(error):  # else another process has just put a newer one in its place
                    raise
        return None

    def _publish(self, cell: Cell, fingerprint: str) -> None:
        """Make the newest version the latest result of the cell."""
        self._keep_latest(cell)
        latest, published = self.path(cell), None
        while (versions := self._versions(cell, fingerprint)) and versions[-1] != published:
            published = versions[-1]
            try:
                if not (latest.exists() and latest.samefile(published)):
                    replace_by(published, latest)
            except FileNotFoundError:
                continue  # replaced by a newer one, which the next round finds
            except OSError as error:
                raise ResultsError(
                    f"{latest} could not be written: {error}. The result itself is kept as {published}."
                ) from error

    def _keep_latest(self, cell: Cell) -> None:
        """Make sure that the latest result is among the versions, where it is not lost when another takes its place.

        It is not where somebody copied it here alone, or where there are no links.

        Raises:
            ResultsError: it is no result of the cell: it must not be replaced.
        """
        latest = self.path(cell)
        with suppress(FileNotFoundError):  # another process has just put a newer one in its place
            if not latest.exists() or any(latest.samefile(version) for version in self._versions(cell)):
                return
            try:
                result = self.read(latest)
            except ResultsError as error:
                if _is_gone(error):
                    return
                raise
            kept = self._version(cell, result.fingerprint, 0)
            if not self._versions(cell, result.fingerprint):
                _keep_as(latest, kept)

    # --- journals -----------------------------------------------------------------------------------------------

    def journal(self, cell: Cell, fingerprint: str) -> Journal:
        """Return a journal of this process's own."""
        name = f"{cell.mode}-{fingerprint[:16]}.{os.getpid()}-{secrets.token_hex(4)}.journal"
        return Journal(self.path(cell).parent / JOURNALS / name)

    def finished_cases(self, cell: Cell, fingerprint: str) -> dict[str, tuple[ResultRow, ...]]:
        """Return the rows of every case that any journal of this result holds, without failed cases."""
        return {
            case_id: rows
            for path in self._journals(cell, fingerprint)
            for case_id, rows in self._cases_of(path)
            if not any(row.error for row in rows)
        }

    def drop_journals(self, result: CellResult) -> None:
        """Drop the journals that a stored result covers; a run that was killed between the two leaves them behind."""
        covered = {row.case_id for row in result.rows}
        for journal in self._journals(result.cell, result.fingerprint):
            if all(case_id in covered or not rows for case_id, rows in self._cases_of(journal)):
                journal.unlink(missing_ok=True)

    def _journals(self, cell: Cell, fingerprint: str) -> list[Path]:
        return sorted((self.path(cell).parent / JOURNALS).glob(f"{cell.mode}-{fingerprint[:16]}.*.journal"))

    def _cases_of(self, journal: Path) -> Iterator[tuple[str, tuple[ResultRow, ...]]]:
        """Yield the case and the rows of each whole line."""
        return entries_of(journal, "rows", ResultRow.from_dict, self._notify)


def _is_gone(error: ResultsError) -> bool:
    """Whether a file could not be read because there is none."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)


def _keep_as(latest: Path, version: Path) -> None:
    """Make a result a version too. Raises `ResultsError` if that cannot be written."""
    try:
        version.parent.mkdir(exist_ok=True)
        if not linked(latest, version):
            replace_by(latest, version)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return  # another process did
    except OSError as error:
        raise ResultsError(f"{version} could not be written: {error}. {latest} stays as it is.") from error
