"""The verdict on a cell as a function of its result and of the settings of the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from support.paired_results import BASE, CELL, minus, result

from promptseg.results.rows import CellResult, ResultRow
from promptseg.verdicts import judge
from promptseg.verdicts.baselines import BaselineResults
from promptseg.verdicts.judge import RunSettings
from promptseg.verdicts.stopping import Bounds
from promptseg.verdicts.thresholds import Threshold

ORDER = tuple(f"c{i:02}" for i in range(20))
THRESHOLD = Threshold(value=0.6, select="confident", tolerance=0.0, source="test")


def settings(limit: int | None = None, max_errors: int = 0, **more: Any) -> RunSettings:
    """Return the settings of a run on twenty images."""
    bounds = Bounds(limit=limit, max_errors=max_errors)
    return RunSettings(**{"order": ORDER, "selects": {CELL: "confident"}, "bounds": bounds, **more})


def partial(whole: CellResult, n: int) -> CellResult:
    """Return a result of which only the first images were examined."""
    return dataclasses.replace(whole, rows=whole.rows[:n], n_examined=n)


def test_a_score_holds_what_its_result_and_the_run_say() -> None:
    """Numbers, threshold and provenance; the same arguments give the same score."""
    run = settings(thresholds={CELL: THRESHOLD}, seed=3)
    score = judge.judge(result(BASE), run)
    assert score.mean_iou == pytest.approx(0.69)
    assert (score.cell, score.threshold, score.seed, score.n_images) == (CELL, THRESHOLD, 3, 20)
    assert (score.whole, score.stop, score.relative) == (True, None, None)
    assert score.unasserted is None
    assert score.reaches_threshold
    assert judge.judge(result(BASE), run) == score


def test_texts_from_outside_are_shown_and_not_obeyed() -> None:
    """The name of a file and what a model raised: neither a terminal nor the runner of a CI service acts on them."""
    whole = result(BASE)
    first, second, *others = whole.rows
    named = dataclasses.replace(first, case_id="c\n::stop-commands::x\x1b[2J", iou_confident=0.0)
    failed = dataclasses.replace(
        ResultRow(case_id=second.case_id), error="RuntimeError: gone\n  ##[error]y\x1b]0;title\x07"
    )
    run = settings(order=(named.case_id, *ORDER[1:]))
    lines = judge.judge(dataclasses.replace(whole, rows=(named, failed, *others)), run).explain().splitlines()
    assert lines[-2].startswith("worst cases: c | ::stop-commands::x [2J 0.000, ")
    assert lines[-1] == f"case {second.case_id!r} failed: RuntimeError: gone | ##[error]y ]0;title"


def test_a_cell_without_a_threshold_asserts_nothing() -> None:
    """The reason is a sentence, None where something is asserted."""
    assert judge.judge(result(BASE), settings()).unasserted == "scored 0.690, no threshold"


def test_a_limit_counts_the_first_cases_of_the_order() -> None:
    """Those that an earlier run evaluated beyond it do not count, whatever the order of the rows."""
    reverse = settings(limit=4, order=ORDER[::-1])
    score = judge.judge(result(BASE), reverse)
    assert score.summary.n == 4
    assert score.mean_iou == pytest.approx(sum(BASE[-4:]) / 4)
    assert not score.whole


def test_a_threshold_is_compared_under_its_own_choice_of_mask() -> None:
    """The score keeps the choice of the run."""
    first = dataclasses.replace(THRESHOLD, select="first")
    score = judge.judge(result(BASE, iou_first=0.1), settings(thresholds={CELL: first}))
    assert score.mean_iou == pytest.approx(0.69)
    assert score.asserted.mean_iou == pytest.approx(0.1)
    assert not score.reaches_threshold


@pytest.mark.parametrize(
    ("baseline", "outcome"),
    [
        (BaselineResults("main", {CELL: result(BASE)}), "fail"),
        (BaselineResults("main", {CELL: minus(0.2)}), "pass"),
        (BaselineResults("main", {}), "missing"),
        (BaselineResults("main", {}, {CELL: "cut short"}), "refused"),
    ],
)
def test_a_baseline_is_compared_refused_or_missing(baseline: BaselineResults, outcome: str) -> None:
    """A result of the baseline that cannot be read is refused with its reason."""
    score = judge.judge(minus(0.1), settings(baseline=baseline))
    assert score.relative is not None
    assert score.relative.outcome == outcome
    assert score.keeps_baseline == (outcome in ("pass", "missing"))
    assert ("cut short" in score.relative.reason) == (outcome == "refused")


def test_only_cases_that_count_are_compared_with_the_baseline() -> None:
    """With a limit those of the sample."""
    baseline = BaselineResults("main", {CELL: result(BASE)})
    score = judge.judge(minus(0.1), settings(limit=12, baseline=baseline))
    assert score.relative is not None
    assert score.relative.comparison is not None
    assert score.relative.comparison.n == 12


def test_a_settled_cell_is_judged_by_the_cases_that_settled_it() -> None:
    """Cases beyond do not count, so that the score does not depend on how many were evaluated at once."""
    run = settings(thresholds={CELL: dataclasses.replace(THRESHOLD, value=0.2)}, until_sure=0.95)
    scores = [judge.judge(partial(result([0.9] * 20), n), run) for n in (18, 19)]
    assert [score.stop is not None for score in scores] == [True, True]
    assert scores[0].summary == scores[1].summary
    assert scores[0].summary.n == len(scores[0].stop.case_ids) if scores[0].stop else False
    assert judge.judge(result([0.9] * 20), run).stop is None  # all images were examined: nothing was stopped
    assert judge.judge(partial(result([0.9] * 20), 18), settings(thresholds=run.thresholds)).stop is None


def test_what_must_be_settled() -> None:
    """Nothing without --seg-until-sure; a threshold that applies to a number of cases only if the task has so many."""
    baseline = BaselineResults("main", {CELL: result(BASE)})
    both = settings(thresholds={CELL: THRESHOLD}, baseline=baseline)
    assert judge.stop_criteria(CELL, both) == []
    sure = dataclasses.replace(both, until_sure=0.99)
    assert [criterion.kind for criterion in judge.stop_criteria(CELL, sure)] == ["threshold", "baseline"]
    assert not judge.counts_cases(CELL, sure)
    applying, other = (dataclasses.replace(THRESHOLD, n=n) for n in (20, 7))
    for threshold, kinds in (
        (applying, ["threshold"]),
        (other, []),
        (dataclasses.replace(THRESHOLD, at_most=30), ["threshold"]),
    ):
        numbered = settings(thresholds={CELL: threshold}, until_sure=0.99, n_cases={CELL.task: 20})
        assert judge.counts_cases(CELL, numbered)
        assert [criterion.kind for criterion in judge.stop_criteria(CELL, numbered)] == kinds


def test_examined_cases_have_rows_or_none() -> None:
    """Images without the object were examined too; rows keep their case."""
    some = dataclasses.replace(result(BASE), rows=result(BASE).rows[2:4], n_examined=5)
    cases = judge.examined_cases(some, ORDER)
    assert list(cases) == ["c00", "c01", "c02", "c03", "c04"]
    assert [len(rows) for rows in cases.values()] == [0, 0, 1, 1, 0]
    assert judge.first_cases(some, ORDER, None) == {"c02", "c03"}
    assert judge.first_cases(some, ORDER, 1) == {"c02"}
