"""The file of one result: a Parquet table of its rows, with what they share as JSON in its metadata.

Every file has the same columns, so that a results folder can be read as one table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import ResultsError
from promptseg.files.atomic import atomic_file
from promptseg.results.journal import KEPT
from promptseg.results.provenance import Provenance
from promptseg.results.rows import SCHEMA_VERSION, CellResult, MetricIdentity, MetricValues, ResultRow
from promptseg.specs import Cell

if TYPE_CHECKING:
    import pyarrow as pa

CELL_COLUMNS = tuple(field.name for field in fields(Cell))
"""The columns that are equal in all rows of a file."""
_METADATA_KEY = b"promptseg"
_DIGEST_KEY = b"promptseg-sha256"  # of what is under the key above; the pages of the file have checksums of their own
_FIRST_SCHEMA = 1
_PARTS = ("iou_first", "iou_confident", "iou_oracle", "candidate_iou", "coverage")  # columns of values from 0 to 1


class OldResultError(ResultsError):
    """A file holds a result that promptseg wrote before 0.2.0."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was written by promptseg before 0.2.0, which this version does not read; nothing in it was "
            "changed. Move it away to evaluate again."
        )


def schema() -> pa.Schema:
    """Return the columns of every result's file."""
    import pyarrow as pa

    values = pa.struct([(name, pa.float64()) for name in MetricValues._fields])
    kinds = {
        "repeat": pa.int32(),
        "case_id": pa.string(),
        "subject_id": pa.string(),
        "click": pa.int32(),
        "z": pa.int32(),
        "n_components": pa.int32(),
        "prompts": pa.string(),
        "predicted_iou": pa.list_(pa.float64()),
        "candidate_iou": pa.list_(pa.float64()),
        "error": pa.string(),
        "metrics": pa.map_(pa.string(), values),
    }
    of_rows = [(field.name, kinds.get(field.name, pa.float64())) for field in fields(ResultRow)]
    return pa.schema([*((name, pa.string()) for name in CELL_COLUMNS), *of_rows])


def write_parquet(path: Path, result: CellResult, *, replace: bool = True) -> None:
    """Write ``result`` to ``path``: whole or not at all.

    Raises:
        FileExistsError: the file is there already and ``replace`` is False.
        ResultsError: the disk is full or the folder cannot be written; the journals stay where they are.
    """
    import pyarrow as pa

    document = {
        "schema": SCHEMA_VERSION,
        "cell": asdict(result.cell),
        "fingerprint": result.fingerprint,
        "n_examined": result.n_examined,
        "metrics": {name: asdict(identity) for name, identity in result.metrics.items()},
        "provenance": result.provenance.as_json(),
    }
    text = json.dumps(document, sort_keys=True).encode()
    metadata = {_METADATA_KEY: text, _DIGEST_KEY: hashlib.sha256(text).hexdigest().encode()}
    cell = asdict(result.cell)
    rows = [cell | row.as_dict() for row in result.rows]
    table = pa.Table.from_pylist(rows, schema=schema().with_metadata(metadata))
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
    return ResultsError(f"{path} could not be written: {error}. {KEPT}")


def read_parquet(path: Path) -> CellResult:
    """Read and check one result.

    Raises:
        ResultsError: the file cannot be read, was not written by promptseg, has another schema, was changed, or its
            rows are not those of one cell, twice there, or have an IoU outside of [0, 1]. It names the file.
    """
    import pyarrow as pa

    try:
        content = path.read_bytes()
        document = _document(path, content)
        table = _table(content, schema())
        if table.schema.names != schema().names:
            raise ValueError(f"columns {', '.join(table.schema.names)}")
        cell = Cell(**document["cell"])
        _check(table, cell)
        return CellResult(
            cell=cell,
            fingerprint=_text(document["fingerprint"]),
            rows=_rows(table),
            n_examined=_number(document["n_examined"]),
            provenance=Provenance.from_json(document["provenance"]),
            metrics={name: MetricIdentity(**identity) for name, identity in document["metrics"].items()},
        )
    except (OSError, pa.ArrowException, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} is not a readable result ({error!r}); move it away to evaluate again.") from error


def is_old(path: Path) -> bool:
    """Whether promptseg wrote a file before 0.2.0; only its end is read, and False returned for what is no result."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        document = json.loads(pq.read_metadata(path).metadata[_METADATA_KEY])
        return bool(document["schema"] == _FIRST_SCHEMA)
    except (OSError, pa.ArrowException, KeyError, RecursionError, TypeError, ValueError):
        return False


def _document(path: Path, content: bytes) -> dict[str, Any]:
    """Return the metadata of a file, checked. Raises `ResultsError` for another schema, whatever columns it has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(pa.BufferReader(content)).metadata or {}
    text = metadata[_METADATA_KEY]
    document: dict[str, Any] = json.loads(text)
    if document["schema"] == _FIRST_SCHEMA:
        raise OldResultError(path)
    if document["schema"] != SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has results schema {document['schema']}, this version reads {SCHEMA_VERSION}; move it away to "
            "evaluate again."
        )
    if metadata[_DIGEST_KEY] != hashlib.sha256(text).hexdigest().encode():
        raise ValueError("its metadata is not what was written")
    return document


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no number")
    return value


def _rows(table: pa.Table) -> tuple[ResultRow, ...]:
    """Return the rows. Raises `ValueError` where two have the same key."""
    values = table.drop_columns([*CELL_COLUMNS, "metrics"]).to_pylist()
    if any(len(chunk.keys) for chunk in table["metrics"].chunks):  # else rows are read several times as fast
        metrics = table["metrics"].to_pylist(maps_as_pydicts="strict")
        rows = tuple(ResultRow.from_dict(**row, metrics=found) for row, found in zip(values, metrics, strict=True))
    else:
        rows = tuple(ResultRow(**row) for row in values)
    keys = set()
    for row in rows:
        if row.key in keys:
            raise ValueError(f"case {row.case_id!r} is there twice")
        keys.add(row.key)
    return rows


def _check(table: pa.Table, cell: Cell) -> None:
    """Raise `ValueError` unless all rows are of the cell, and all IoUs in [0, 1] or missing."""
    import pyarrow.compute as pc

    for name, value in asdict(cell).items():
        if (values := table[name].unique().to_pylist()) not in ([], [value]):
            raise ValueError(f"column {name!r} holds {values[:2]}, not {value!r} alone")
    for name in _PARTS:
        column = pc.list_flatten(table[name]) if name == "candidate_iou" else table[name]
        is_part = pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0))  # False for NaN
        if pc.all(is_part).as_py() is False:
            raise ValueError(f"column {name!r} holds values that are not numbers from 0 to 1")


# --- Parquet of any kind ------------------------------------------------------------------------------------


def write_checked(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whose pages have checksums. Raises `OSError`."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_checked(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file whose columns are among those of ``schema``, of the same types.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or not what was written; `pyarrow.ArrowException` may be raised too.
    """
    # From memory: given a path, pyarrow opens it more than once, and would mix a file with the one replacing it.
    return _table(path.read_bytes(), schema, columns)


def _table(content: bytes, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without threads: Arrow's may still run when a short process exits, and abort it.
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False, page_checksum_verification=True)
    for column in file.schema_arrow:
        if column.name not in schema.names or column.type != schema.field(column.name).type:
            raise ValueError(f"column {column.name!r} of type {column.type} is not one of ours")
    return file.read(columns=None if columns is None else list(columns), use_threads=False)
