"""The prepared form of a data set: Parquet files that `datasets` opens, and a record of what they hold.

::

    <cache>/prepared/NAME/RECIPE/prepared.json
    <cache>/prepared/NAME/RECIPE/data/test-00000-of-00001.parquet

Columns: ``case_id``, ``subject_id`` (patient, null if unknown), ``slice_index`` (null for a plain image),
``image`` (PNG), ``mask`` (PNG of label ids, 0 is background), ``spacing_mm`` (height and width of a pixel, null if
unknown), ``labels`` (ids in the mask), ``sha256`` (of the pixels of both), ``metadata`` (JSON).

RECIPE is a digest of all that the spec says about the preparation: after a change there, or of its ``version``, the
data set is prepared again. Writing is done by `promptseg.preparation.run`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.data.parquet import Columns, ParquetSamples, open_rows
from promptseg.errors import CaseError, UnavailableError
from promptseg.files.atomic import read_json, write_json
from promptseg.files.cache import cache_dir, check_sha256

if TYPE_CHECKING:
    from promptseg.samples import LabelMap
    from promptseg.specs import DatasetSpec, Layout

COLUMNS = Columns(image="image", mask="mask", id="case_id", subject="subject_id")
RECORD = "prepared.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of a prepared data set.

    Attributes:
        name: of the data set.
        recipe: digest of what its spec said about the preparation.
        layout: the layout that its files were found in.
        fingerprint: of the files it was made from and of the recipe.
        content: digest of ids, subjects and pixels; the same on every machine.
        revision: commit of the Hub that the files came from, None if it is unknown.
        n_cases: number of rows.
        files: path in the folder to sha256 and size in bytes.
        failed: unit to the reason why it could not be read.
    """

    name: str
    recipe: str
    layout: str
    fingerprint: str
    content: str
    revision: str | None
    n_cases: int
    files: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(int(file["size"]) for file in self.files.values())


def recipe(spec: DatasetSpec) -> str:
    """Return the digest of what a spec says about its preparation, 64 hex digits."""
    known = spec.known_labels
    payload = {
        "version": spec.version,
        "layouts": [_as_json(layout) for layout in spec.layouts],
        "labels": None if known is None else sorted(known),
        "tasks": sorted(sorted(task.labels) for task in spec.tasks),
    }
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def _as_json(layout: Layout) -> dict[str, Any]:
    return {"read": layout.read, "options": dict(layout.options)}


def folder(spec: DatasetSpec) -> Path:
    """Return the folder in the cache for the prepared form of a data set; it need not exist."""
    return cache_dir() / "prepared" / spec.name / recipe(spec)[:16]


def find(spec: DatasetSpec) -> Record | None:
    """Return the record of the prepared data set; None if it is missing, incomplete or of another recipe.

    Only names and sizes are checked here; `load` checks the contents.
    """
    record = read_record(folder(spec))
    if record is None or record.recipe != recipe(spec):
        return None
    whole = all(_has_size(folder(spec) / path, file["size"]) for path, file in record.files.items())
    return record if whole else None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def read_record(root: Path) -> Record | None:
    """Return the record in a folder, None if there is none that can be read."""
    try:
        record = Record(**read_json(root / RECORD))
    except TypeError:  # no file, or one of another program
        return None
    return record if _is_whole(record) else None


def _is_whole(record: Record) -> bool:
    """Whether the parts of a record that are tables are: a damaged file may hold anything."""
    tables = (record.files, record.failed)
    if not all(isinstance(table, dict) for table in tables):
        return False
    return bool(record.files) and all(
        isinstance(f, dict) and {"size", "sha256"} <= set(f) for f in record.files.values()
    )


def write_record(root: Path, record: Record) -> None:
    """Store a record."""
    write_json(root / RECORD, dataclasses.asdict(record))


class CanonicalSamples(ParquetSamples):
    """The cases of a prepared data set; see `promptseg.samples.Samples`.

    What could not be read when it was prepared stands as a case that fails with the reason, so that nothing is left out
    unnoticed.
    """

    def __init__(self, record: Record, rows: Any) -> None:
        super().__init__(record.name, rows, COLUMNS, record.content, binary_255=False)
        self._failed = record.failed

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted, those of what could not be read among them."""
        return sorted([*super().ids(), *self._failed])

    def subject(self, case_id: str) -> str | None:
        """Return the patient, None where the data set names none."""
        return None if case_id in self._failed else super().subject(case_id)

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map. Raises `CaseError` for what could not be read."""
        if case_id in self._failed:
            raise CaseError(case_id, self._failed[case_id])
        return super().labels(case_id)


def load(spec: DatasetSpec, root: Path | None) -> CanonicalSamples:
    """Open the prepared form in ``root``.

    Raises:
        UnavailableError: it is not there.
        IntegrityError: a file is not the one that was written.
    """
    record = read_record(root) if root else None
    if root is None or record is None:
        raise UnavailableError(f"{spec.name} is not prepared in {root}; run `promptseg data prepare {spec.name}`.")
    remedy = f"Remove {root} and run `promptseg data prepare {spec.name}`."
    for path, file in record.files.items():
        check_sha256(root / path, str(file["sha256"]), owner=spec.name, remedy=remedy)
    return CanonicalSamples(
        record, open_rows(spec.name, [root / path for path in record.files], COLUMNS.names(), COLUMNS)
    )
