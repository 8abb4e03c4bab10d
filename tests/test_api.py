"""Stored results from Python: what is loaded, the tables, and what cannot be read."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.board_results import result

from promptseg import Results, ResultsError, UnavailableError, load_results
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, MetricValues, ResultRow
from promptseg.results.store import ResultStore
from promptseg.verdicts.summary import summarise

KIDNEY: Mapping[str, float] = {"p1/a": 0.2, "p1/b": 0.4, "p2/a": 0.9}
CLICKS: Mapping[str, Sequence[float]] = {"a": [0.2, 0.6], "b": [0.5, 0.5]}


def stored(folder: Path, *results: CellResult) -> Path:
    """Store results as a run does; return the folder."""
    for one in results:
        ResultStore(folder).save(one)
    return folder


def kidney(model: str = "minisam", **about: Any) -> CellResult:
    """Return a result of three cases of two patients."""
    return result(f"{model}-us_kidney-box_all", KIDNEY, **{"date": "2026-11-23", **about})


def test_cells_have_the_numbers_of_the_board(tmp_path: Path) -> None:
    """Mean, choices and interval as `summarise` has them, and where they come from; cells in order."""
    with_error = dataclasses.replace(
        kidney("sam_vit_b", n_images=4),
        rows=(*kidney().rows, ResultRow(case_id="p3/a", error="all zero")),
        n_examined=4,
    )
    loaded = load_results(stored(tmp_path, with_error, kidney(seed=7)))
    table = loaded.cells()
    assert len(loaded) == 2
    assert list(table.columns) == [
        *("model", "task", "mode", "n", "n_errors", "n_images", "select", "mean_iou", "ci95_low", "ci95_high"),
        *("iou_first", "iou_confident", "iou_oracle", "dtype", "device", "seed", "date", "fingerprint"),
    ]
    assert table["model"].to_list() == ["minisam", "sam_vit_b"]
    assert table["n"].to_list() == [3, 3]
    assert table["n_errors"].to_list() == [0, 1]
    assert table["seed"].to_list() == [7, 0]
    cell, summary = table.iloc[0], summarise(kidney().rows, "confident")
    assert (cell["task"], cell["mode"], cell["select"], cell["n_images"]) == ("us_kidney", "box_all", "confident", 3)
    assert (cell["mean_iou"], cell["iou_first"], cell["iou_oracle"]) == pytest.approx((0.5, 0.5, 0.6))
    assert (cell["ci95_low"], cell["ci95_high"]) == summary.ci95
    assert (cell["dtype"], cell["device"], cell["date"]) == ("float32", "cpu", "2026-11-23")
    assert cell["fingerprint"] == "0"


def test_the_choice_of_mask_is_that_of_the_mode(tmp_path: Path) -> None:
    """A mode that is guided by the oracle is scored by it, as on the board."""
    guided = result("minisam-us_kidney-clicks_oracle", CLICKS, mode={"guide": "oracle"})
    [cell] = load_results(stored(tmp_path, guided)).cells().to_dict("records")
    assert cell["select"] == "oracle"
    assert cell["mean_iou"] == cell["iou_oracle"] == pytest.approx(0.55)


def test_a_cell_without_what_is_asked_for_has_missing_values() -> None:
    """No case, no interval, no seed: missing, not 0; a provenance of another type than ours counts as none."""
    empty = dataclasses.replace(kidney(), rows=(), provenance=Provenance.from_json({"seed": "zero", "dtype": 32}))
    [cell] = Results((empty,)).cells().to_dict("records")
    assert cell["n"] == 0
    assert math.isnan(cell["mean_iou"])
    table = Results((empty,)).cells()
    assert table[["ci95_low", "ci95_high", "n_images", "seed", "dtype", "date"]].isna().all(axis=None)


def test_cases_have_a_row_for_each_stored_row(tmp_path: Path) -> None:
    """Static cells, clicks and failed cases, with the columns of the files after the cell's names."""
    clicks = result("minisam-us_kidney-clicks_first", CLICKS)
    failed = dataclasses.replace(
        kidney("sam_vit_b", n_images=4),
        rows=(*kidney().rows, ResultRow(case_id="p3/a", error="all zero")),
        n_examined=4,
    )
    table = load_results(stored(tmp_path, clicks, failed)).cases()
    names = [name for name in ResultRow(case_id="").as_dict() if name != "metrics"]
    assert list(table.columns) == ["model", "task", "mode", *names]
    assert len(table) == 4 + 4
    of_clicks = table[table["mode"] == "clicks_first"]
    assert of_clicks["click"].to_list() == [1, 2, 1, 2]
    assert of_clicks["iou_first"].to_list() == [0.2, 0.6, 0.5, 0.5]
    assert table["error"].dropna().to_list() == ["all zero"]
    means = table.groupby("model")["iou_confident"].mean()
    assert means["sam_vit_b"] == pytest.approx(0.5)
    assert table["subject_id"].dropna().unique().tolist() == ["p1", "p2"]


