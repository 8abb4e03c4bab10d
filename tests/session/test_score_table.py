"""The tables of scores that a run ends with, from plain entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from promptseg.session import score_table
from promptseg.session.lines import Line

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell


def cell(model: str, task: str, mean: float | None, **more: Any) -> FinishedCell:
    """Return a cell that was scored on twelve cases."""
    scored = {"mean_iou": mean, "ci95": [0.4, 1.0], "n": 12, "select": "confident", "outcome": "skipped"}
    return cast("FinishedCell", {"model": model, "task": task, "mode": "box_all", **scored, **more})


def table(*cells: FinishedCell, width: int = 80, **notes: str) -> list[Line]:
    """Return the lines of the tables."""
    return score_table.lines(cells, notes=notes, width=width)


def bold(line: Line) -> list[str]:
    """Return what stands out in a line."""
    return [text for text, is_bold in line.parts() if is_bold]


def test_models_by_tasks_floors_first_and_dim_the_best_of_each_task_bold() -> None:
    """Then the models by their mean; a floor is never the best; what has no score has no number."""
    lines = table(
        cell("slow", "liver", 0.51),
        cell("slow", "cord", 0.62, n=8, ci95=None),
        cell("fast", "liver", 0.6204, outcome="failed"),
        cell("fast", "cord", 0.31, n=8),
        cell("disc", "liver", 0.9),
        cell("gone", "liver", None),
        disc="floor",
    )
    assert [line.text for line in lines] == [
        "mean IoU of the confident mask (or the one named), 95% interval, n; ! failed",
        "box_all       cord                liver",
        "disc (floor)  -                   0.900 .400-1.000 12",
        "slow          0.620     -      8  0.510 .400-1.000 12",
        "fast          0.310 .400-1.000 8  0.620 .400-1.000 12!",
        "",
    ]
    assert [line.is_dim for line in lines] == [False, False, True, False, False, False]
    assert [bold(line) for line in lines] == [[], [], [], ["0.620"], ["0.620"], []]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (cell("b", "t", 0.5004), [["0.500"], ["0.500"]]),
        (cell("b", "t", 0.4, n=11), [[], []]),
        (cell("b", "t", 0.4), [["0.500"], []]),
    ],
)
def test_the_best_is_what_the_table_shows_as_best_of_the_same_cases(
    second: FinishedCell, expected: list[list[str]]
) -> None:
    """Equal as shown: both. Other numbers of cases are not compared; nor is one model alone."""
    lines = table(cell("a", "t", 0.5), second)
    assert sorted(map(bold, lines[2:4]), reverse=True) == sorted(expected, reverse=True)
    assert not any(map(bold, table(cell("a", "t", 0.5))))


@pytest.mark.parametrize(("width", "columns"), [(80, 2), (200, 8), (40, 1)])
def test_tasks_that_do_not_fit_are_split_over_tables(width: int, columns: int) -> None:
    """No line is wider than the terminal, every task is there, and a table uses the width that there is."""
    tasks = [f"task_{i:02}" for i in range(9)]
    lines = table(*(cell("sam_vit_b_feedback", task, 0.5) for task in tasks), width=width)
    headers = [line.text.split()[1:] for line in lines if line.text.startswith("box_all")]
    assert max(len(line.text) for line in lines) <= max(width, 80)
    assert [task for header in headers for task in header] == tasks
    assert len(headers[0]) == columns


def test_modes_and_choices_of_mask_have_tables_of_their_own() -> None:
    """Another mask than the confident one is named."""
    lines = table(cell("m", "t", 0.5), cell("m", "t", 0.6, mode="clicks_first", select="first"))
    headers = [line.text for line in lines if line.text.endswith(" t")]
    assert [" ".join(header.split()) for header in headers] == ["box_all t", "clicks_first (first) t"]


def test_a_large_run_shows_the_best_and_counts_the_rest() -> None:
    """51 models in nine modes: a screen and a half, with the floor and the best of each mode."""
    modes = [f"mode_{i}" for i in range(9)]
    cells = [cell(f"m{i:02}", "t", i / 100, mode=mode) for i in range(51) for mode in modes]
    lines = table(*cells, m00="floor")
    assert len(lines) < 100
    assert sum(line.text.startswith("m50 ") for line in lines) == 9
    assert sum(line.text.startswith("m00 (floor)") for line in lines) == 9
    assert lines[-1].text == f"and {459 - 9 * 7} more rows of such tables: the leaderboard has them all"


def test_of_many_tables_the_first_of_each_mode_are_shown() -> None:
    """28 tasks in nine modes do not fit: each mode is there, and the rest is counted."""
    cells = [cell("m", f"task_{i:02}", 0.5, mode=f"mode_{k}") for i in range(28) for k in range(9)]
    lines = table(*cells)
    assert len({line.text.split()[0] for line in lines if line.text.startswith("mode_")}) == 9
    assert "more rows of such tables" in lines[-1].text


def test_nothing_is_shown_where_nothing_was_scored() -> None:
    """No empty table."""
    assert table(cell("m", "t", None)) == []
