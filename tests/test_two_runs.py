"""Two runs at once on one results folder: the same results as one after the other."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_plugin import start

from promptseg.results import read_parquet

CELLS = ("--seg-models", "slow", "--seg-tasks", "squares")
STATIC, BOXES = ("--seg-modes", "point_largest,box_all"), ("--seg-modes", "box_all,box_each")
SEVEN = ("--seg-seed", "7")


def kept(folder: Path) -> dict[str, Any]:
    """Return every result of all seeds, without times, the masks, and the names of what else lies there."""
    results = folder / "leaderboard" / "results" / "slow" / "squares"
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*.parquet")):
        key = f"{path.parent.name}/{path.name.split('.')[0]}"
        if path.parent.name == "masks":
            found[key] = pq.read_table(path).to_pylist()
        elif path.parent.name == "history":
            stored = read_parquet(path)
            rows = [dataclasses.replace(row, seconds=0) for row in stored.rows]
            found[key] = (stored.cell, stored.fingerprint, stored.n_examined, rows)
    found["other files"] = [path.name for path in results.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [(STATIC, STATIC), ((*STATIC, "--seg-save-masks"), (*BOXES, *SEVEN, "--seg-save-masks"))],
    ids=["same", "masks_and_seeds"],
)
def test_two_runs_at_once_leave_what_one_after_the_other_leaves(
    project: Any, one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    """The same cells, then cells of which one is the same, with another seed and with masks."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.05}')
    folder = project.pytester.path
    for arguments in (one, other):
        assert start(project, *CELLS, *arguments).wait() == 0
    alone = kept(folder)
    assert alone["other files"] == []
    shutil.rmtree(folder / "leaderboard")
    running = [start(project, *CELLS, *arguments) for arguments in (one, other)]
    assert [run.wait() for run in running] == [0, 0]
    assert kept(folder) == alone
    assert len(alone) == 1 + (2 if one == other else 2 * (2 + 2))


def test_runs_with_overlapping_samples_leave_the_larger_one(project: Any) -> None:
    """With limits of 4 and 8, twice at once: eight cases in the end, as a run of 8 alone finds them."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.05}')
    folder = project.pytester.path
    assert start(project, *CELLS, *STATIC, "--seg-limit", "8").wait() == 0
    alone = kept(folder)
    shutil.rmtree(folder / "leaderboard")
    running = [start(project, *CELLS, *STATIC, "--seg-limit", limit) for limit in ("8", "4")]
    assert [run.wait() for run in running] == [0, 0]
    assert kept(folder) == alone
