"""The one rule for stored results: a field of a valid one is changed at a time, and each change is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptseg.errors import ResultsError
from promptseg.results.parquet import read_parquet, sealed, unsealed, write_parquet
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, MetricIdentity, MetricValues, ResultRow
from promptseg.specs import Cell

BOX = json.dumps([{"points_xy": [], "labels": [], "box_xyxy": [1.0, 2.0, 8.5, 9.0]}])
POINTS = json.dumps([{"points_xy": [[3.0, 4.0], [5.5, 6.0]], "labels": [1, 0], "box_xyxy": None}])
GRID = json.dumps([{"grid": 8}])
ABOUT = {
    "protocol": ["paper", 1],
    "scoring": ["0a" * 32],
    "seed": 3,
    "device": "cpu",
    "dtype": "float32",
    "fast": [],
    "n_images": 7,
    "date": "2026-02-03",
    "versions": {"numpy": "2.3"},
    "seconds": {"encode": 0.5, "decode": 1, "total": 2.5},
    "model": {"name": "acme", "sha256": {"net": "cc" * 32}, "training_data": ["lungs"], "sees_target": False},
    "dataset": {"name": "lungs", "fingerprint": "dd" * 32, "overlaps": []},
    "task": {"labels": [2], "n_masks": None},
}


def mode(name: str, steps: int = 0, grid: int = 0, needs: str = "boxes") -> dict[str, Any]:
    """Return what a result records of its prompt mode."""
    guide = "confident" if steps else None
    return {"name": name, "steps": steps, "guide": guide, "grid": grid, "select": guide, "needs": needs}


def made(name: str, rows: list[ResultRow], **about: Any) -> CellResult:
    """Return a result of these rows."""
    provenance = Provenance.from_json({**ABOUT, "mode": mode(name, **about)})
    metrics = {"iou": MetricIdentity(version=1), "dice": MetricIdentity(version=2, options={"k": 1})}
    rows = sorted(rows, key=lambda row: row.key)
    return CellResult(
        cell=Cell("acme", "lung_left", name),
        fingerprint="e" * 64,
        rows=tuple(rows),
        n_examined=6,
        provenance=provenance,
        metrics=metrics,
    )


def answered(case_id: str, **more: Any) -> ResultRow:
    """Return a row of three candidates, of which the third is the surest and the second the best."""
    values: dict[str, Any] = {
        "subject_id": f"of {case_id}",
        "n_components": 2,
        "area_fraction": 0.25,
        "prompts": BOX,
        "iou_first": 0.25,
        "iou_confident": 0.5,
        "iou_oracle": 0.75,
        "predicted_iou": [0.5, 0.6, 1.02],
        "candidate_iou": [0.25, 0.75, 0.5],
        "seconds": 0.125,
    }
    return ResultRow(case_id=case_id, **{**values, **more})


DICE = {"dice": MetricValues(0.5, 0.7, None)}
STATIC = made(
    "box_all",
    [
        answered("k1", metrics=DICE),
        answered("k2", subject_id=None, predicted_iou=None, iou_confident=0.25),
        answered("k3", predicted_iou=None, candidate_iou=None, iou_confident=0.9),
        ResultRow(case_id="k4", subject_id="of k4", error="the image is torn"),
    ],
)
CLICKS = made(
    "three_clicks",
    [
        *(answered(case, click=click, prompts=POINTS) for case in ("k1", "k2") for click in (1, 2, 3)),
        ResultRow(case_id="k3", error="out of memory"),
    ],
    steps=3,
    needs="points",
)
EVERYTHING = made(
    "everything",
    [
        answered("k1", prompts=GRID, coverage=0.5, candidate_iou=None, predicted_iou=[0.9] * 5),
        answered("k2", prompts=GRID, coverage=0.0, candidate_iou=None, predicted_iou=None),
    ],
    grid=8,
    needs="everything",
)
BY_NAME = made("words", [answered("k1"), ResultRow(case_id="k2", prompts="[]", predicted_iou=[0.1])], needs="text")
OF_VOLUMES = made("slices", [answered("k1", z=z, repeat=repeat) for z in (0, 4) for repeat in (0, 1)])
MANY = made("box_all", [answered(f"k{i}", prompts=(BOX, POINTS)[i % 2]) for i in range(6)])


@pytest.mark.parametrize("whole", [STATIC, CLICKS, EVERYTHING, BY_NAME, OF_VOLUMES, MANY])
def test_honest_results_are_read(tmp_path: Path, whole: CellResult) -> None:
    """With errors, clicks, grids, united prompts, rows without an object, slices, repeats and metrics."""
    write_parquet(tmp_path / "r.parquet", whole)
    assert read_parquet(tmp_path / "r.parquet") == whole


def test_many_prompts_are_held_to_the_same_rule_as_a_few(tmp_path: Path) -> None:
    """A hundred are looked at in another way, which finds the same."""
    path = tmp_path / "r.parquet"
    rows = [answered(f"k{i:03}", prompts=(BOX, POINTS, GRID)[i % 3]) for i in range(100)]
    whole = made("box_all", rows)
    about = Provenance.from_json({**whole.provenance.as_json(), "n_images": 100})
    whole = CellResult(cell=whole.cell, fingerprint="e" * 64, rows=whole.rows, n_examined=100, provenance=about)
    write_parquet(path, whole)
    assert read_parquet(path) == whole
    for text in PROMPTS:
        change(path, "prompts", 51, text)
        with pytest.raises(ResultsError, match=r"r\.parquet .*column 'prompts' holds .* in case 'k051'"):
            read_parquet(path)


PROMPTS = (
    "",
    "{}",
    "[1]",
    "[[]]",
    "null",
    "[" * 2000,
    '[{"grid": true}]',
    '[{"points_xy": []}]',
    POINTS.replace("[1, 0]", "[1]"),
    POINTS.replace("[1, 0]", "[1, 0, 1]"),
    POINTS.replace("[1, 0]", "[]"),
    POINTS.replace("[1, 0]", "[true, 0]"),
    POINTS.replace("3.0", "NaN"),
    POINTS.replace("3.0", '"3"'),
    POINTS.replace("3.0, 4.0", "3.0"),
    BOX.replace("8.5, 9.0", "8.5"),
    BOX.replace("9.0", "Infinity"),
    BOX.replace('"labels": []', '"labels": [1]'),
    # one label too many for one prompt, and one too few for the other
    '[{"points_xy": [[1, 2], [3, 4]], "labels": [1], "box_xyxy": null}, '
    '{"points_xy": [[5, 6]], "labels": [1, 0], "box_xyxy": null}]',
)


def change(path: Path, column: str, row: int, value: Any) -> None:
    """Change one value in a file."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    pq.write_table(table.set_column(index, table.schema.field(column), pa.array(values, table[column].type)), path)


