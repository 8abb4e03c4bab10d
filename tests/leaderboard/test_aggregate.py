"""What the leaderboard compares, and what it refuses to compare silently."""

from __future__ import annotations

from typing import Any

import pytest
from support.board_results import result

from promptseg.leaderboard import aggregate
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell


def test_order_is_fixed() -> None:
    """Modes in the paper's order then by name, floors first, tasks by name, whatever order results come in."""
    modes = ["zigzag", "clicks_oracle", "alpha", "box_all", "point_largest"]
    cells = [f"{model}-{task}-{mode}" for model in ("b", "a", "z") for task in ("t2", "t1") for mode in modes]
    results = [result(c, {"x": 0.5}, model={"family": "floor" if c.startswith("z") else "sam"}) for c in cells]
    board = aggregate.build(results)
    assert board.modes() == ["point_largest", "box_all", "clicks_oracle", "alpha", "zigzag"]
    assert board.models_of() == ["z", "a", "b"]
    assert [e.cell.task for e in board.entries[:4]] == ["t1", "t2", "t1", "t2"]
    assert aggregate.build(results[::-1]) == board
    assert aggregate.build(results[1::2] + results[::2]) == board


def test_a_model_that_sees_the_target_is_left_out() -> None:
    """The ceiling is no competitor."""
    board = aggregate.build([result("perfect-t-box_all", {"x": 1.0}, model={"sees_target": True})])
    assert board.entries == ()
    assert board.models == ()


def test_the_guide_of_click_modes_counts() -> None:
    """A static mode counts the confident mask, a click mode the one that guides it."""
    board = aggregate.build(
        [
            result("m-t-box_all", {"x": 0.5}, mode={"guide": None}),
            result("m-t-clicks_first", {"x": [0.2, 0.4]}, mode={"guide": "first"}),
        ]
    )
    assert [e.summary.select for e in board.entries] == ["confident", "first"]
    assert board.entries[1].clicks == (1, 2)
    assert board.entries[1].summary.mean_iou == pytest.approx(0.3)


def test_cells_without_a_score_have_no_mean() -> None:
    """A cell whose cases all failed is on the board, and in no mean."""
    failed = CellResult(
        cell=Cell("m", "t", "box_all"),
        fingerprint="0",
        rows=(ResultRow(case_id="x", error="unreadable"),),
        n_examined=1,
    )
    board = aggregate.build([failed])
    assert not board.entries[0].scored
    assert board.entries[0].summary.n_errors == 1


