"""What the leaderboard compares, and what it refuses to compare silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from promptseg.leaderboard import aggregate
from promptseg.results import CellResult, Row
from promptseg.specs import Cell


def result(cell: str, ious: Mapping[str, float | Sequence[float]], **about: Any) -> CellResult:
    """Return a made-up result: ``model-task-mode`` and one IoU for each case, several for clicks."""
    rows = []
    for case_id, values in ious.items():
        clicks = list(enumerate(values, 1)) if isinstance(values, Sequence) else [(0, values)]
        rows += [Row(case_id=case_id, click=c, iou_first=v, iou_confident=v, iou_oracle=v) for c, v in clicks]
    provenance: dict[str, Any] = {
        "protocol": ["paper", 1],
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "n_images": len(ious),
        "model": {"family": "sam", "sha256": {"checkpoint": "a" * 64}},
        "dataset": {"name": "kidneys", "modality": "ultrasound", "fingerprint": "f" * 64},
    }
    for key, value in about.items():
        provenance[key] = {**provenance[key], **value} if isinstance(value, dict) and key in provenance else value
    return CellResult(
        cell=Cell(*cell.split("-")), fingerprint="0", rows=tuple(rows), n_examined=len(ious), provenance=provenance
    )


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


def test_means_say_which_tasks_and_cases_they_are_over() -> None:
    """A model that lacks a task, or was scored on other cases, is told apart from those that can be compared."""
    board = aggregate.build(
        [
            result("whole-t1-box_all", {"x": 0.2, "y": 0.4}),
            result("whole-t2-box_all", {"x": 0.7}),
            result("lacking-t1-box_all", {"x": 0.9, "y": 0.9}),
            result("sampled-t1-box_all", {"x": 0.9}, n_images=2),
            result("sampled-t2-box_all", {"x": 0.5}),
        ]
    )
    means = aggregate.means(board, "box_all")
    assert means["whole"].mean_iou == pytest.approx((0.3 + 0.7) / 2)
    assert (means["whole"].n_tasks, means["whole"].all_tasks, means["whole"].same_cases) == (2, True, True)
    assert (means["lacking"].n_tasks, means["lacking"].all_tasks, means["lacking"].same_cases) == (1, False, True)
    assert (means["sampled"].n_tasks, means["sampled"].all_tasks, means["sampled"].same_cases) == (2, True, False)
    assert [e.partial for e in board.entries if e.cell.model == "sampled"] == [True, False]


def test_a_whole_data_set_is_the_reference_of_its_column() -> None:
    """One complete result outweighs several equal samples; of samples, the commonest counts."""
    sample = [result(f"s{i}-t-box_all", {"x": 0.5, "y": 0.5}, n_images=9) for i in range(2)]
    other = result("a-t-box_all", {"x": 0.5, "z": 0.5}, n_images=9)
    found = aggregate.reference(aggregate.build([*sample, other]).entries)
    assert found is not None
    assert found.cases == {"x", "y"}
    whole = result("w-t-box_all", {str(i): 0.5 for i in range(9)})
    found = aggregate.reference(aggregate.build([*sample, other, whole]).entries)
    assert found is not None
    assert found.cell.model == "w"


def test_cells_without_a_score_have_no_mean() -> None:
    """A cell whose cases all failed is on the board, and in no mean."""
    failed = CellResult(
        cell=Cell("m", "t", "box_all"), fingerprint="0", rows=(Row(case_id="x", error="unreadable"),), n_examined=1
    )
    board = aggregate.build([failed])
    assert not board.entries[0].scored
    assert board.entries[0].summary.n_errors == 1
    assert aggregate.means(board, "box_all") == {}


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
    assert aggregate.means(aggregate.Board(entries=(entry,)), "box_all")["m"].seen == seen


def test_a_mean_is_as_contaminated_as_its_worst_cell() -> None:
    """One task whose data the model has seen is enough for the mean over all."""
    trained = {"training_data": ["medsam"]}
    results = [
        result(f"m-{name}-box_all", {"x": 0.5}, model=trained, dataset={"name": name})
        for name in ("xray_hip", "us_breast", "us_nerve")
    ]
    found = [aggregate.means(aggregate.build(results[:n]), "box_all")["m"].seen for n in (1, 2, 3)]
    assert found == ["none", "likely", "known"]


def test_facts_are_listed_once_for_each_difference() -> None:
    """Two revisions of one model are two rows; conditions carry the number of their cells."""
    results = [
        result("m-t1-box_all", {"x": 0.5}, model={"revision": "1" * 40, "repo": "org/m"}, git_commit="c" * 40 + "+"),
        result("m-t2-box_all", {"x": 0.5}, model={"revision": "1" * 40, "repo": "org/m"}),
        result("m-t3-box_all", {"x": 0.5}, model={"revision": "2" * 40, "repo": "org/m"}, seed=3),
    ]
    board = aggregate.build(results)
    assert [row["revision"] for row in board.models] == ["1" * 12, "2" * 12]
    assert board.datasets[0]["tasks"] == "t1, t2, t3"
    assert board.conditions["seed"] == {"0": 2, "3": 1}
    assert board.conditions["git commit"] == {"c" * 12 + "+": 1, "unknown": 2}


@pytest.mark.parametrize("provenance", [{}, {"model": None, "dataset": "x", "versions": [1], "mode": 3}])
def test_a_result_without_provenance_is_shown_as_unknown(provenance: dict[str, Any]) -> None:
    """A result that says little of itself is on the board, and what it does not say is unknown."""
    rows = (Row(case_id="x", iou_first=0.5, iou_confident=0.5, iou_oracle=0.5),)
    board = aggregate.build(
        [CellResult(cell=Cell("m", "t", "box_all"), fingerprint="0", rows=rows, n_examined=1, provenance=provenance)]
    )
    assert board.entries[0].scored
    assert board.models[0]["licence"] == "unknown"
    assert not board.entries[0].partial
