"""Loader for data sets that the Hub keeps as Parquet files with a column of images and a column of masks.

A `DatasetSpec` points its ``load`` here and names the columns in its ``options``::

    load="promptseg.datasets_registry.hub_parquet:load",
    options={"image": "image", "mask": "mask", "id": "id", "subject": "patient_id"},

``image`` and ``mask`` default to these names. ``id`` may be left out: then the row number is the case id. ``subject``
is the column of the patient, left out where there is none. ``where`` keeps rows with given values only, for example
``{"class_label": ["benign", "malignant"]}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.data.parquet import Columns, ParquetSamples, column_of, open_rows
from promptseg.errors import IntegrityError, RegistryError, UnavailableError

if TYPE_CHECKING:
    from promptseg.specs import DatasetSpec

_SHARD = re.compile(r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
_OPTIONS = {"image", "mask", "id", "subject", "where"}


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
    rows = open_rows(spec.name, files, wanted, columns)
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
    """Raise `UnavailableError` unless files numbered ``-00000-of-00003`` are all there: others' downloads may stop."""
    shards = [match for file in files if (match := _SHARD.fullmatch(file.name))]
    parts = Counter((shard["stem"], int(shard["count"])) for shard in shards)
    for (stem, count), present in parts.items():
        if present != count:
            raise UnavailableError(
                f"{name}: {present} of {count} files {stem}-*-of-{count:05}.parquet are in {files[0].parent}; "
                f"run `promptseg pull {name}` to download the rest."
            )


def _columns(spec: DatasetSpec) -> Columns:
    unknown = sorted(spec.options.keys() - _OPTIONS)
    if unknown:
        raise RegistryError(f"{spec.name}: unknown options {unknown}; this loader takes {sorted(_OPTIONS)}.")
    return Columns(**{key: value for key, value in spec.options.items() if key != "where"})


def _check_columns(name: str, file: Path, wanted: Sequence[str]) -> None:
    from pyarrow import ArrowException, parquet

    try:
        present = parquet.read_schema(file).names
    except (ArrowException, OSError) as error:
        raise IntegrityError(
            f"{name}: {file} cannot be read as Parquet ({error}). Remove {file.resolve()} and run "
            f"`promptseg pull {name}`."
        ) from error
    missing = [column for column in wanted if column not in present]
    if missing:
        raise IntegrityError(
            f"{name}: {file} lacks the columns {missing}; it has {present}. Another revision of the data set? Pin the "
            "one that the spec was written for, or name the columns in its options."
        )


def _kept(rows: Any, where: Mapping[str, Sequence[Any]]) -> list[int]:
    """Return the numbers of the rows whose columns hold one of the given values."""
    chosen = {column: set(allowed) for column, allowed in where.items()}
    values = {column: column_of(rows, column) for column in chosen}
    return [row for row in range(len(rows)) if all(values[column][row] in chosen[column] for column in chosen)]


def _fingerprint(spec: DatasetSpec, files: Sequence[Path]) -> str:
    """Return a digest of the files' contents and of how they are read; the same wherever they came from."""
    from promptseg.files.cache import sha256_of

    content = [[file.name, sha256_of(file)] for file in files]
    text = json.dumps([content, dict(spec.options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
