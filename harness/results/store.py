"""Results on disk: one Parquet file per cell, written atomically, and the journals of cells still being evaluated.

Layout, under the results folder::

    MODEL/TASK/MODE.parquet                          the latest result, a link to one of the next
    MODEL/TASK/history/MODE-FINGERPRINT.NUMBER.parquet   every result: of other seeds, dtypes, revisions, ... too
    MODEL/TASK/MODE-FINGERPRINT.PID-RANDOM.journal   a line of JSON for each finished case of an unfinished result

Nobody locks anything: a process appends to journals of its own, reads those of all, and replaces files whole,
after adding what others have put into them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from promptseg.errors import ResultsError
from promptseg.specs import Cell

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
SCHEMA_VERSION = 1
SUBMISSION, SUBMITTED = "submission.json", "results"
"""The document of a submission and the folder of its results (`promptseg.leaderboard.submission`)."""
_METADATA_KEY = b"promptseg"
_DIGEST_KEY = b"promptseg-sha256"  # of what is under the key above; the pages of the file have checksums of their own
_STALE_SECONDS = 24 * 3600.0
_CHECKSUM = "crc32"  # of the rest of a journal's line
_KEPT = (
    "Finished cases are kept in journals beside it: make room or choose another folder with --seg-results, and run the "
    "same command again."
)
_LATEST = "*/*/*.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """The outcome of one case, or of one click on it.

    Attributes:
        case_id: the image's id.
        subject_id: the patient, None where not known.
        click: 1, 2, ... for iterative modes, 0 for static ones.
        n_components: number of 8-connected components of the target.
        area_fraction: target pixels / image pixels.
        prompts: JSON, a list of ``{"points_xy": [[x, y], ...], "labels": [...], "box_xyxy": [...] or null}``; of a grid
            ``[{"grid": POINTS A SIDE}]``.
        iou_first, iou_confident, iou_oracle: IoU of each choice of mask; None where the case failed.
        predicted_iou: the model's estimate for each candidate, None where it makes none.
        candidate_iou: IoU of each candidate; None where candidates of several prompts were united, or none was asked
            for this target.
        coverage: part of the target that any of the masks covers, for modes that segment everything; else None.
        seconds: decoding time of the case's prompts, encoding not counted.
        error: why the case could not be scored, None where it was.
    """

    case_id: str
    subject_id: str | None = None
    click: int = 0
    n_components: int = 0
    area_fraction: float = 0.0
    prompts: str = "[]"
    iou_first: float | None = None
    iou_confident: float | None = None
    iou_oracle: float | None = None
    predicted_iou: Sequence[float] | None = None
    candidate_iou: Sequence[float] | None = None
    coverage: float | None = None
    seconds: float = 0.0
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return names and values; not copied value by value as `dataclasses.asdict` does, which takes longer."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A result: its rows (sorted by case and click) and its provenance.

    ``n_examined`` images of the data set, in the seeded order, were looked at to find the rows' cases.
    """

    cell: Cell
    fingerprint: str
    rows: tuple[ResultRow, ...]
    n_examined: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_images(self) -> int | None:
        """Number of images in the data set, None where it was not written down."""
        found = self.provenance.get("n_images")
        return found if isinstance(found, int) else None

    @property
    def is_sample(self) -> bool:
        """Whether images of the data set were left out."""
        return self.n_images is not None and self.n_examined < self.n_images


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "case_id": pa.string(),
        "subject_id": pa.string(),
        "click": pa.int32(),
        "n_components": pa.int32(),
        "prompts": pa.string(),
        "predicted_iou": pa.list_(pa.float64()),
        "candidate_iou": pa.list_(pa.float64()),
        "error": pa.string(),
    }
    return pa.schema([(f.name, kinds.get(f.name, pa.float64())) for f in fields(ResultRow)])


