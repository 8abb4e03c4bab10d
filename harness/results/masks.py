"""Candidate masks on disk, for ``--seg-save-masks``: runs of pixels in COCO's compressed form, a Parquet file a result.

Layout, under the results folder::

    MODEL/TASK/.masks/MODE-FINGERPRINT.NUMBER.parquet      the masks of the result with this fingerprint, which the
                                                           file's metadata name with its cell
    MODEL/TASK/.masks/MODE-FINGERPRINT.PID-RANDOM.journal  a line of JSON for each finished case of an unfinished one

They are kept as results are (see `promptseg.results.store`): a case's masks are on disk before its rows, files are
written whole or not at all, and nobody locks anything. pycocotools and pyarrow are imported when they are needed.
"""

from __future__ import annotations

import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.errors import ResultsError
from promptseg.files.atomic import atomic_file
from promptseg.results import checks, rules
from promptseg.results.journal import Entry, append_line, read_journal
from promptseg.results.parquet import read_checked, sealed, unsealed, write_checked
from promptseg.results.versions import add_version, path_of, stem, versions_in
from promptseg.segmenter import Mask, Prediction
from promptseg.specs import Cell

if TYPE_CHECKING:
    import pyarrow as pa

MASKS = ".masks"
"""Folder beside the latest results of a model on a task."""
_LONGEST_RUN_BITS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMask:
    """One candidate.

    Attributes:
        case_id: the image's id.
        click: as in `promptseg.results.rows.ResultRow`.
        prompt: index among the row's ``prompts``; the masks of ``box_each`` are those before they are united.
        candidate: index among the model's candidates; of a grid among the masks that are left of the image.
        height: of the image in pixels.
        width: of the image in pixels.
        counts: compressed runs; ``{"size": [height, width], "counts": counts}`` is COCO's RLE.
        predicted_iou: the model's estimate, None where it makes none.
    """

    case_id: str
    click: int
    prompt: int
    candidate: int
    height: int
    width: int
    counts: str
    predicted_iou: float | None

    def mask(self) -> Mask:
        """Return the (H, W) mask. Raises `ResultsError` if its runs do not fill the image."""
        _check_runs(self)
        from pycocotools import mask as coco

        with _silenced():
            found = coco.decode({"size": [self.height, self.width], "counts": self.counts.encode()})
        return np.array(found, dtype=np.bool_)


def _check_runs(saved: SavedMask) -> None:
    """Raise `ResultsError` where pycocotools would leave pixels as it finds them in memory."""
    lengths = _lengths(saved.counts)
    if lengths is None or min(lengths, default=0) < 0 or sum(lengths) != saved.height * saved.width:
        raise ResultsError(
            f"the runs of mask {saved.candidate} of case {saved.case_id!r} do not fill its {saved.height} x "
            f"{saved.width} pixels; they were changed since they were saved."
        )


def _lengths(counts: str) -> list[int] | None:
    """Decode COCO's compressed form to run lengths; None if it is malformed.

    Six bits a character: five of the number, least significant first, and whether more follow. From the fourth run on
    a number is the difference to the run before the last. See ``rleFrString`` in cocoapi's ``maskApi.c``.
    """
    lengths: list[int] = []
    number, shift = 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > _LONGEST_RUN_BITS:
            return None
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            number -= (1 << shift) if code & 16 else 0
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number, shift = 0, 0
    return None if shift else lengths


def encoded(case_id: str, click: int, predictions: Sequence[Prediction]) -> list[SavedMask]:
    """Return all candidates of the answers to one row's prompts."""
    return [
        SavedMask(
            case_id=case_id,
            click=click,
            prompt=prompt,
            candidate=candidate,
            height=answer.masks.shape[1],
            width=answer.masks.shape[2],
            counts=counts,
            predicted_iou=None if answer.predicted_iou is None else float(answer.predicted_iou[candidate]),
        )
        for prompt, answer in enumerate(predictions)
        for candidate, counts in enumerate(_counts(answer))
    ]


_filters = threading.Lock()


@contextmanager
def _silenced() -> Iterator[None]:
    """Hide that pycocotools makes its arrays in a way that NumPy 2 deprecates; filters are the whole process's."""
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


