"""From rows to a cell's numbers, to pairs of cases and to strata: by hand."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.results.rows import ResultRow
from promptseg.stats.paired import Pair
from promptseg.verdicts.summary import Summary, pair, strata, summarise

UNIT = st.floats(0, 1, allow_nan=False)


def row(case_id: str, first: float, confident: float = 0.5, oracle: float = 1.0, **more: Any) -> ResultRow:
    """Return a scored row."""
    return dataclasses.replace(
        ResultRow(case_id=case_id, iou_first=first, iou_confident=confident, iou_oracle=oracle), **more
    )


def same(a: Summary, b: Summary) -> bool:
    """Whether two summaries agree to the last bit (NaN agrees with NaN)."""
    return repr(a) == repr(b)


def test_the_mean_over_cases() -> None:
    """Three cases, three choices of mask, by hand."""
    rows = [row("a", 0.2, 0.4, 0.6), row("b", 0.4, 0.6, 0.8), row("c", 0.9, 0.8, 1.0)]
    summary = summarise(rows, "confident")
    assert (summary.n, summary.n_errors, summary.select) == (3, 0, "confident")
    assert summary.mean_iou == pytest.approx(0.6)
    assert summary.iou == pytest.approx({"first": 0.5, "confident": 0.6, "oracle": 0.8})
    assert summary.iou_per_click is None
    assert summary.worst == [("a", 0.4), ("b", 0.6), ("c", 0.8)]
    assert summary.errors == []


def test_the_choice_of_mask_moves_mean_and_worst_cases() -> None:
    """All that a summary says speaks of the selected mask."""
    rows = [row("a", 0.1, 0.9), row("b", 0.8, 0.2)]
    assert summarise(rows, "first").worst == [("a", 0.1), ("b", 0.8)]
    assert summarise(rows, "confident").worst == [("b", 0.2), ("a", 0.9)]
    assert summarise(rows, "first").mean_iou == pytest.approx(0.45)


def test_the_three_worst_cases_ties_by_name() -> None:
    """At most three, lowest first."""
    rows = [row(case_id, value) for case_id, value in (("d", 0.5), ("b", 0.5), ("a", 0.9), ("c", 0.5), ("e", 0.1))]
    assert summarise(rows, "first").worst == [("e", 0.1), ("b", 0.5), ("c", 0.5)]


def clicks(case_id: str, *values: float) -> list[ResultRow]:
    """Return the rows of an iterative mode."""
    return [row(case_id, value, value, value, click=i) for i, value in enumerate(values, start=1)]


def test_clicks_are_averaged_per_case_and_per_click() -> None:
    """A case's value is its mean over clicks; the curve is the mean over cases after each click."""
    summary = summarise([*clicks("a", 0.1, 0.3, 0.8), *clicks("b", 0.5, 0.5, 0.5)], "oracle")
    assert summary.n == 2
    assert summary.mean_iou == pytest.approx((0.4 + 0.5) / 2)
    assert summary.iou_per_click is not None
    assert summary.iou_per_click["oracle"] == pytest.approx([0.3, 0.4, 0.65])
    assert [name for name, _ in summary.worst] == ["a", "b"]


def test_failed_cases_are_counted_and_named_not_scored() -> None:
    """A failed case does not enter the mean, not even by clicks that were scored before it failed."""
    failed = ResultRow(case_id="x", error="all zero")
    summary = summarise([row("a", 0.5), failed, *clicks("y", 1.0, 1.0), ResultRow(case_id="y", error="gone")], "first")
    assert (summary.n, summary.n_errors) == (1, 2)
    assert summary.mean_iou == 0.5
    assert summary.errors == [("x", "all zero"), ("y", "gone")]


