"""The results folder: one Parquet file for each cell, older versions, and journals of cells still being evaluated.

Layout, under the results folder::

    MODEL/TASK/MODE.parquet                                  the latest result, a link to one of the next
    MODEL/TASK/.versions/MODE-FINGERPRINT.NUMBER.parquet     every result: of other seeds, dtypes, revisions, ... too
    MODEL/TASK/.journals/MODE-FINGERPRINT.PID-RANDOM.journal a line of JSON for each finished case of an unfinished one

Beside the latest results all is in folders whose names begin with a dot, which readers of Parquet data sets pass over:
``pandas.read_parquet`` of the results folder has every row once.

Nobody locks anything: a process appends to journals of its own, reads those of all, and replaces files whole,
after adding what others have put into them. A file that cannot be read, or is another's than its place and name say, is
never replaced or deleted (`promptseg.results.checks` says what a result can hold).
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.files.atomic import linked, replace_by
from promptseg.results.journal import Journal, read_journal
from promptseg.results.parquet import (
    OldResultError,
    UnusableResultError,
    check_entries,
    is_old,
    read_parquet,
    write_parquet,
)
from promptseg.results.rows import CellResult, ResultRow, merged
from promptseg.results.rules import NO_RULES, RowRules
from promptseg.results.versions import add_version, is_gone, number_of, path_of, stem, versions_in
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
    skip: Callable[[Path, UnusableResultError], None] | None = None,
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
        except UnusableResultError as error:
            if skip is None:
                raise
            skip(path, error)
        else:
            if wanted(result.cell):
                yield path, result


class MisplacedResultError(UnusableResultError):
    """A file holds the result of another cell than its place says.

    Attributes:
        cell: whose result it is.
    """

    def __init__(self, path: Path, cell: Cell) -> None:
        super().__init__(path, f"holds the result of {cell.id}", "; move it away.")
        self.cell = cell


class ResultStore:
    """The results folder.

    Args:
        root: the folder.
        notify: called with a sentence about each file that is not what its name says, and about lines of a journal that
            cannot be used; by default a warning.
    """

    def __init__(self, root: Path, notify: Callable[[str], None] = warnings.warn) -> None:
        self.root = root
        self._notify = notify
        self._verdicts: dict[tuple[Path, int, int, int] | None, bool] = {None: False}  # which versions are their own

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
        """Return the latest result of a cell, None where there is nothing of its name.

        Raises:
            ResultsError: it cannot be used.
        """
        path = self.path(cell)
        return self.read(path) if _is_there(path) else None

    def check(self, cell: Cell) -> None:
        """Make sure that a result of a cell can be stored.

        Raises:
            ResultsError: the latest one cannot be used, so it must not be replaced.
        """
        self._keep_latest(cell)

    def load(self, cell: Cell, fingerprint: str, case_ids: Collection[str] | None = None) -> CellResult | None:
        """Return the stored result with exactly this fingerprint, None if there is none.

        It becomes the latest again if it was not. A file that has its name and holds another result is named, and left
        where it is.

        Args:
            cell: whose result it is.
            fingerprint: of the result.
            case_ids: of the data set, where it is at hand.

        Raises:
            ResultsError: a stored result cannot be used, or holds what is no case of the data set; it stays as it is.
        """
        self._keep_latest(cell, fingerprint)
        versions = self._own_versions(cell, fingerprint)
        if not versions:
            return None
        for path, result in versions:
            _check_known(path, result, case_ids)
        result = _all_of(versions)
        if len(versions) > 1:  # as somebody copied one here, or was killed between writing one and dropping the other
            return self.save(result)
        self._publish(cell, fingerprint)
        return result

    def save(self, result: CellResult) -> CellResult:
        """Store a result with what other processes stored of it meanwhile, and drop the journals that it covers.

        Returns what is stored now: never fewer cases than before.

        Raises:
            ResultsError: it cannot be written, or a stored result cannot be used, which stays where it is.
        """
        cell, fingerprint = result.cell, result.fingerprint

        def write(path: Path) -> list[Path]:
            nonlocal result
            self._keep_latest(cell, fingerprint)
            versions = self._own_versions(cell, fingerprint)
            result = _all_of(versions, result)
            write_parquet(path, result, replace=False)
            self._verdicts[_identity(path)] = True
            return [path for path, _ in versions]

        add_version(
            lambda: self._versions(cell, fingerprint), lambda number: self._version(cell, fingerprint, number), write
        )
        self._publish(cell, fingerprint)
        self.drop_journals(result)
        return result

    def _folder(self, cell: Cell) -> Path:
        return self.path(cell).parent / VERSIONS

    def _versions(self, cell: Cell, fingerprint: str | None = None) -> list[Path]:
        """Return what has the name of a version, oldest first. Without a fingerprint of all results of the cell."""
        return versions_in(self._folder(cell), cell.mode, fingerprint)

    def _version(self, cell: Cell, fingerprint: str, number: int) -> Path:
        return path_of(self._folder(cell), cell.mode, fingerprint, number)

    def _own_versions(self, cell: Cell, fingerprint: str) -> list[tuple[Path, CellResult]]:
        """Return the versions of one result, oldest first; but for moments there is one.

        Raises:
            ResultsError: a file that has the name of one cannot be used.
        """
        while True:
            try:
                found = [(path, self._read_version(cell, path)) for path in self._versions(cell, fingerprint)]
            except ResultsError as error:
                if is_gone(error):  # another process has just put a newer one in its place
                    continue
                raise
            return [(path, result) for path, result in found if self._is_of(path, result, cell, fingerprint)]

    def _read_version(self, cell: Cell, path: Path) -> CellResult:
        try:
            return read_parquet(path)
        except UnusableResultError as error:
            latest = self.path(cell)
            if is_gone(error) or not _is_same(latest, path):
                raise
            also = f" {latest} is the same file: move that away too."
            raise UnusableResultError(path, error.problem, f"; move it away to evaluate again.{also}") from error

    def _is_of(self, path: Path, result: CellResult, cell: Cell, fingerprint: str) -> bool:
        """Whether a version holds the result that its name says; if not, that is reported."""
        is_own = (result.cell, result.fingerprint) == (cell, fingerprint)
        self._verdicts[_identity(path)] = is_own
        if not is_own:
            self._notify(
                f"{path} holds a result of {result.cell.id} with the fingerprint {result.fingerprint}, not of "
                f"{cell.id} with {fingerprint}. It is not used, and stays where it is: move it away."
            )
        return is_own

    def _newest(self, cell: Cell, fingerprint: str) -> Path | None:
        """Return the newest version that holds this result; files that were not read yet are read."""
        names = self._versions(cell, fingerprint)
        if any(_identity(path) not in self._verdicts for path in names):
            return next((path for path, _ in reversed(self._own_versions(cell, fingerprint))), None)
        return next((path for path in reversed(names) if self._verdicts[_identity(path)]), None)

    def _publish(self, cell: Cell, fingerprint: str) -> None:
        """Make the newest version the latest result of the cell."""
        self._keep_latest(cell, fingerprint)
        latest, published = self.path(cell), None
        while (newest := self._newest(cell, fingerprint)) and newest != published:
            published = newest
            if _is_same(latest, published):
                continue
            if latest.is_symlink():
                raise ResultsError(
                    f"{latest} is a link, which is not replaced; move it away and run again. The result itself is kept "
                    f"as {published}."
                )
            try:
                replace_by(published.resolve(), latest)
            except FileNotFoundError:
                published = None  # replaced by a newer one, which the next round finds
            except OSError as error:
                raise ResultsError(
                    f"{latest} could not be written: {error}. The result itself is kept as {published}."
                ) from error

    def _keep_latest(self, cell: Cell, asked: str | None = None) -> None:
        """Make sure that the latest result is among the versions, where it is not lost when another takes its place.

        It is not where somebody copied it here alone, or where there are no links.

        Args:
            cell: whose result it is.
            asked: the fingerprint that is to be loaded or stored, if any.

        Raises:
            ResultsError: it is no result of the cell: it must not be replaced; or it is the result that is asked for,
                and a version of that cannot be used.
        """
        latest = self.path(cell)
        if not _is_there(latest) or any(_is_same(latest, version) for version in self._versions(cell)):
            return
        try:
            result = self.read(latest)
        except ResultsError as error:
            if is_gone(error):  # another process has just put a newer one in its place
                return
            raise
        try:
            versions = self._own_versions(cell, result.fingerprint)
        except ResultsError:
            if result.fingerprint == asked:
                raise
            versions = []  # named when that result is asked for; what it covers is not known
        if versions and _covers(_all_of(versions), result):
            return
        names = self._versions(cell, result.fingerprint)
        number = number_of(names[-1]) + 1 if names else 0
        with suppress(FileNotFoundError):
            _keep_as(latest, self._version(cell, result.fingerprint, number))

    # --- journals -----------------------------------------------------------------------------------------------

    def journal(self, cell: Cell, fingerprint: str) -> Journal:
        """Return a journal of this process's own."""
        name = f"{stem(cell.mode, fingerprint)}.{os.getpid()}-{secrets.token_hex(4)}.journal"
        return Journal(self.path(cell).parent / JOURNALS / name)

    def finished_cases(
        self, cell: Cell, fingerprint: str, rules: RowRules = NO_RULES
    ) -> dict[str, tuple[ResultRow, ...]]:
        """Return the rows of every case that any journal of this result holds, without failed cases.

        Args:
            cell: whose result it is.
            fingerprint: of the result.
            rules: what is known about its rows; lines that break them are named, and not among the cases.
        """
        return {
            case_id: rows
            for path in self._journals(cell, fingerprint)
            for case_id, rows in self._cases_of(path, rules)[0].items()
            if not any(row.error for row in rows)
        }

    def drop_journals(self, result: CellResult) -> None:
        """Drop the journals that a stored result covers; a run that was killed between the two leaves them behind.

        One with a line that cannot be read stays: what is in it may be of use to whoever wrote it.
        """
        covered = {row.case_id for row in result.rows}
        for journal in self._journals(result.cell, result.fingerprint):
            cases, is_whole = self._cases_of(journal, NO_RULES)
            if is_whole and all(case_id in covered or not rows for case_id, rows in cases.items()):
                journal.unlink(missing_ok=True)

    def _journals(self, cell: Cell, fingerprint: str) -> list[Path]:
        return sorted((self.path(cell).parent / JOURNALS).glob(f"{stem(cell.mode, fingerprint)}.*.journal"))

    def _cases_of(self, journal: Path, rules: RowRules) -> tuple[dict[str, tuple[ResultRow, ...]], bool]:
        """Return the case and the rows of each line that can be used, and whether that is all of them."""
        found = read_journal(journal, "rows", lambda entries: check_entries(entries, rules), self._notify)
        cases = {entry.case_id: tuple(ResultRow.from_dict(**row) for row in entry.items) for entry in found.entries}
        return cases, found.is_whole


