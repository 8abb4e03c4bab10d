"""Loader for data sets that the Hub keeps as Parquet files with a column of images and a column of masks.

A `DatasetSpec` points its ``load`` here and names the columns in its ``options``::

    load="promptseg.datasets_registry.hub_parquet:load",
    options={"image": "image", "mask": "mask", "id": "id", "subject": "patient_id"},

``image`` and ``mask`` default to these names. ``id`` may be left out: then the row number is the case id. ``subject``
is the column of the patient, left out where there is none. ``where`` keeps rows with given values only, for example
``{"class_label": ["benign", "malignant"]}``.

`datasets` converts the files once to a memory-mapped copy of about the same size under ``<cache>/arrow``: from there
any row is read at once, in any order and from several threads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import CaseError, IntegrityError, RegistryError, UnavailableError

if TYPE_CHECKING:
    from promptseg.samples import LabelMap
    from promptseg.segmenter import Image
    from promptseg.specs import DatasetSpec

_SHARD = re.compile(r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
_OPTIONS = {"image", "mask", "id", "subject", "where"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; None where the data set has no such column."""

    image: str = "image"
    mask: str = "mask"
    id: str | None = None
    subject: str | None = None

    def names(self) -> list[str]:
        """Return the columns that must be there."""
        return [name for name in (self.id, self.subject, self.image, self.mask) if name is not None]