def test_without_cases_there_is_no_mean() -> None:
    """No row, or failures only: NaN, not 0 and not an exception."""
    for rows in ([], [ResultRow(case_id="x", error="gone")]):
        summary = summarise(rows, "confident")
        assert summary.n == 0
        assert math.isnan(summary.mean_iou)
        assert all(math.isnan(value) for value in summary.iou.values())
        assert summary.ci95 is None
        assert summary.iou_per_click is None
        assert summary.worst == []


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.tuples(UNIT, UNIT, st.sampled_from("pqr")), min_size=1, max_size=12), seed=st.integers())
def test_the_order_of_rows_does_not_matter(values: list[tuple[float, float, str]], seed: int) -> None:
    """Shards, resumed runs and other orders give the same numbers to the last bit."""
    rows = [r for i, (a, b, subject) in enumerate(values) for r in _two_clicks(f"case {i}", a, b, subject)]
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - not for secrets
    assert same(summarise(rows, "first"), summarise(shuffled, "first"))


def _two_clicks(case_id: str, a: float, b: float, subject: str) -> list[ResultRow]:
    return [dataclasses.replace(r, subject_id=subject) for r in clicks(case_id, a, b)]


def test_the_mean_is_exact() -> None:
    """A plain sum of ten times 0.1 is 0.9999999999999999."""
    assert summarise([row(str(i), 0.1) for i in range(10)], "first").mean_iou == 0.1


def test_the_interval_of_a_summary_goes_by_subject() -> None:
    """Rows with a subject are drawn by it, others each for itself; a mean over clicks is one value."""
    rows = [row(f"c{i}", value, subject_id=f"p{i % 2}") for i, value in enumerate((0.1, 0.9, 0.1, 0.9, 0.1, 0.9))]
    assert summarise(rows, "first").ci95 == pytest.approx((0.1, 0.9))
    without = [dataclasses.replace(r, subject_id=None) for r in rows]
    low, high = summarise(without, "first").ci95 or (math.nan, math.nan)
    assert high - low < 0.8
    one = [dataclasses.replace(r, subject_id="p") for r in rows]
    assert summarise(one, "first").ci95 is None


def curve(case_id: str, reached: dict[int, float], clicks: int = 20) -> list[ResultRow]:
    """Return the rows of a case whose IoU rises at some clicks and stays."""
    rows, value = [], 0.0
    for click in range(1, clicks + 1):
        value = reached.get(click, value)
        rows.append(row(case_id, 0.0, value, click=click))
    return rows


def test_the_number_of_clicks_is_counted_apart_from_failures() -> None:
    """By hand: 0.85 is reached at clicks 1, 4 and 20; a case that never gets there is no 20."""
    rows = [
        *curve("a", {1: 0.85}),
        *curve("b", {2: 0.8, 4: 0.9}),
        *curve("c", {20: 0.86}),
        *curve("d", {3: 0.79}),
    ]
    noc = summarise(rows[::-1], "confident").noc
    assert noc is not None
    assert {name: (n.clicks, n.n_reached, n.n_failures) for name, n in noc.items()} == {
        "noc80": (pytest.approx((1 + 2 + 20) / 3), 3, 1),
        "noc85": (pytest.approx((1 + 4 + 20) / 3), 3, 1),
        "noc90": (4.0, 1, 3),
    }
    by_first = summarise(rows, "first").noc
    assert by_first is not None
    assert math.isnan(by_first["noc80"].clicks)
    assert (by_first["noc80"].n_reached, by_first["noc80"].n_failures) == (0, 4)


def test_an_iou_that_falls_again_was_reached() -> None:
    """The first click counts, as in RITM's evaluation, which ends there."""
    noc = summarise(curve("a", {3: 0.95, 5: 0.1}), "confident").noc
    assert noc is not None
    assert noc["noc90"].clicks == 3


def test_fewer_than_twenty_clicks_have_no_number_of_clicks() -> None:
    """Nine clicks could not say which cases fail."""
    assert summarise(curve("a", {1: 0.95}, clicks=9), "confident").noc is None
    assert summarise([row("a", 0.5)], "confident").noc is None