NAN, INFINITY = float("nan"), float("inf")
ROWS: list[tuple[CellResult, str, int, Any]] = [
    *((STATIC, f"iou_{select}", 0, value) for select in ("first", "confident", "oracle") for value in (1.5, -0.1, NAN)),
    *((STATIC, f"iou_{select}", 0, None) for select in ("first", "confident", "oracle")),
    *((STATIC, f"iou_{select}", 0, 0.6) for select in ("first", "confident", "oracle")),
    *((STATIC, "iou_first", 2, value) for value in (0.95, None)),
    *((STATIC, "iou_confident", 1, value) for value in (0.3, INFINITY)),
    *((STATIC, "candidate_iou", 0, value) for value in ([], [0.25, 1.5, 0.5], [0.25, NAN, 0.5], [0.25, None, 0.5])),
    *((STATIC, "predicted_iou", 0, value) for value in ([], [0.5, 0.6], [0.5, NAN, 0.7], [0.5, INFINITY, 0.7])),
    *((STATIC, "area_fraction", 1, value) for value in (-0.01, 1.01, NAN, None)),
    *((STATIC, "seconds", 1, value) for value in (-1.0, NAN, INFINITY, None)),
    *((STATIC, "n_components", 1, value) for value in (-1, None)),
    *((STATIC, "repeat", 1, value) for value in (-1, None)),
    *((STATIC, "z", 1, value) for value in (-1,)),
    *((STATIC, "click", 1, value) for value in (1, -3, None)),
    *((STATIC, "case_id", 1, value) for value in ("", None)),
    *((STATIC, "error", 0, value) for value in ("", "broken")),
    *((STATIC, "coverage", 0, value) for value in (0.5, 3.0)),
    *((STATIC, "prompts", 0, value) for value in (*PROMPTS, None)),
    *((STATIC, "metrics", 0, [("dice", {"first": value})]) for value in (NAN, INFINITY)),
    *(
        (STATIC, "metrics", row, value)
        for row, value in ((0, [("nsd", {"first": 0.5})]), (0, None), (3, [("dice", {})]))
    ),
    *((STATIC, name, 1, "other") for name in ("model", "task", "mode")),
    *((CLICKS, "click", row, value) for row, value in ((0, 0), (1, 4), (2, 5), (6, 1))),
    (CLICKS, "subject_id", 1, "another"),
    (CLICKS, "iou_first", 4, 0.3),
    *((EVERYTHING, "coverage", 1, value) for value in (None, 1.5, NAN)),
    (BY_NAME, "n_components", 1, 1),
    (BY_NAME, "candidate_iou", 1, [0.5]),
    (OF_VOLUMES, "click", 2, 1),
]


