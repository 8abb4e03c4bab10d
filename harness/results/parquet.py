"""The file of one result: a Parquet table of its rows, with what they share as JSON in its metadata.

Every file has the same columns, so that a results folder can be read as one table.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import ResultsError
from promptseg.files.atomic import atomic_file, read_file
from promptseg.results import rules
from promptseg.results.journal import KEPT, Entry
from promptseg.results.provenance import Provenance
from promptseg.results.rows import SCHEMA_VERSION, CellResult, MetricIdentity, MetricValues, ResultRow
from promptseg.specs import Cell

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CELL_COLUMNS = tuple(field.name for field in fields(Cell))
"""The columns that are equal in all rows of a file."""
_METADATA_KEY = b"promptseg"
_DIGEST_KEY = b"promptseg-sha256"  # of what is under the key above; the pages of the file have checksums of their own
_FIRST_SCHEMA = 1
_OWN_COLUMNS = (*CELL_COLUMNS, "metrics")  # of a table, which are not plain values of a row


class UnusableResultError(ResultsError):
    """A file is not a result that this version can use.

    Attributes:
        problem: what is wrong with it, as the rest of a sentence that begins with the file.
        reason: the same in fewer words.
    """

    def __init__(
        self, path: Path, problem: str, remedy: str = "; move it away to evaluate again.", reason: str = ""
    ) -> None:
        super().__init__(f"{path} {problem}{remedy}")
        self.problem = problem
        self.reason = reason or f"it {problem}"


class OldResultError(UnusableResultError):
    """A file holds a result that promptseg wrote before 0.2.0."""

    def __init__(self, path: Path) -> None:
        problem = "was written by promptseg before 0.2.0, which this version does not read"
        super().__init__(path, problem, "; nothing in it was changed. Move it away to evaluate again.")


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


def check_entries(entries: Sequence[Entry], known: rules.RowRules) -> None:
    """Raise `rules.FaultError`, or an error of pyarrow, unless lines of a journal hold rows that a result may have."""
    import pyarrow as pa

    from promptseg.results import checks

    items = [item for entry in entries for item in entry.items]
    for item in items:
        rules.check_json(item, rules.ROW_TYPES)
    columns = [field for field in schema() if field.name not in CELL_COLUMNS]
    table = pa.Table.from_pylist(items, schema=pa.schema(columns))
    checks.check_rows(table, known, [entry.number for entry in entries for _ in entry.items])
    ids = known.case_ids
    if ids is not None and (unknown := [entry.case_id for entry in entries if entry.case_id not in ids]):
        raise rules.FaultError(f"'case_id' is {rules.shown(unknown[0])}, which the data set does not have")


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
    cell = asdict(result.cell)
    rows = [cell | row.as_dict() for row in result.rows]
    table = pa.Table.from_pylist(rows, schema=schema().with_metadata(sealed(document)))
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
        UnusableResultError: the file cannot be read, was not written by promptseg, has another schema, was changed, or
            holds what no result can hold (`promptseg.results.checks`). It names the file, and what was found.
    """
    import pyarrow as pa

    try:
        return _result(path, read_file(path))
    except rules.FaultError as error:
        raise UnusableResultError(path, f"is not a readable result ({error})", reason=str(error)) from error
    except (OSError, pa.ArrowException, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UnusableResultError(path, f"is not a readable result ({error!r})", reason=repr(error)) from error


def _result(path: Path, content: bytes) -> CellResult:
    from promptseg.results import checks  # with numpy, which collecting tests does not need

    file = _opened(content)
    document = _document(path, file.schema_arrow.metadata or {})
    rules.check_document(document)
    table = _table(file, schema())
    if table.schema.names != schema().names:
        raise rules.FaultError(f"it has the columns {', '.join(table.schema.names)}")
    cell, made = Cell(**document["cell"]), Provenance.from_json(document["provenance"])
    metrics = {name: MetricIdentity(**identity) for name, identity in document["metrics"].items()}
    _check_cell(table, cell)
    mode = made.mode
    known = rules.RowRules(steps=mode.steps, grid=mode.grid, needs=mode.needs, metrics=metrics.keys())
    checks.check_rows(table, known)
    rules.check_examined(len(table["case_id"].unique()), document["n_examined"])
    return CellResult(
        cell=cell,
        fingerprint=document["fingerprint"],
        rows=_rows(table),
        n_examined=document["n_examined"],
        provenance=made,
        metrics=metrics,
    )


def is_old(path: Path) -> bool:
    """Whether promptseg wrote a file before 0.2.0; only its end is read, and False returned for what is no result."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        document = json.loads(pq.read_metadata(path).metadata[_METADATA_KEY])
        return bool(document["schema"] == _FIRST_SCHEMA)
    except (OSError, pa.ArrowException, KeyError, RecursionError, TypeError, ValueError):
        return False


def _document(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the metadata of a file. Raises `UnusableResultError` for another schema, whatever columns it has."""
    document = _sealed_in(metadata)
    if document["schema"] == _FIRST_SCHEMA:
        raise OldResultError(path)
    if document["schema"] != SCHEMA_VERSION:
        found = rules.shown(document["schema"])
        raise UnusableResultError(path, f"has results schema {found}, this version reads {SCHEMA_VERSION}")
    return unsealed(metadata)


def _check_cell(table: pa.Table, cell: Cell) -> None:
    """Raise `rules.FaultError` unless all rows are of the cell."""
    for name, value in asdict(cell).items():
        if (values := table[name].unique().to_pylist()) not in ([], [value]):
            raise rules.FaultError(f"column {name!r} holds {values[:2]}, not {value!r} alone")


def _rows(table: pa.Table) -> tuple[ResultRow, ...]:
    """Return the rows of a checked table."""
    names = [name for name in table.schema.names if name not in _OWN_COLUMNS]
    columns: dict[str, Iterable[Any]] = {name: _values(table[name]) for name in names}
    if any(len(chunk.keys) for chunk in table["metrics"].chunks):  # else rows are read several times as fast
        maps = table["metrics"].to_pylist(maps_as_pydicts="strict")
        columns["metrics"] = [{name: MetricValues(**found) for name, found in of_row.items()} for of_row in maps]
    else:
        columns["metrics"] = ({} for _ in range(table.num_rows))
    return ResultRow.from_columns(table.num_rows, columns)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a checked column; numbers by way of numpy, which takes a tenth of the time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_list(column.type):
        flat: list[float] = pc.list_flatten(column).to_numpy().tolist()
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy()).tolist()
        lists = [flat[start:end] for start, end in itertools.pairwise([0, *ends])]
        return [found or None for found in lists]  # a checked list is not empty
    if pa.types.is_floating(column.type):
        numbers: list[float] = column.to_numpy().tolist()  # None is NaN, which a checked column does not hold
        return [None if number != number else number for number in numbers] if column.null_count else numbers
    found: list[Any] = column.to_pylist()
    return found