def test_coverage_is_the_mean_over_cases_that_have_one() -> None:
    """A mode of given prompts has none."""
    rows = [row("a", 0.1, coverage=0.5), row("b", 0.1, coverage=1.0), row("c", 0.1, error="unreadable")]
    assert summarise(rows, "oracle").coverage == 0.75
    assert summarise([row("a", 0.5)], "first").coverage is None


def test_calibration_compares_every_candidate_with_its_iou() -> None:
    """Two cases by hand: sorted alike, and off by 0.1 in the mean; rows without one of the two do not count."""
    rows = [
        row("a", 0.5, predicted_iou=[0.5, 0.9], candidate_iou=[0.4, 0.8]),
        row("b", 0.5, predicted_iou=[0.7], candidate_iou=[0.6]),
        row("c", 0.5, predicted_iou=[0.1], candidate_iou=None),
        row("d", 0.5, candidate_iou=[1.0]),
        row("e", 0.5, predicted_iou=[0.0], candidate_iou=[1.0], error="unreadable"),
    ]
    found = summarise(rows, "confident").calibration
    assert found is not None
    assert (found.n, found.rank_correlation) == (3, 1.0)
    assert found.mean_absolute_error == pytest.approx(0.1)
    assert summarise([row("a", 0.5, candidate_iou=[0.5])], "confident").calibration is None


# --- pairs and strata ---------------------------------------------------------------------------------------


def half(case_id: str, iou: float, **more: Any) -> ResultRow:
    """Return a row whose confident mask has half the IoU of the first."""
    return row(case_id, iou, iou / 2, 1.0, **more)


def test_cases_are_paired_by_id_under_a_choice_of_mask() -> None:
    """Only cases that both runs scored, sorted; a failed case is in neither; subjects are those of the rows."""
    before = [half("b", 0.4), half("a", 0.8), half("gone", 0.5), half("bad", 0.5)]
    after = [half("a", 0.6, subject_id="p", area_fraction=0.25, n_components=2), half("b", 0.4), half("new", 0.1)]
    after.append(ResultRow(case_id="bad", error="all zero"))
    assert pair(before, after, "first") == [
        Pair(case_id="a", subject="p", before=0.8, after=0.6, area_fraction=0.25, n_components=2),
        Pair(case_id="b", subject="b", before=0.4, after=0.4, area_fraction=0.0, n_components=0),
    ]
    assert [p.delta for p in pair(before, after, "confident")] == pytest.approx([-0.1, 0])


def test_a_case_of_an_iterative_mode_is_its_mean_over_clicks() -> None:
    """One pair a case, not one a click."""
    before = [half("a", 0.2, click=1), half("a", 0.6, click=2)]
    after = [half("a", 0.2, click=1), half("a", 0.2, click=2)]
    [found] = pair(before, after, "first")
    assert (found.before, found.after) == pytest.approx((0.4, 0.2))


def test_strata_by_size_and_parts() -> None:
    """Thirds by share of the image, equal ones by case id; one part and several; without those that are empty."""
    sizes = [0.5, 0.1, 0.1, 0.2, 0.9, 0.3, 0.4]
    cases = [
        Pair(case_id=f"c{i}", subject="p", before=0, after=0, area_fraction=size, n_components=1 + (i == 4))
        for i, size in enumerate(sizes)
    ]
    found = {name: [p.case_id for p in part] for name, part in strata(cases, ["parts", "size"]).items()}
    assert found == {
        "small objects": ["c1", "c2"],
        "medium objects": ["c3", "c5", "c6"],
        "large objects": ["c0", "c4"],
        "objects of one part": ["c0", "c1", "c2", "c3", "c5", "c6"],
        "objects of several parts": ["c4"],
    }
    assert list(strata(cases[:2], ["parts"])) == ["objects of one part"]
    assert strata(cases, []) == {}