class ParquetSamples:
    """Samples in rows of Parquet files, memory-mapped by `datasets`; only the rows asked for are decoded.

    Args:
        name: registry name, for the messages.
        rows: a `datasets.Dataset` whose image columns are not decoded.
        columns: names of its columns.
        fingerprint: see `promptseg.samples.Samples`.
    """

    def __init__(self, name: str, rows: Any, columns: Columns, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._rows = rows
        self._columns = columns
        self._index = _index(name, _column(rows, columns.id))
        self._subjects = _column(rows, columns.subject)

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted."""
        return sorted(self._index)

    def subject(self, case_id: str) -> str | None:
        """Return the patient, None where the data set names none."""
        subject = self._subjects[self._row(case_id)] if self._columns.subject else None
        return None if subject is None else str(subject)

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map."""
        from promptseg.images import decode_labels

        return decode_labels(self._bytes(case_id, self._columns.mask), case_id, self._columns.mask)

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 RGB image."""
        from promptseg.images import decode_image

        return decode_image(self._bytes(case_id, self._columns.image), case_id, self._columns.image)

    def _row(self, case_id: str) -> int:
        if case_id not in self._index:
            raise CaseError(case_id, f"the data set has no such case; its {len(self._index)} ids are its rows' ids.")
        return self._index[case_id]

    def _bytes(self, case_id: str, column: str) -> bytes:
        """Return the bytes of an image file: plain, or in the struct of the Hub's Image columns."""
        value = self._rows[self._row(case_id)][column]
        held = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(held, bytes) and held:
            return held
        raise CaseError(case_id, f"column {column!r} holds no image bytes but {type(held).__name__}; bring it again.")


def load(spec: DatasetSpec, root: Path | None) -> ParquetSamples:
    """Open the Parquet files below ``root``.

    Raises:
        UnavailableError: there are none, or some of a numbered set are missing.
        IntegrityError: a file cannot be read, columns are missing, or an id occurs twice.
    """
    files = _files(spec, root)
    columns = _columns(spec)
    where = dict(spec.options.get("where", {}))
    wanted = [*columns.names(), *where]
    for file in files:
        _check_columns(spec.name, file, wanted)
    rows = _open(spec.name, files, wanted, columns)
    if where:
        rows = rows.select(_kept(rows, where))
    return ParquetSamples(spec.name, rows, columns, _fingerprint(spec, files))


def _files(spec: DatasetSpec, root: Path | None) -> list[Path]:
    if root is None or not root.is_dir():
        raise UnavailableError(f"{spec.name}: its folder {root} does not exist; run `promptseg pull {spec.name}`.")
    files = sorted(root.rglob("*.parquet"))
    if not files:
        raise UnavailableError(f"{spec.name}: no .parquet file below {root}; run `promptseg pull {spec.name}`.")
    _check_shards(spec.name, files)
    return files


def _check_shards(name: str, files: Sequence[Path]) -> None:
    """Raise where files numbered ``-00000-of-00003`` are not all there: an interrupted download by other programs."""
    shards = [match for file in files if (match := _SHARD.fullmatch(file.name))]
    found = Counter((shard["stem"], int(shard["count"])) for shard in shards)
    for (stem, count), present in found.items():
        if present != count:
            raise UnavailableError(
                f"{name}: {present} of {count} files {stem}-*-of-{count:05}.parquet are in {files[0].parent}; "
                f"run `promptseg pull {name}` to bring the rest."
            )


def _columns(spec: DatasetSpec) -> Columns:
    unknown = sorted(spec.options.keys() - _OPTIONS)
    if unknown:
        raise RegistryError(f"{spec.name}: unknown options {unknown}; this loader takes {sorted(_OPTIONS)}.")
    return Columns(**{key: value for key, value in spec.options.items() if key != "where"})


def _check_columns(name: str, file: Path, wanted: Sequence[str]) -> None:
    from pyarrow import ArrowException, parquet

    try:
        found = parquet.read_schema(file).names
    except (ArrowException, OSError) as error:
        raise IntegrityError(
            f"{name}: {file} cannot be read as Parquet ({error}). Remove {file.resolve()} and run "
            f"`promptseg pull {name}`."
        ) from error
    missing = [column for column in wanted if column not in found]
    if missing:
        raise IntegrityError(
            f"{name}: {file} lacks the columns {missing}; it has {found}. Another revision of the data set? Pin the "
            "one that the spec was written for, or name the columns in its options."
        )


def _open(name: str, files: Sequence[Path], wanted: Sequence[str], columns: Columns) -> Any:
    """Return a `datasets.Dataset` of the wanted columns, image columns as they are stored."""
    import datasets
    from pyarrow import ArrowException

    from promptseg.cache import cache_dir, disk_space

    try:
        with disk_space(name):
            rows = datasets.Dataset.from_parquet(
                [str(file) for file in files], columns=list(dict.fromkeys(wanted)), cache_dir=str(cache_dir() / "arrow")
            )
    except (ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        raise IntegrityError(
            f"{name}: the Parquet files in {files[0].parent} cannot be read ({error.__cause__ or error}). Remove the "
            f"damaged one and run `promptseg pull {name}`."
        ) from error
    for column in (columns.image, columns.mask):
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _column(rows: Any, column: str | None) -> list[Any]:
    """Return all values of a column, the row numbers for None."""
    return list(range(len(rows))) if column is None else list(rows[column][:])


def _kept(rows: Any, where: Mapping[str, Sequence[Any]]) -> list[int]:
    """Return the numbers of the rows whose columns hold one of the given values."""
    chosen = {column: set(allowed) for column, allowed in where.items()}
    values = {column: _column(rows, column) for column in chosen}
    return [row for row in range(len(rows)) if all(values[column][row] in chosen[column] for column in chosen)]


def _index(name: str, ids: Sequence[Any]) -> dict[str, int]:
    """Return case id to row. Numbers are zero-padded, so that their order as text is their order as numbers."""
    width = max((len(str(value)) for value in ids if isinstance(value, int)), default=0)
    texts = [str(value).zfill(width) if isinstance(value, int) else str(value) for value in ids]
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise IntegrityError(f"{name}: {len(twice)} ids occur more than once, for example {twice[:3]}; ids name cases.")
    return {text: row for row, text in enumerate(texts)}


def _fingerprint(spec: DatasetSpec, files: Sequence[Path]) -> str:
    """Return a digest of the files' contents and of how they are read; the same wherever they were brought from."""
    from promptseg.cache import sha256_of

    content = [[file.name, sha256_of(file)] for file in files]
    text = json.dumps([content, dict(spec.options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