def _counts(answer: Prediction) -> list[str]:
    from pycocotools import mask as coco

    columns_first = np.asfortranarray(answer.masks.transpose(1, 2, 0), dtype=np.uint8)
    return [rle["counts"].decode("ascii") for rle in coco.encode(columns_first)]


class MaskJournal:
    """The masks of the finished cases of one unfinished result, appended by this process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, case_id: str, masks: Sequence[SavedMask]) -> None:
        """Add one case in a single write."""
        append_line(self._path, {"case_id": case_id, "masks": [asdict(mask) for mask in masks]})


class MaskStore:
    """The masks beside the results.

    Args:
        root: the results folder.
        notify: called with a sentence about each file that is not what its name says, and about lines of a journal that
            cannot be used.
    """

    def __init__(self, root: Path, notify: Callable[[str], None]) -> None:
        self._root = root
        self._notify = notify

    def _folder(self, cell: Cell) -> Path:
        return self._root / cell.model / cell.task / MASKS

    def versions(self, cell: Cell, fingerprint: str) -> list[Path]:
        """Return the files of one result's masks, oldest first; but for moments there is one, or none."""
        return versions_in(self._folder(cell), cell.mode, fingerprint)

    def _journals(self, cell: Cell, fingerprint: str) -> list[Path]:
        return sorted(self._folder(cell).glob(f"{stem(cell.mode, fingerprint)}.*.journal"))

    def journal(self, cell: Cell, fingerprint: str) -> MaskJournal:
        """Return a journal of this process's own."""
        name = f"{stem(cell.mode, fingerprint)}.{os.getpid()}-{secrets.token_hex(4)}.journal"
        return MaskJournal(self._folder(cell) / name)

    def read(self, cell: Cell, fingerprint: str, case_ids: Sequence[str] | None = None) -> list[SavedMask]:
        """Return the stored masks of a result, or of some of its cases, sorted; without those still in journals."""
        import pyarrow as pa
        import pyarrow.compute as pc

        stored = self._stored(cell, fingerprint)
        if case_ids is not None:
            stored = stored.filter(pc.is_in(stored["case_id"], value_set=pa.array(case_ids, pa.string())))
        return [SavedMask(**row) for row in stored.to_pylist()]

    def cases(self, cell: Cell, fingerprint: str) -> set[str]:
        """Return the cases whose masks are on disk, in the file or in a journal."""
        found = [self._cases_of(path)[0].keys() for path in self._journals(cell, fingerprint)]
        return self._stored_cases(cell, fingerprint).union(*found)

    def save(self, cell: Cell, fingerprint: str) -> None:
        """Put what is in journals into the file, and drop the journals that it then covers.

        Raises:
            ResultsError: the disk is full or the folder cannot be written; the journals stay where they are.
        """
        journals = self._journals(cell, fingerprint)
        if not journals:
            return
        found = {case_id: masks for path in journals for case_id, masks in self._cases_of(path)[0].items()}

        def write(path: Path) -> list[Path]:
            versions = self._own_versions(cell, fingerprint)
            tables = [table for _, table in versions]
            _write(path, _merged(tables, found).replace_schema_metadata(sealed(_identity(cell, fingerprint))))
            return [path for path, _ in versions]

        add_version(
            lambda: self.versions(cell, fingerprint),
            lambda number: path_of(self._folder(cell), cell.mode, fingerprint, number),
            write,
        )
        covered = self._stored_cases(cell, fingerprint)
        for path in journals:
            cases, is_whole = self._cases_of(path)
            if is_whole and set(cases) <= covered:
                path.unlink(missing_ok=True)

    def _stored_cases(self, cell: Cell, fingerprint: str) -> set[str]:
        return set(self._stored(cell, fingerprint, ["case_id"]).column("case_id").to_pylist())

    def _stored(self, cell: Cell, fingerprint: str, columns: list[str] | None = None) -> pa.Table:
        return _merged([table for _, table in self._own_versions(cell, fingerprint, columns)], {}, columns)

    def _own_versions(
        self, cell: Cell, fingerprint: str, columns: list[str] | None = None
    ) -> list[tuple[Path, pa.Table]]:
        """Return the versions of one result's masks, oldest first; but for moments there is one.

        Raises:
            ResultsError: a file that has the name of one cannot be used.
        """
        while True:
            try:
                found = [(path, _read(path, columns)) for path in self.versions(cell, fingerprint)]
            except FileNotFoundError:  # another process has just put a newer one in its place
                continue
            return [(path, table) for path, table in found if self._is_of(path, table, cell, fingerprint)]

    def _is_of(self, path: Path, table: pa.Table, cell: Cell, fingerprint: str) -> bool:
        """Whether a file holds the masks that its name says; if not, that is reported."""
        if unsealed(table.schema.metadata) == _identity(cell, fingerprint):
            return True
        self._notify(
            f"{path} holds the masks of another result than of {cell.id} with the fingerprint {fingerprint}. They are "
            "not used, and stay where they are: move the file away."
        )
        return False

    def _cases_of(self, journal: Path) -> tuple[dict[str, tuple[SavedMask, ...]], bool]:
        """Return the case and the masks of each line that can be used, and whether that is all of them."""
        found = read_journal(journal, "masks", _check_entries, self._notify)
        cases = {entry.case_id: tuple(SavedMask(**mask) for mask in entry.items) for entry in found.entries}
        return cases, found.is_whole