@pytest.mark.parametrize(
    ("about", "note"),
    [
        ({"seed": 1}, "seed 1 (most cells: 0)"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 (most cells: float32)"),
        ({"device": "cuda"}, "device cuda (most cells: cpu)"),
        ({"protocol": ["paper", 2]}, "protocol paper 2 (most cells: paper 1)"),
        (
            {"model": {"sha256": {"checkpoint": "b" * 64}}},
            "weights checkpoint bbbbbbbbbbbb (most cells of the model: checkpoint aaaaaaaaaaaa)",
        ),
        ({"dataset": {"fingerprint": "e" * 64}}, "data eeeeeeeeeeee (most cells of the data set: ffffffffffff)"),
    ],
)
def test_what_sets_a_cell_apart_is_noted(about: dict[str, Any], note: str) -> None:
    """A cell under other conditions than most carries a note, the others none."""
    results = [result(f"m-t{i}-box_all", {"x": 0.5}) for i in range(3)]
    board = aggregate.build([*results, result("m-t9-box_all", {"x": 0.5}, **about)])
    assert [e.notes for e in board.entries] == [(), (), (), (note,)]


@pytest.mark.parametrize(
    ("about", "seen"),
    [
        ({"model": {"training_data": ["other", "kidneys"]}}, "known"),
        ({"model": {"training_data": ["medsam"]}}, "none"),
        ({"model": {"training_data": ["medsam"]}, "dataset": {"name": "us_kidney"}}, "known"),
        ({"model": {"training_data": ["medsam"]}, "dataset": {"study": "US-Kidney"}}, "known"),
        ({"model": {"training_data": ["other"]}, "dataset": {"overlaps": ["other"]}}, "likely"),
        ({"model": {"training_data": []}}, "none"),
        ({"model": {"training_data": None}}, "unknown"),
        ({"model": None, "dataset": "x"}, "unknown"),
    ],
)
def test_what_a_model_was_trained_on_comes_from_its_result(about: dict[str, Any], seen: str) -> None:
    """A result says what the model was trained on, and what its data set is: the board needs nothing else."""
    (entry,) = aggregate.build([result("m-t-box_all", {"x": 0.5}, **about)]).entries
    assert entry.seen == seen


def test_facts_are_listed_once_for_each_difference() -> None:
    """Two revisions of one model are two rows; conditions carry the number of their cells."""
    results = [
        result("m-t1-box_all", {"x": 0.5}, model={"revision": "1" * 40, "repo": "org/m"}, git_commit="c" * 40 + "+"),
        result("m-t2-box_all", {"x": 0.5}, model={"revision": "1" * 40, "repo": "org/m"}),
        result("m-t3-box_all", {"x": 0.5}, model={"revision": "2" * 40, "repo": "org/m"}, seed=3),
    ]
    board = aggregate.build(results)
    assert [(row["revision"], row["cells"]) for row in board.models] == [("1" * 12, "2"), ("2" * 12, "1")]
    assert board.datasets[0]["tasks"] == "t1, t2, t3"
    assert board.conditions["seed"] == {"0": 2, "3": 1}
    assert board.conditions["git commit"] == {"c" * 12 + "+": 1, "unknown": 2}


@pytest.mark.parametrize("provenance", [{}, {"model": None, "dataset": "x", "versions": [1], "mode": 3}])
def test_a_result_without_provenance_is_shown_as_unknown(provenance: dict[str, Any]) -> None:
    """A result that says little of itself is on the board, and what it does not say is unknown."""
    rows = (ResultRow(case_id="x", iou_first=0.5, iou_confident=0.5, iou_oracle=0.5),)
    board = aggregate.build(
        [
            CellResult(
                cell=Cell("m", "t", "box_all"),
                fingerprint="0",
                rows=rows,
                n_examined=1,
                provenance=Provenance.from_json(provenance),
            )
        ]
    )
    assert board.entries[0].scored
    assert board.models[0]["licence"] == "unknown"
    assert not board.entries[0].partial


@pytest.mark.parametrize(
    ("about", "source"),
    [
        ({}, "built in"),
        ({"host": "local"}, "local folder"),
        ({"prepared": {"layout": "pictures"}}, "prepared from files"),
        ({"prepared": {"layout": "rows"}, "repo": "org/kidneys"}, "org/kidneys"),
    ],
)
def test_where_a_data_set_comes_from(about: dict[str, Any], source: str) -> None:
    """Its repository; without one it was prepared from what somebody downloaded, lies in a folder, or is built in."""
    [found] = aggregate.build([result("a-t-box_all", {"1": 0.5}, dataset=about)]).datasets
    assert found["source"] == source


def test_models_tell_when_they_were_evaluated() -> None:
    """First and last day, and the number of cells that are out of date."""
    results = [result(f"m-t{i}-box_all", {"x": 0.5}, date=f"2026-01-{30 - i}") for i in range(3)]
    changes = {results[1].cell: ("scoring code",)}
    (row,) = aggregate.build(results, changes).models
    assert (row["cells"], row["evaluated"], row["out of date"]) == ("3", "2026-01-28 to 2026-01-30", "1")
    (row,) = aggregate.build(results[:1]).models
    assert (row["evaluated"], row["out of date"]) == ("2026-01-30", "-")


def test_what_is_out_of_date_is_noted_and_what_cannot_be_told_is_named() -> None:
    """A note says what differs; a model that is not installed here is named, and its cells have no note."""
    results = [result(f"{model}-t-box_all", {"x": 0.5}) for model in ("old", "new", "foreign")]
    changes = {results[0].cell: ("model's code", "protocol"), results[1].cell: (), results[2].cell: None}
    board = aggregate.build(results, changes)
    assert {e.cell.model: e.notes for e in board.entries} == {
        "old": ("out of date: another model's code, protocol now",),
        "new": (),
        "foreign": (),
    }
    assert board.unchecked == ("foreign",)
