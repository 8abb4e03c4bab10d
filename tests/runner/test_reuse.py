"""What a run reuses of stored results, and what it evaluates further."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.paired_results import BASE, CELL, result

from promptseg.registry import modes
from promptseg.results.masks import MaskStore
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.runner.groups import PlannedCell
from promptseg.runner.options import Options
from promptseg.runner.reuse import Reuse
from promptseg.specs import DatasetSpec, TaskSpec
from promptseg.verdicts.judge import RunSettings
from promptseg.verdicts.stopping import Bounds
from promptseg.verdicts.thresholds import Threshold

ORDER = tuple(f"c{i:02}" for i in range(20))
TASK = TaskSpec(name=CELL.task)
DATASET = DatasetSpec(name="kidneys", modality="ultrasound", load="nowhere:load", tasks=(TASK,), licence="")
PART = PlannedCell(CELL, DATASET, TASK, modes.BOX_EACH)


def reuse(folder: Path, *, rerun: bool = False, save_masks: bool = False) -> tuple[ResultStore, Reuse]:
    """Return a results folder, and what a run reuses of it."""
    store = ResultStore(folder)
    options = Options(results=folder, rerun=rerun, save_masks=save_masks)
    return store, Reuse(store, MaskStore(folder, print), options)


def settings(limit: int | None = None, until_sure: float | None = None) -> RunSettings:
    """Return the settings of a run with a threshold that is soon reached."""
    threshold = Threshold(value=0.4, select="confident", tolerance=0.0, source="test")
    return RunSettings(
        order=ORDER,
        selects={CELL: "confident"},
        bounds=Bounds(limit=limit, max_errors=0),
        thresholds={CELL: threshold},
        until_sure=until_sure,
    )


def examined(n: int, error: str | None = None) -> CellResult:
    """Return a result of the first images; with an error the last of them failed."""
    whole = result(BASE)
    last = whole.rows[n - 1]
    rows = [*whole.rows[: n - 1], ResultRow(case_id=last.case_id, error=error) if error else last]
    return dataclasses.replace(whole, rows=tuple(rows), n_examined=n)


@pytest.mark.parametrize(
    ("stored", "run", "n_counted"),
    [
        (examined(20), settings(), 20),
        (examined(20), settings(limit=5), 5),
        (examined(8), settings(limit=5), 5),
        (examined(8), settings(limit=8), 8),
        (examined(8), settings(limit=9), None),
        (examined(8), settings(), None),
        (examined(19), settings(until_sure=0.99), 10),
        (examined(9), settings(until_sure=0.99), None),
        (examined(20, error="broken"), settings(), None),
        (examined(8, error="broken"), settings(limit=5), None),
    ],
)
def test_what_is_enough(tmp_path: Path, stored: CellResult, run: RunSettings, n_counted: int | None) -> None:
    """All images, as many cases as the limit, or a settled verdict; never with a failed case."""
    store, reused = reuse(tmp_path)
    store.save(stored)
    results, unusable = reused.results({CELL: stored.fingerprint})
    assert unusable == {}
    scores = reused.scores(results.values(), run)
    assert {cell: score.summary.n for cell, score in scores.items()} == ({CELL: n_counted} if n_counted else {})


def test_other_fingerprints_and_reruns_reuse_nothing(tmp_path: Path) -> None:
    """Neither results nor finished cases."""
    store, reused = reuse(tmp_path)
    store.save(examined(20))
    store.journal(CELL, "0").append("c00", [])
    assert reused.results({CELL: "1"}) == ({}, {})
    assert reused.job(PART, "1", settings()).done == {}
    _, again = reuse(tmp_path, rerun=True)
    assert again.results({CELL: "0"}) == ({}, {})
    assert again.job(PART, "0", settings()).done == {}


def test_masks_that_were_not_saved_are_evaluated_again(tmp_path: Path) -> None:
    """A result is not enough without the masks of its cases, and a job begins without those cases."""
    store, reused = reuse(tmp_path, save_masks=True)
    store.save(examined(20))
    results, _ = reused.results({CELL: "0"})
    assert list(results) == [CELL]
    assert reused.scores(results.values(), settings()) == {}
    assert reused.job(PART, "0", settings()).done == {}


def test_a_job_begins_with_the_cases_that_were_finished(tmp_path: Path) -> None:
    """Of the stored result and of journals, without those that failed."""
    store, reused = reuse(tmp_path)
    store.save(examined(4, error="broken"))
    store.journal(CELL, "0").append("c07", [])
    job = reused.job(PART, "0", settings(until_sure=0.99))
    assert sorted(job.done) == ["c00", "c01", "c02", "c07"]
    assert not job.is_settled(job.done)
    assert job.is_settled({row.case_id: (row,) for row in result(BASE).rows})


def test_a_result_that_cannot_be_read_is_named_and_stays(tmp_path: Path) -> None:
    """Its cell is unusable, also in a rerun; the file is as it was."""
    store, reused = reuse(tmp_path)
    store.path(CELL).parent.mkdir(parents=True)
    store.path(CELL).write_bytes(b"cut short")
    for again in (reused, reuse(tmp_path, rerun=True)[1]):
        results, unusable = again.results({CELL: "0"})
        assert results == {}
        assert "move it away" in str(unusable[CELL])
    assert store.path(CELL).read_bytes() == b"cut short"
