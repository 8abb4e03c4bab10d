"""Results folders merged: what is one result, what is a conflict, which version is shown, in whatever order."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from support.board_results import result
from typer.testing import CliRunner

from promptseg.cli import main
from promptseg.leaderboard import merge
from promptseg.leaderboard.board import read_board
from promptseg.leaderboard.merge import FolderResult, Merged
from promptseg.leaderboard.render import render
from promptseg.results.rows import CellResult
from promptseg.results.store import ResultStore

CELL = "m-t-box_all"
WHOLE = {"a": 0.2, "b": 0.4, "c": 0.9}


def other(found: CellResult, fingerprint: str) -> CellResult:
    """Return the same result as another version."""
    return dataclasses.replace(found, fingerprint=fingerprint)


def merged(*results: CellResult, outdated: str = "") -> Merged:
    """Merge a folder for each result, the first called A, in every order; the outcome is the same."""
    found = [FolderResult(folder=chr(65 + i), result=r) for i, r in enumerate(results)]
    outcomes = [
        merge.merge(order, lambda r: ("scoring code",) if r.fingerprint == outdated else ())
        for order in itertools.permutations(found)
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


def test_equal_results_are_one() -> None:
    """The same evaluation in two folders is shown once, without a word; float noise and times make no difference."""
    noisy = result(CELL, {case: iou + 1e-8 for case, iou in WHOLE.items()})
    slow = dataclasses.replace(noisy, rows=tuple(dataclasses.replace(row, seconds=9.0) for row in noisy.rows))
    found = merged(result(CELL, WHOLE), noisy, slow)
    assert len(found.results) == 1
    assert (found.conflicts, found.versions) == ({}, ())


def test_cases_of_one_evaluation_are_united() -> None:
    """What one folder has and the other has not, or failed on, comes together."""
    sample = result(CELL, {"a": 0.2, "b": 0.4}, n_images=3)
    failed = dataclasses.replace(
        result(CELL, WHOLE),
        rows=tuple(
            dataclasses.replace(row, iou_confident=None, error="unreadable") if row.case_id == "a" else row
            for row in result(CELL, WHOLE).rows
        ),
    )
    (found,) = merged(sample, failed).results
    assert {row.case_id: row.iou_confident for row in found.rows} == WHOLE
    assert not any(row.error for row in found.rows)
    assert found.n_examined == 3


def test_one_evaluation_with_other_scores_is_a_conflict() -> None:
    """It is named with how far apart the scores are and what is shown: the one of more cases."""
    less = result(CELL, {"a": 0.25, "b": 0.4}, n_images=3)
    found = merged(less, result(CELL, WHOLE))
    (lines,) = found.conflicts.values()
    assert lines == (f"{CELL}: 1 of 2 cases score otherwise, by up to 0.05 IoU, in A than in B, which is shown",)
    assert {row.case_id: row.iou_confident for row in found.results[0].rows} == WHOLE


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (
            result(CELL, WHOLE, date="2025-01-01"),
            other(result(CELL, WHOLE, date="2026-01-01"), "old"),
            "is out of date",
        ),
        (result(CELL, {"a": 0.2}), other(result(CELL, {"a": 0.1, "b": 0.1}, n_images=9), "1"), "is a sample"),
        (result(CELL, {"a": 0.2, "b": 0.2}), other(result(CELL, {"a": 0.1}), "1"), "has fewer cases"),
        (result(CELL, WHOLE, date="2026-01-02"), other(result(CELL, WHOLE, date="2026-01-01"), "1"), "is older"),
        (result(CELL, WHOLE), other(result(CELL, WHOLE), "1"), "comes later by fingerprint"),
    ],
)
def test_of_several_versions_one_is_shown(ours: CellResult, theirs: CellResult, reason: str) -> None:
    """That of the installed code, else a whole one, else that of the most cases, else the newest; and it is told."""
    found = merged(ours, theirs, outdated="old")
    assert [r.fingerprint for r in found.results] == [ours.fingerprint]
    (line,) = found.versions
    assert line.startswith(f"{CELL}: that of A is shown; that of B {reason}")


def test_what_differs_between_versions_is_named() -> None:
    """By the names that gates use."""
    found = merged(result(CELL, WHOLE), other(result(CELL, WHOLE, seed=1, dtype="bfloat16"), "1"))
    assert found.versions[0].endswith("(other: seed, dtype)")


def stored(root: Path, *results: CellResult) -> Path:
    """Store results as an evaluation does."""
    for found in results:
        ResultStore(root).save(found)
    return root


def folders(root: Path) -> list[Path]:
    """Return three folders with a conflict, another version, a shared cell and an unreadable file."""
    one = stored(root / "x" / "results", result(CELL, WHOLE), result("n-t-box_all", WHOLE))
    two = stored(root / "y" / "results", result(CELL, {**WHOLE, "a": 0.9}), result("n-t-box_all", WHOLE, seed=1))
    three = stored(root / "z" / "results", other(result("n-t-box_all", WHOLE, seed=2), "1"))
    (three / "n" / "t" / "cut.parquet").write_bytes(b"PAR1")
    return [one, two, three]


def test_the_board_is_the_same_whatever_the_order_of_folders_and_files(tmp_path: Path) -> None:
    """Byte for byte; folders are named by as much of their paths as tells them apart, and no more."""
    paths = folders(tmp_path / "first")
    boards = {render(read_board(order)) for order in itertools.permutations(paths)}
    assert len(boards) == 1
    (board,) = boards
    assert "in x/results than in y/results" in board or "in y/results than in x/results" in board
    assert "- z/results/n/t/cut.parquet is no readable result" in board
    assert str(tmp_path) not in board
    assert "**1 cell in conflict**" in board
    elsewhere = folders(tmp_path / "second" / "deeper")
    assert render(read_board([*elsewhere, elsewhere[0]])) == board


def test_the_command_names_conflicts_and_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the standard error; the board has each cell once."""
    monkeypatch.chdir(tmp_path)
    paths = folders(tmp_path)
    done = CliRunner().invoke(main.app, ["leaderboard", *map(str, paths), "--output", "BOARD.md"])
    assert done.exit_code == 0, done.output
    assert "leaderboard (2 cells)" in done.stdout
    assert f"conflict: {CELL}: 1 of 3 cases score otherwise" in done.stderr
    assert "## Other versions" in Path("BOARD.md").read_text(encoding="utf-8")


def test_a_folder_of_folders_is_no_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what such a folder looks like, and no board is written."""
    monkeypatch.chdir(tmp_path)
    folders(tmp_path)
    done = CliRunner().invoke(main.app, ["leaderboard", "x", "y/results", "--output", "BOARD.md"])
    assert done.exit_code == 1
    assert "x holds no results (MODEL/TASK/MODE.parquet)" in done.stderr
    assert not Path("BOARD.md").exists()