def test_other_metrics_become_columns() -> None:
    """One for each choice of mask, after the others; missing in cells and rows that do not have the metric."""
    plain, measured = kidney(), kidney("sam_vit_b")
    dice = {"dice": MetricValues(first=0.1, confident=0.2, oracle=None)}
    measured = dataclasses.replace(measured, rows=(dataclasses.replace(measured.rows[0], metrics=dice),))
    table = Results((plain, measured)).cases()
    assert list(table.columns[-3:]) == ["dice_first", "dice_confident", "dice_oracle"]
    assert "metrics" not in table.columns
    assert table["dice_confident"].isna().to_list() == [True, True, True, False]
    assert table["dice_first"].dropna().to_list() == [0.1]
    assert table["dice_oracle"].isna().all()


def test_results_say_what_they_are() -> None:
    """Few names in full, many by number, and none at all."""
    assert repr(Results((kidney(),))) == "<Results of 1 cell: model minisam, task us_kidney, mode box_all>"
    many = Results(tuple(kidney(f"m{i}") for i in range(7)))
    assert repr(many) == "<Results of 7 cells: 7 models (m0 m1 m2 m3 m4 ...), task us_kidney, mode box_all>"
    two = Results((kidney("a"), kidney("b")))
    assert repr(two) == "<Results of 2 cells: models a b, task us_kidney, mode box_all>"
    assert repr(Results(())) == "<Results: none>"


def test_tables_of_no_results_have_their_columns() -> None:
    """So that code over them needs no special case."""
    assert Results(()).cells()["mean_iou"].to_list() == []
    assert list(Results(()).cases().columns[:4]) == list(Results((kidney(),)).cases().columns[:4])


def test_a_submission_and_a_file_are_read_like_a_folder(tmp_path: Path) -> None:
    """A submission holds its results in a folder of its own; paths may be text."""
    folder = stored(tmp_path / "submission" / "results", kidney())
    (tmp_path / "submission" / "submission.json").write_text("{}")
    file = folder / "minisam" / "us_kidney" / "box_all.parquet"
    for path in (tmp_path / "submission", folder, file, str(file)):
        assert load_results(path).results == (kidney(),)


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    """The rest is loaded, with a warning that points to the caller."""
    folder = stored(tmp_path, kidney(), kidney("sam_vit_b"))
    (folder / "sam_vit_b" / "us_kidney" / "box_all.parquet").write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match=r"sam_vit_b.us_kidney.box_all\.parquet is not a readable result") as caught:
        loaded = load_results(folder)
    assert [one.cell.model for one in loaded.results] == ["minisam"]
    assert [warning.filename for warning in caught] == [__file__]


def test_nothing_to_load_is_an_error(tmp_path: Path) -> None:
    """No folder, an empty one, one whose files are all damaged, and a file that is no result."""
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ResultsError, match=r"holds no results \(MODEL/TASK/MODE.parquet\)\. Run pytest first"):
            load_results(folder)
    file = stored(tmp_path, kidney()) / "minisam" / "us_kidney" / "box_all.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"holds 1 result, none readable\. .*box_all\.parquet is not a readable"):
        load_results(tmp_path)
    with pytest.raises(ResultsError, match=r"box_all\.parquet is not a readable result"):
        load_results(file)


def test_without_pandas_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading needs none; tables say what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    for table in (Results((kidney(),)).cells, Results((kidney(),)).cases):
        with pytest.raises(UnavailableError, match=r"need the package pandas, .*: pip install pandas"):
            table()


def test_loading_results_imports_no_model_library() -> None:
    """A notebook that only looks at numbers waits for neither torch nor pandas."""
    code = "import promptseg, sys; promptseg.load_results; print({'torch', 'cv2', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