# --- Parquet of any kind ------------------------------------------------------------------------------------


def sealed(document: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return a file's metadata: a JSON object and its checksum; the pages of a file have checksums of their own."""
    text = json.dumps(document, sort_keys=True).encode()
    return {_METADATA_KEY: text, _DIGEST_KEY: hashlib.sha256(text).hexdigest().encode()}


def unsealed(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return the JSON object in a file's metadata. Raises an error of many kinds where `sealed` did not make it."""
    metadata = metadata or {}
    document = _sealed_in(metadata)
    if metadata[_DIGEST_KEY] != hashlib.sha256(metadata[_METADATA_KEY]).hexdigest().encode():
        raise rules.FaultError("its metadata is not what was written")
    return document


def _sealed_in(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    if _METADATA_KEY not in metadata:
        raise rules.FaultError("promptseg did not write it")
    document = rules.loads(metadata[_METADATA_KEY])
    if not isinstance(document, dict):
        raise rules.FaultError("its metadata is no JSON object")
    return document


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
    return _table(_opened(read_file(path)), schema, columns)


def _opened(content: bytes) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False, page_checksum_verification=True)


def _table(file: pq.ParquetFile, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    for column in file.schema_arrow:
        if column.name not in schema.names or column.type != schema.field(column.name).type:
            raise rules.FaultError(f"column {column.name!r} of type {column.type} is not one of ours")
    # Without threads: Arrow's may still run when a short process exits, and abort it.
    return file.read(columns=None if columns is None else list(columns), use_threads=False)