def write_parquet(path: Path, result: CellResult, *, replace: bool = True) -> None:
    """Write ``result`` to ``path``: whole or not at all.

    Raises:
        FileExistsError: the file is there already and ``replace`` is False.
        ResultsError: the disk is full or the folder cannot be written; the journals stay where they are.
    """
    import pyarrow as pa

    about = {
        "schema": SCHEMA_VERSION,
        "cell": asdict(result.cell),
        "fingerprint": result.fingerprint,
        "n_examined": result.n_examined,
        "provenance": result.provenance,
    }
    told = json.dumps(about, sort_keys=True).encode()
    metadata = {_METADATA_KEY: told, _DIGEST_KEY: hashlib.sha256(told).hexdigest().encode()}
    table = pa.Table.from_pylist([r.as_dict() for r in result.rows], schema=_schema().with_metadata(metadata))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with atomic_file(path, replace=replace) as temporary:
            write_checked(table, temporary)
    except FileExistsError:
        raise
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> ResultsError:
    return ResultsError(f"{path} could not be written: {error}. {_KEPT}")


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a new folder to write, which becomes ``target`` if the block ends well.

    Raises:
        OSError: it cannot be written, or there is such a folder by then that is not empty and not to be replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole, old = Path(temporary) / "new", Path(temporary) / "old"
        whole.mkdir()
        yield whole
        if replace and target.exists():
            target.rename(old)
        whole.rename(target)


class atomic_file:  # noqa: N801 - reads as a function where it is used
    """Context manager: a temporary file beside ``path`` that becomes ``path`` if the block ends well.

    Without ``replace`` it raises `FileExistsError` where there is such a file by then.
    """

    def __init__(self, path: Path, *, replace: bool = True) -> None:
        self._path = path
        self._replace = replace

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        os.close(handle)
        self._temporary = Path(name)
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _publish(self) -> None:
        umask = os.umask(0)
        os.umask(umask)
        self._temporary.chmod(0o666 & ~umask)
        with self._temporary.open("rb+") as stream:
            os.fsync(stream.fileno())  # where some systems first say that the disk is full
        if self._replace or not _linked(self._temporary, self._path):
            self._temporary.replace(self._path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all, and the folders that it needs. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _linked(source: Path, target: Path) -> bool:
    """Make ``target`` the same file; False where the file system has no links. Raises if it exists or cannot be."""
    try:
        target.hardlink_to(source)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        return False
    return True


def write_checked(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whose pages have checksums. Raises `OSError`."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_checked(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file whose columns are among those of ``schema``, of the same types.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or not what was written; `pyarrow.ArrowException` may be raised too.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # From memory: given a path, pyarrow opens it more than once, and would mix a file with the one replacing it.
    # Without threads: Arrow's may still run when a short process exits, and abort it.
    content = pa.BufferReader(path.read_bytes())
    file = pq.ParquetFile(content, pre_buffer=False, page_checksum_verification=True)
    for column in file.schema_arrow:
        if column.name not in schema.names or column.type != schema.field(column.name).type:
            raise ValueError(f"column {column.name!r} of type {column.type} is not one of ours")
    return file.read(columns=columns, use_threads=False)


def read_parquet(path: Path) -> CellResult:
    """Read one result. Raises `ResultsError` for a file that is corrupt or was not written by promptseg."""
    import pyarrow as pa

    try:
        table = read_checked(path, _schema())
        metadata = table.schema.metadata or {}
        told = metadata[_METADATA_KEY]
        digest = hashlib.sha256(told).hexdigest().encode()
        if metadata.get(_DIGEST_KEY, digest) != digest:  # results of 0.1.0 have none
            raise ValueError("what it tells of itself is not what was written")
        about = json.loads(told)
        if about["schema"] != SCHEMA_VERSION:
            raise ResultsError(f"{path} has results schema {about['schema']}, this version reads {SCHEMA_VERSION}.")
        return CellResult(
            cell=Cell(**about["cell"]),
            fingerprint=about["fingerprint"],
            rows=tuple(ResultRow(**row) for row in table.to_pylist()),
            n_examined=about["n_examined"],
            provenance=about["provenance"],
        )
    except (OSError, pa.ArrowException, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} is not a readable result ({error!r}); move it away to evaluate again.") from error


def result_files(root: Path) -> list[Path]:
    """Return the latest result of every cell in a results folder or a submission, sorted.

    Raises:
        ResultsError: there is none.
    """
    found = ResultStore(results_in(root)).files()
    if not found:
        raise ResultsError(
            f"{root.absolute()} holds no results (MODEL/TASK/MODE.parquet). Run pytest first, or name another folder."
        )
    return found


def results_in(root: Path) -> Path:
    """Return the results folder of a submission; any other folder is one itself."""
    return root / SUBMITTED if (root / SUBMISSION).is_file() else root


class Journal:
    """The finished cases of one unfinished result, appended by this process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, case_id: str, rows: Sequence[ResultRow]) -> None:
        """Add one case in a single write; ``rows`` is empty for a case that does not belong to the task."""
        append_line(self._path, {"case_id": case_id, "rows": [r.as_dict() for r in rows]})


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line of JSON to a journal in a single write. Raises `ResultsError` if it cannot be written."""
    told = json.dumps(entry).encode()
    line = told[:-1] + f', "{_CHECKSUM}": {zlib.crc32(told)}}}\n'.encode()  # as one object, written out once
    try:
        with _opened_to_append(path) as stream:
            start = stream.seek(0, os.SEEK_END)
            if stream.write(line) < len(line):  # a disk that fills up takes the beginning without complaint
                stream.truncate(start)  # else the next line would be lost with it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ResultsError(f"{path} could not be written: {error}. {_KEPT}") from error


def _opened_to_append(path: Path) -> FileIO:
    try:
        return path.open("ab", buffering=0)
    except FileNotFoundError:  # the first line of a journal
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)


def _checksum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode())


