"""The thresholds that ship: complete, about cells that exist, and made by a script that refuses what is no baseline."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT
from support.script_modules import run_script

from promptseg import registry
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.specs import Cell
from promptseg.verdicts import thresholds

SHIPPED = thresholds.read(ROOT / "leaderboard/thresholds.toml")


def _ours() -> list[Cell]:
    """Return the embedded cells of promptseg itself whose model takes the mode's prompts."""
    found = registry.build()
    ours = {
        name
        for entries in (found.models, found.datasets)
        for name, entry in entries.items()
        if entry.provider.startswith("pytest-promptseg ")
    }
    return [
        cell
        for cell in found.cells()
        if cell.model in ours
        and found.tasks[cell.task].dataset.name in ours
        and found.modes[cell.mode].provider.startswith("pytest-promptseg ")
        and found.is_embedded(cell)
        and found.mode(cell.mode).needs in found.model(cell.model).accepts
    ]


def test_every_embedded_cell_has_a_threshold() -> None:
    """A plain pytest asserts something about each cell that it scores."""
    cells = _ours()
    assert len(cells) > 200
    assert [cell.id for cell in cells if cell not in SHIPPED] == []


def test_every_threshold_is_about_a_cell() -> None:
    """Names are those of the registry; an iterative mode is held to the mask that guides it."""
    found = registry.build()
    for cell, threshold in SHIPPED.items():
        mode = found.mode(cell.mode)
        assert cell.model in found.models, cell
        assert cell.task in found.tasks, cell
        assert threshold.select == (mode.select or threshold.select), cell
        assert threshold.n, cell


def _result(*, n_images: int = 2, seed: int = 0, error: str | None = None, guide: str | None = None) -> CellResult:
    """Return a result of two cases with IoUs (0.2, 0.4) and (0.5, 0.8) by first and confident mask."""
    rows = tuple(
        ResultRow(case_id=case, error=error)
        if error
        else ResultRow(case_id=case, iou_first=first, iou_confident=confident, iou_oracle=confident)
        for case, first, confident in (("a", 0.2, 0.4), ("b", 0.5, 0.8))
    )
    about = {
        "n_images": n_images,
        "seed": seed,
        "date": "2026-01-31",
        "versions": {"pytest-promptseg": "0.1.0"},
        "mode": {"guide": guide},
    }
    return CellResult(
        cell=Cell("m", "t", "p"), fingerprint="f" * 64, rows=rows, n_examined=2, provenance=Provenance.from_json(about)
    )


def _make(tmp_path: Path, result: CellResult, *arguments: str) -> subprocess.CompletedProcess[str]:
    ResultStore(tmp_path).save(result)
    return run_script("make_thresholds", str(tmp_path), *arguments)


@pytest.mark.parametrize(
    ("guide", "arguments", "value", "select"),
    [(None, (), 0.6, "confident"), (None, ("--select", "first"), 0.35, "first"), ("first", (), 0.35, "first")],
)
def test_values_are_the_measured_means(
    tmp_path: Path, guide: str | None, arguments: tuple[str, ...], value: float, select: str
) -> None:
    """What is printed can be read, and holds the mean of the mask that counts, its n and where it comes from."""
    done = _make(tmp_path / "results", _result(guide=guide), *arguments)
    assert done.returncode == 0, done.stderr
    (tmp_path / "own.toml").write_text(done.stdout)
    [(cell, threshold)] = thresholds.read(tmp_path / "own.toml").items()
    assert cell == Cell("m", "t", "p")
    assert (threshold.value, threshold.select, threshold.tolerance, threshold.n) == (value, select, 0.01, 2)
    assert threshold.source == "baseline of 2026-01-31, promptseg 0.1.0, seed 0"


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (_result(n_images=5), "m-t-p is of a sample (2 of 5 images)"),
        (_result(seed=7), "m-t-p is of seed 7, not 0"),
        (_result(error="unreadable"), "m-t-p has failed cases"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, result: CellResult, why: str) -> None:
    """Samples, other seeds and failed cases are named, and nothing is printed to go by."""
    done = _make(tmp_path, result)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == why


def test_names_that_match_nothing_are_refused(tmp_path: Path) -> None:
    """A misspelt model gives no empty file."""
    done = _make(tmp_path, _result(), "--models", "n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such results" in done.stderr
