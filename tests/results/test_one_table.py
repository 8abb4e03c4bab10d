"""A results folder is one table: any reader of Parquet data sets finds every row once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest
from support.project import Project
from support.stored_results import FULL_ROW, METRICS, result

from promptseg.results import speed
from promptseg.results.parquet import schema, write_parquet
from promptseg.results.speed import Speed
from promptseg.results.store import ResultStore, read_all
from promptseg.specs import Cell

KEYS = ["model", "task", "mode", "case_id", "repeat", "click"]


@pytest.fixture
def results(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder with all that can be in one: versions, masks, speeds, unfinished results, leftovers."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the run that this test belongs to
    folder = project.pytester.path / "leaderboard" / "results"
    cells = ("--seg-models", "bright,box_fill", "--seg-tasks", "squares", "--seg-modes", "box_all,clicks_first")
    project.run(*cells, "--seg-save-masks", code=0)
    project.run(*cells, "--seg-seed", "1", code=0)
    project.run(
        "--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_each", "--seg-limit", "2", code=0
    )
    project.run("-k", "test_speed and bright", code=0)
    store = ResultStore(folder)
    cell = Cell("bright", "squares", "box_all")
    store.journal(cell, "f" * 64).append("case_00", result().rows)
    (folder / "bright/squares/.box_all.parquet.killed").write_bytes(b"PAR1 half")
    return folder


def test_pandas_reads_every_row_once(results: Path) -> None:
    """With model, task and mode; what else is in the folder is not among them."""
    there = {path.parent.name for path in results.rglob("*") if path.is_file()}
    assert there == {"squares", ".versions", ".journals", ".masks", ".speed"}
    assert len(list(results.rglob(".versions/*.parquet"))) > len(list(results.glob("*/*/*.parquet"))) == 4
    stored = [
        (*dataclasses.astuple(found.cell), row.case_id, row.repeat, row.click)
        for _, found in read_all(results)
        for row in found.rows
    ]
    table = pd.read_parquet(results)
    assert sorted(table[KEYS].itertuples(index=False, name=None)) == sorted(stored)
    assert not table.duplicated(KEYS).any()
    assert table.groupby(["model", "mode"]).size().to_dict() == {
        ("bright", "box_all"): 10,
        ("bright", "box_each"): 2,
        ("bright", "clicks_first"): 90,
        ("box_fill", "box_all"): 10,
    }


def test_all_files_have_one_schema(tmp_path: Path) -> None:
    """Those without rows, with failed cases alone, of volumes and with metrics."""
    for mode, rows in {"a": (), "b": (FULL_ROW,), "c": result().rows}.items():
        cell = Cell("m", "t", mode)
        write_parquet(
            tmp_path / "m" / "t" / f"{mode}.parquet",
            dataclasses.replace(result(), cell=cell, rows=rows, metrics=METRICS),
        )
    found = ds.dataset(tmp_path)
    assert all(fragment.physical_schema.equals(schema()) for fragment in found.get_fragments())
    assert found.count_rows() == 3
    [metrics] = found.to_table(filter=ds.field("mode") == "b").column("metrics").to_pylist(maps_as_pydicts="strict")
    assert metrics["hd95"] == {"first": 12.5, "confident": 2.5, "oracle": 0.0}


def test_speeds_are_beside_the_results_of_their_model(tmp_path: Path) -> None:
    """In a folder that begins with a dot."""
    found = Speed(
        model="m",
        device="cpu",
        dtype="float32",
        fast=[],
        images_per_second=1.0,
        ms_per_prompt=1.0,
        peak_memory=1,
        n_images=1,
        n_prompts=1,
        date="2026-01-31",
        versions={},
    )
    assert speed.write(tmp_path, found) == tmp_path / "m" / ".speed" / "cpu-float32.json"
