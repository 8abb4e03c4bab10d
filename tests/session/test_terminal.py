"""The lines that a run ends with, from plain entries: no pytest is started here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from promptseg.session import terminal
from promptseg.session.lines import Line
from promptseg.session.terminal import RunSummary

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell


def cell(outcome: Any = "passed", **more: Any) -> FinishedCell:
    """Return a scored cell of a finished test."""
    entry = {"model": "m", "task": "t", "mode": "box_all", "mean_iou": 0.5, "fingerprint": "f" * 64}
    return cast("FinishedCell", {**entry, "outcome": outcome, "reason": None, **more})


def unscored(reason: str = "no weights") -> FinishedCell:
    """Return a cell that was skipped before it had a score."""
    names = {"model": "m", "task": "t", "mode": "box_all"}
    return cast("FinishedCell", {**names, "outcome": "skipped", "reason": reason})


def compared(verdict: str, **more: Any) -> FinishedCell:
    """Return a cell that was compared with the baseline ``main``."""
    baseline = {"reference": "main", "verdict": verdict, "reason": "perhaps worse", "detectable_drop": None, **more}
    return cell("failed" if verdict in ("fail", "refused") else "passed", baseline=baseline)


def texts(*cells: FinishedCell, **more: Any) -> list[str]:
    """Return the lines without their colour, from the counts on: tables and failures have tests of their own."""
    found = [line.text for line in terminal.lines(RunSummary(cells=cells, **more))]
    return found[next((i for i, text in enumerate(found) if text.startswith("cells:")), 0) :]


def warnings(*cells: FinishedCell, **more: Any) -> list[str]:
    """Return the lines that are shown as warnings."""
    return [line.text for line in terminal.lines(RunSummary(cells=cells, **more)) if line.is_warning]


def test_cells_are_counted_by_score_and_outcome() -> None:
    """A cell that was scored and not asserted is none of the skipped; words that fit no cell are left out."""
    assert texts(cell(), cell("failed", mean_iou=None), unscored()) == ["cells: 1 passed, 1 failed, 1 skipped"]
    assert texts(cell(), cell("skipped"), cell("skipped"), unscored())[0] == "cells: 1 passed, 2 scored, 1 skipped"


def test_a_run_of_speed_tests_alone_counts_no_cells() -> None:
    """Without cells and speeds a run says that none ran, as where every file was in the way."""
    assert texts(speeds=["m: 3 images/s"], files=["results: here"]) == ["speed: m: 3 images/s", "results: here"]
    assert texts(files=["scores: here"]) == ["cells: none ran", "scores: here"]


def test_verdicts_against_a_baseline_are_counted_and_drops_span_the_cells() -> None:
    """Verdicts stand in a fixed order; of the detectable drops the smallest and the largest are shown."""
    cells = [compared("fail", detectable_drop=0.02), compared("pass", detectable_drop=0.004), compared("pass")]
    assert texts(*cells)[1:] == [
        "baseline main: 2 pass, 1 fail",
        "minimum detectable drops: 0.0040 to 0.0200 IoU",
    ]


def test_drops_that_are_unknown_say_so() -> None:
    """No cell has one, as with too few subjects."""
    assert texts(compared("pass"))[2] == (
        "minimum detectable drops: unknown (too few subjects, no change, or too much of it)"
    )


def test_cells_that_may_be_worse_are_warnings_with_their_reasons() -> None:
    """A verdict ``warn`` does not fail the test, so the terminal must show it; so must a comparison on a sample."""
    assert warnings(compared("warn", of_sample=True), compared("pass", of_sample=True)) == [
        "compared on a sample, since the baseline has no other cases: 2 cells",
        "warning: m on t, box_all: perhaps worse",
    ]


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_run_that_could_not_fail_says_so(outcome: str) -> None:
    """All cells skipped is exit code 0 for pytest; a single cell that was checked is enough."""
    unchecked = "no cell was checked against a threshold or baseline, so this run cannot fail (-rs shows why)"
    assert warnings(cell("skipped"), unscored()) == [unchecked]
    assert warnings(unscored()) == ["nothing was evaluated: none of the cells that were asked for could run"]
    assert unchecked not in texts(cell("skipped"), cell(outcome))
    assert unchecked not in texts()


def test_cells_that_stopped_early_are_counted_and_twenty_are_named() -> None:
    """The rest are in the JSON; nothing is said without ``--seg-until-sure``."""
    cells = [cell(partial=True, until_sure={"reason": f"settled after {i} of 50 images"}) for i in range(22)]
    found = texts(*cells, until_sure=True)
    assert found[1] == "partial, stopped as soon as the verdict was settled: 22 cells"
    assert found[2:22] == [f"m on t, box_all: settled after {i} of 50 images" for i in range(20)]
    assert found[22:] == ["and 2 more (--seg-json has them all)"]
    assert len(texts(*cells)) == 1


def test_cells_that_a_limit_ended_are_counted_where_they_were_checked() -> None:
    """A cell that was skipped was not judged by its cases so far."""
    cells = [cell(partial=True), cell("failed", partial=True), cell("skipped", partial=True), cell()]
    assert texts(*cells, until_sure=True)[1:] == [
        "partial, ended by --seg-limit before the verdict was settled, and judged by the cases so far: 2 cells"
    ]


def test_lines_have_an_order_and_what_is_wrong_is_a_warning() -> None:
    """Annotations stand at the start of a line, where GitHub reads them."""
    run = RunSummary(
        cells=[cell()],
        files=["results: here"],
        annotations=["::error title=m::worse"],
        n_left_out=1,
        notices=["torn.parquet is not a readable result"],
        problems=["models.x: no module"],
    )
    lines = terminal.lines(run)
    assert lines[lines.index(Line("cells: 1 passed")) + 1 :] == [
        Line("results: here"),
        Line("::error title=m::worse"),
        Line("1 cell not selected: ask by -k, -m, --seg-models, --seg-tasks or --seg-modes"),
        Line("note: torn.parquet is not a readable result", is_warning=True),
        Line("broken plugin: models.x: no module", is_warning=True),
    ]


def text_of(*cells: FinishedCell, **more: Any) -> str:
    """Return everything, as it is printed."""
    return "\n".join(line.text for line in terminal.lines(RunSummary(cells=cells, **more)))


def test_each_failed_cell_has_one_line_with_the_first_sentence() -> None:
    """Its own name at the begin of the message is not repeated; a long line is cut at the width of the terminal."""
    worse = cell("failed", reason="traceback")
    broken = cell("failed", model="other", reason="other-t-box_all: It broke! Mend it.\nmore")
    failures = {"m-t-box_all": "m on t, box_all: mean IoU 0.5 < 0.6 (threshold 0.6, of 1.5. today). Look.\nassert 1"}
    found = text_of(worse, broken, failures=failures)
    assert "failed: 2 cells\n  m-t-box_all: mean IoU 0.5 < 0.6 (threshold 0.6, of 1.5. today)\n" in found
    assert "  other-t-box_all: It broke!\n" in found
    assert all(len(line) <= 40 for line in text_of(worse, failures=failures, width=40).split("failed:")[1].split("\n"))


def test_twenty_failures_are_named_and_the_rest_counted() -> None:
    """A model that fails everywhere does not push the rest off the screen."""
    found = text_of(*(cell("failed", task=f"t{i:02}", reason="worse") for i in range(23)))
    assert found.count("worse") == 20
    assert "  and 3 more (--seg-json has them all)" in found


def lacking(name: str, **more: Any) -> FinishedCell:
    """Return a cell that was skipped for want of files."""
    missing = {"name": name, "why": "not here (offline)", "remedy": "Run `promptseg pull NAME`.", **more}
    return cast("FinishedCell", {**unscored(), "missing": missing})


def test_what_is_missing_is_named_once_by_reason_with_its_remedy() -> None:
    """The largest group first; the remedy of a single name has it in its place; what has no name says why alone."""
    cells = [
        lacking("sam_b"),
        lacking("sam_b"),
        lacking("sam_h"),
        lacking("us", why="gated"),
        lacking("", why="no pkg"),
    ]
    assert text_of(*cells).splitlines() == [
        "not evaluated, since files are missing: 5 cells",
        "  3 cells, not here (offline):",
        "    sam_b, sam_h",
        "    Run `promptseg pull NAME`.",
        "  1 cell, gated:",
        "    us",
        "    Run `promptseg pull us`.",
        "  1 cell, no pkg",
        "    Run `promptseg pull NAME`.",
        "",
        "cells: 5 skipped",
        "nothing was evaluated: none of the cells that were asked for could run",
    ]


def test_many_names_are_broken_at_the_width() -> None:
    """No line is wider than the terminal, and no name is cut."""
    names = [f"model_{i:03}" for i in range(200)]
    lines = text_of(*map(lacking, names), width=60).splitlines()
    assert max(map(len, lines[:-2])) <= 60
    assert all(name in " ".join(lines) for name in names)


def test_cells_that_can_never_run_are_counted_in_one_place() -> None:
    """Nothing is said where there are none."""
    found = " ".join(text_of(cell(), n_impossible=7, width=70).split())
    assert "7 cells left out: their models do not take the prompts of their modes" in found
    assert "left out" not in text_of(cell())