def _identity(cell: Cell, fingerprint: str) -> dict[str, Any]:
    """Return what the metadata of a file say: whose masks it holds."""
    return {"cell": asdict(cell), "fingerprint": fingerprint}


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    """Return some columns of a file of masks, checked. Raises `ResultsError`; `FileNotFoundError` if it is gone."""
    import pyarrow as pa

    try:
        table = read_checked(path, _schema(), columns)
        checks.check_masks(table, columns or _schema().names)
        unsealed(table.schema.metadata)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        problem = str(error) if isinstance(error, rules.FaultError) else repr(error)
        raise ResultsError(f"{path} cannot be read ({problem}); move it away to save again.") from error
    return table


def _check_entries(entries: Sequence[Entry]) -> None:
    """Raise `FaultError`, or an error of pyarrow, unless the lines of a journal hold masks as a file may have them."""
    import pyarrow as pa

    items = [item for entry in entries for item in entry.items]
    for item in items:
        rules.check_json(item, rules.MASK_TYPES)
    lines = [entry.number for entry in entries for _ in entry.items]
    checks.check_masks(pa.Table.from_pylist(items, schema=_schema()), _schema().names, lines)


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"case_id": pa.string(), "counts": pa.string(), "predicted_iou": pa.float64()}
    return pa.schema([(f.name, kinds.get(f.name, pa.int32())) for f in fields(SavedMask)])


def _merged(
    tables: Sequence[pa.Table], found: Mapping[str, Sequence[SavedMask]], columns: list[str] | None = None
) -> pa.Table:
    """Return the masks of some tables, oldest first, and of the found cases; of two of a case the later ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = _schema() if columns is None else pa.schema([_schema().field(name) for name in columns])
    new = pa.Table.from_pylist([asdict(mask) for masks in found.values() for mask in masks], schema=_schema())
    merged, known = [new.select(schema.names)], pa.array(list(found), pa.string())
    for table in reversed(tables):
        kept = table.select(schema.names).replace_schema_metadata(None)
        kept = kept.filter(pc.invert(pc.is_in(kept["case_id"], value_set=known)))
        merged.append(kept)
        known = pa.concat_arrays([known, kept["case_id"].unique()])
    order = [(name, "ascending") for name in ("case_id", "click", "prompt", "candidate") if name in schema.names]
    return pa.concat_tables(merged).sort_by(order)


def _write(path: Path, table: pa.Table) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, replace=False) as temporary:
            write_checked(table, temporary)
    except FileExistsError:
        raise
    except OSError as error:
        raise ResultsError(
            f"{path} could not be written: {error}. Masks of finished cases are kept in journals beside it: make room "
            "or choose another folder with --seg-results, and run the same command again."
        ) from error