def entries_of(
    journal: Path, key: str, make: Callable[..., Item], tell: Callable[[str], None]
) -> Iterator[tuple[str, tuple[Item, ...]]]:
    """Yield the case and the items of each whole line: a last one that a kill cut short is no finished case.

    Nothing of a journal that is gone, since another process finished the result and dropped it.

    Args:
        journal: the file.
        key: under which a line holds its items.
        make: makes an item of what the line holds of it.
        tell: called with a sentence about each line that is not what `append_line` wrote.
    """
    try:
        lines = journal.read_bytes().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            if entry.pop(_CHECKSUM) != _checksum(entry):
                raise ValueError("another checksum")
            found = entry["case_id"], tuple(make(**item) for item in entry[key])
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            tell(f"{journal} holds a line that is not a finished case; it is evaluated again.")
        else:
            yield found


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
    _sweep(ours.parent)


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed while they wrote a file left half-written, more than a day ago."""
    for scrap in folder.glob(".*.parquet.*"):
        with suppress(OSError):
            if time.time() - scrap.stat().st_mtime > _STALE_SECONDS:
                scrap.unlink()


class ResultStore:
    """The results folder.

    Args:
        root: the folder.
        tell: called with a sentence about each file that had to be left aside; by default a warning.
    """

    def __init__(self, root: Path, tell: Callable[[str], None] = warnings.warn) -> None:
        self.root = root
        self._tell = tell

    def path(self, cell: Cell) -> Path:
        """Return where the latest result of ``cell`` lies."""
        return self.root / cell.model / cell.task / f"{cell.mode}.parquet"

    def _versions(self, cell: Cell, fingerprint: str) -> list[Path]:
        """Return the files of one result, oldest first; but for moments there is one."""
        folder = self.path(cell).parent / "history"
        return sorted(folder.glob(f"{cell.mode}-{fingerprint[:16]}.*.parquet"))

    def load(self, cell: Cell, fingerprint: str) -> CellResult | None:
        """Return the stored result with exactly this fingerprint, None if there is none.

        It becomes the latest again if it was not. A file that cannot be read counts as none.
        """
        result = self._newest(cell, fingerprint)
        if result is not None:
            self._publish(cell, fingerprint)
            return result
        with suppress(FileNotFoundError):
            latest = self._read(self.path(cell))  # alone, where somebody copied only that
            return latest if latest is not None and latest.fingerprint == fingerprint else None
        return None

    def _newest(self, cell: Cell, fingerprint: str) -> CellResult | None:
        while versions := self._versions(cell, fingerprint):
            with suppress(FileNotFoundError):  # another process has just put a newer one in its place
                return self._read(versions[-1])
        return None

    def save(self, result: CellResult) -> CellResult:
        """Store a result with what other processes stored of it meanwhile, and drop the journals that it covers.

        Returns what is stored now: never fewer cases than before.
        """
        cell, fingerprint = result.cell, result.fingerprint

        def write(path: Path) -> None:
            nonlocal result
            result = merged(self.load(cell, fingerprint), result)
            write_parquet(path, result, replace=False)

        history = self.path(cell).parent / "history"
        add_version(
            lambda: self._versions(cell, fingerprint),
            lambda number: history / f"{cell.mode}-{fingerprint[:16]}.{number:06}.parquet",
            write,
        )
        self._publish(cell, fingerprint)
        self.drop_journals(result)
        return result

    def drop_journals(self, result: CellResult) -> None:
        """Drop the journals that a stored result covers; a run that was killed between the two leaves them behind."""
        covered = {row.case_id for row in result.rows}
        for journal in self._journals(result.cell, result.fingerprint):
            if all(case_id in covered or not rows for case_id, rows in self._cases_of(journal)):
                journal.unlink(missing_ok=True)

    def _publish(self, cell: Cell, fingerprint: str) -> None:
        """Make the newest version the latest result of the cell."""
        latest, published = self.path(cell), None
        while (versions := self._versions(cell, fingerprint)) and versions[-1] != published:
            published = versions[-1]
            with suppress(FileNotFoundError):  # replaced by a newer one, which the next round finds
                if not (latest.exists() and latest.samefile(published)):
                    _link(published, latest)

    def _journals(self, cell: Cell, fingerprint: str) -> list[Path]:
        return sorted(self.path(cell).parent.glob(f"{cell.mode}-{fingerprint[:16]}.*.journal"))

    def journal(self, cell: Cell, fingerprint: str) -> Journal:
        """Return a journal of this process's own."""
        name = f"{cell.mode}-{fingerprint[:16]}.{os.getpid()}-{secrets.token_hex(4)}.journal"
        return Journal(self.path(cell).parent / name)

    def finished_cases(self, cell: Cell, fingerprint: str) -> dict[str, tuple[ResultRow, ...]]:
        """Return the rows of every case that any journal of this result holds, without failed cases."""
        return {
            case_id: rows
            for path in self._journals(cell, fingerprint)
            for case_id, rows in self._cases_of(path)
            if not any(row.error for row in rows)
        }

    def files(self) -> list[Path]:
        """Return the latest result of every cell, as files, sorted."""
        return sorted(self.root.glob(_LATEST))

    def all(self) -> Iterator[CellResult]:
        """Yield the latest result of every cell, sorted, without those that cannot be read."""
        for path in self.files():
            result = self._read(path)
            if result is not None:
                yield result

    def _read(self, path: Path) -> CellResult | None:
        """Return a result, None for one that cannot be read. Raises `FileNotFoundError` where there is no file."""
        try:
            return read_parquet(path)
        except ResultsError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise FileNotFoundError(path) from None
            self._tell(str(error))
            return None

    def _cases_of(self, journal: Path) -> Iterator[tuple[str, tuple[ResultRow, ...]]]:
        """Yield the case and the rows of each whole line."""
        return entries_of(journal, "rows", ResultRow, self._tell)


def _link(newest: Path, latest: Path) -> None:
    """Make ``latest`` the same file as ``newest`` (a copy where there are no links): at once or not at all."""
    temporary = latest.with_name(f".{latest.name}.{secrets.token_hex(4)}")
    try:
        if not _linked(newest, temporary):
            shutil.copyfile(newest, temporary)
        temporary.replace(latest)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ResultsError(f"{latest} could not be written: {error}. The result itself is kept as {newest}.") from error
    finally:
        temporary.unlink(missing_ok=True)  # also where it was the latest already: then replace() does nothing


def merged(stored: CellResult | None, result: CellResult) -> CellResult:
    """Return ``result`` with the cases that only ``stored`` has, or that failed now and had not then."""
    if stored is None:
        return result
    failed = {row.case_id for row in result.rows if row.error}
    failed -= {row.case_id for row in stored.rows if row.error}
    failed &= {row.case_id for row in stored.rows}
    ours = [row for row in result.rows if row.case_id not in failed]
    known = {row.case_id for row in ours}
    rows = sorted(
        [*ours, *(row for row in stored.rows if row.case_id not in known)], key=lambda r: (r.case_id, r.click)
    )
    return replace(result, rows=tuple(rows), n_examined=max(result.n_examined, stored.n_examined))