@pytest.mark.parametrize(("whole", "column", "row", "value"), ROWS)
def test_a_changed_value_of_a_row_is_refused(
    tmp_path: Path, whole: CellResult, column: str, row: int, value: Any
) -> None:
    """By file and by field; what is wrong is never read."""
    path = tmp_path / "named.parquet"
    write_parquet(path, whole)
    change(path, column, row, value)
    before = path.read_bytes()
    with pytest.raises(ResultsError) as caught:
        read_parquet(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a readable result (")
    assert "column '" in message or "columns" in message
    assert message.endswith("; move it away to evaluate again.")
    assert path.read_bytes() == before


@pytest.mark.parametrize("row", [0, 2])
def test_a_row_that_is_there_twice_is_refused(tmp_path: Path, row: int) -> None:
    """Of a static mode and of clicks."""
    for whole in (STATIC, CLICKS):
        write_parquet(tmp_path / "r.parquet", whole)
        table = pq.read_table(tmp_path / "r.parquet")
        pq.write_table(pa.concat_tables([table, table.slice(row, 1)]), tmp_path / "r.parquet")
        with pytest.raises(ResultsError, match=r"r\.parquet .*'k1' is there twice|'k3' is there twice"):
            read_parquet(tmp_path / "r.parquet")


def test_a_click_that_is_missing_is_refused(tmp_path: Path) -> None:
    """Else the mean over a case's clicks would be of fewer."""
    for gone in range(6):
        write_parquet(tmp_path / "r.parquet", CLICKS)
        table = pq.read_table(tmp_path / "r.parquet")
        pq.write_table(pa.concat_tables([table.slice(0, gone), table.slice(gone + 1)]), tmp_path / "r.parquet")
        with pytest.raises(ResultsError, match=r"column 'click' holds clicks that are not 1 to 3, as of its mode"):
            read_parquet(tmp_path / "r.parquet")


NO_PROVENANCE: list[Any] = [[], None, "x", 3]
NO_METRICS: list[Any] = [[], {}, {"iou": 1}, {"iou": {"version": "1", "options": {}}}]
NO_CELL: list[Any] = [[], {"model": "acme"}, {"model": 1, "task": "t", "mode": "m"}]
METADATA: list[tuple[tuple[str, ...], Any]] = [
    *((("n_examined",), value) for value in ("8", -5, 8, 3, 7.0, True, None, 10**12)),
    *((("fingerprint",), value) for value in (7, "", "../../x", None, ["e"])),
    *((("cell",), value) for value in NO_CELL),
    (("cell", "model"), ""),
    (("cell", "mode"), "box_each"),
    *((("metrics",), value) for value in NO_METRICS),
    *((("provenance",), value) for value in NO_PROVENANCE),
    *((("provenance", "n_images"), value) for value in ("7", -1, 2.5, [7], True, 4)),
    *((("provenance", "seed"), value) for value in ("3", -1, 1.5)),
    *((("provenance", "protocol"), value) for value in ("paper", ["paper"], [1, "paper"])),
    *((("provenance", name), 5) for name in ("scoring", "device", "dtype", "fast", "date", "versions", "seconds")),
    *((("provenance", "seconds"), value) for value in ({"encode": -1}, {"encode": "1"})),
    *((("provenance", part), ["x"]) for part in ("model", "dataset", "task", "mode", "engine", "precision")),
    *((("provenance", "model", name), 5) for name in ("name", "family", "licence", "sha256", "training_data")),
    *((("provenance", "model", "sees_target"), value) for value in ("false", 0)),
    (("provenance", "model", "name"), "other"),
    (("provenance", "mode", "name"), "other"),
    *((("provenance", "mode", "steps"), value) for value in ("0", -1, 3)),
    *((("provenance", "mode", "grid"), value) for value in ("0", -1, 8)),
    *((("provenance", "mode", name), "best") for name in ("guide", "select")),
    *((("provenance", "dataset", name), 5) for name in ("name", "fingerprint", "overlaps", "prepared")),
    *((("provenance", "task", "labels"), value) for value in (2, [0], ["2"], [True])),
]


@pytest.mark.parametrize(("place", "value"), METADATA)
def test_changed_metadata_are_refused(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    """Sealed again as whoever edits a file can; the fact is named."""
    path = tmp_path / "named.parquet"
    write_parquet(path, STATIC)
    table = pq.read_table(path)
    document = unsealed(table.schema.metadata)
    part = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    pq.write_table(table.replace_schema_metadata(sealed(document)), path)
    with pytest.raises(ResultsError) as caught:
        read_parquet(path)
    assert str(caught.value).startswith(f"{path} is not a readable result (")
    words = ("n_examined", "click", "coverage", "mode", "column", *place[-1:])
    assert any(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "empty"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe is not read from: nobody may ever write to it."""
    path = tmp_path / "r.parquet"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to nothing":
        path.symlink_to("nowhere")
    else:
        path.touch()
    with pytest.raises(ResultsError, match=r"r\.parquet is not a readable result"):
        read_parquet(path)
