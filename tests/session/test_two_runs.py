"""Two runs at once on one results folder: the same results as one after the other."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from support.project import Project

from promptseg.results import masks
from promptseg.results.parquet import read_parquet
from promptseg.results.store import VERSIONS

CELLS = ("--seg-models", "slow", "--seg-tasks", "squares")
MASKS = ("--seg-save-masks",)
STATIC, BOXES = ("--seg-modes", "point_largest,box_all"), ("--seg-modes", "box_all,box_each")


def kept(folder: Path) -> dict[str, Any]:
    """Return every result of all seeds, without times, the masks, and the names of what else is there."""
    results = folder / "leaderboard" / "results" / "slow" / "squares"
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*.parquet")):
        key = f"{path.parent.name}/{path.name.split('.')[0]}"
        if path.parent.name == masks.MASKS:
            found[key] = pq.read_table(path).to_pylist()
        elif path.parent.name == VERSIONS:
            stored = read_parquet(path)
            rows = [dataclasses.replace(row, seconds=0) for row in stored.rows]
            found[key] = (stored.cell, stored.fingerprint, stored.n_examined, rows)
    found["other files"] = [path.name for path in results.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return found


def test_two_runs_at_once_leave_what_one_after_the_other_leaves(project: Project) -> None:
    """Cells of which one is the same, with two seeds, and masks."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.05}')
    folder, runs = project.pytester.path, [(*CELLS, *MASKS, *STATIC), (*CELLS, *MASKS, *BOXES, "--seg-seed", "7")]
    for arguments in runs:
        project.run(*arguments, code=0)
    alone = kept(folder)
    assert len(alone) == 1 + 2 * (2 + 2)
    assert alone["other files"] == []
    shutil.rmtree(folder / "leaderboard")
    running = [project.start(*arguments) for arguments in runs]
    assert [run.wait() for run in running] == [0, 0]
    assert kept(folder) == alone


def test_runs_of_the_same_cells_leave_the_larger_sample(project: Project) -> None:
    """With limits of 4 and 8 at once: eight cases in the end, as a run of 8 alone finds them, each once."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.05}')
    folder = project.pytester.path
    project.run(*CELLS, *MASKS, *STATIC, "--seg-limit", "8", code=0)
    alone = kept(folder)
    shutil.rmtree(folder / "leaderboard")
    running = [project.start(*CELLS, *MASKS, *STATIC, "--seg-limit", limit) for limit in ("8", "4")]
    assert [run.wait() for run in running] == [0, 0]
    assert kept(folder) == alone