def _is_there(path: Path) -> bool:
    """Whether there is anything of a name, a link to nothing too."""
    return path.is_symlink() or path.exists()


def _is_same(a: Path, b: Path) -> bool:
    """Whether two names are of one file."""
    try:
        return a.samefile(b)
    except OSError:  # one of them is gone, or a link to nothing
        return False


def _identity(path: Path) -> tuple[Path, int, int, int] | None:
    """Return what changes when another file takes the name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_ino, found.st_size, found.st_mtime_ns


def _all_of(versions: Sequence[tuple[Path, CellResult]], newest: CellResult | None = None) -> CellResult:
    """Return all that the versions of one result have, and ``newest``; of two values the later one."""
    for _, older in reversed(versions):
        newest = older if newest is None else merged(older, newest)
    if newest is None:
        raise ValueError("there is no version")
    return newest


def _covers(result: CellResult, other: CellResult) -> bool:
    """Whether a result has all cases and metrics that another one of the same evaluation has."""
    scored = {row.key for row in result.rows if not row.error}
    return (
        other.n_examined <= result.n_examined
        and other.metrics.keys() <= result.metrics.keys()
        and all(row.error or row.key in scored for row in other.rows)
    )


def _check_known(path: Path, result: CellResult, case_ids: Collection[str] | None) -> None:
    """Raise `UnusableResultError` if a result holds what is no case of the data set."""
    if case_ids is None:
        return
    unknown = next((row.case_id for row in result.rows if row.case_id not in case_ids), None)
    if unknown is not None:
        raise UnusableResultError(path, f"holds the case {unknown!r}, which the data set does not have")
    if result.n_examined > len(case_ids):
        raise UnusableResultError(
            path, f"says that {result.n_examined} images were examined, and the data set has {len(case_ids)}"
        )


def _keep_as(latest: Path, version: Path) -> None:
    """Make a result a version too. Raises `ResultsError` if that cannot be written."""
    try:
        version.parent.mkdir(exist_ok=True)
        if not linked(latest.resolve(), version):  # of a link the file: its own place is another
            replace_by(latest.resolve(), version)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return  # another process did
    except OSError as error:
        raise ResultsError(f"{version} could not be written: {error}. {latest} stays as it is.") from error
