"""When a cell stops: at which image, for which reason, and never for how many cases happen to be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from support.paired_results import result

from promptseg.results.provenance import Provenance
from promptseg.results.rows import ResultRow
from promptseg.verdicts import stopping
from promptseg.verdicts.stopping import Bounds, Stop, Watch
from promptseg.verdicts.thresholds import Threshold

ORDER = tuple(f"c{i:02}" for i in range(60))
FREE = Bounds(limit=None, max_errors=0)
THRESHOLD = Threshold(value=0.5, select="confident", tolerance=0.0, source="test")
ASKED = [stopping.of_threshold(THRESHOLD, len(ORDER), 0.99)]


def cases(ious: Sequence[float]) -> stopping.Cases:
    """Return the first cases with these IoU; a negative one is a case that failed."""
    rows = result([max(iou, 0) for iou in ious]).rows
    return {
        row.case_id: (dataclasses.replace(row, error="broken") if iou < 0 else row,)
        for row, iou in zip(rows, ious, strict=True)
    }


def stopped(found: Stop | None) -> int:
    """Return the number of images after which a cell stopped."""
    assert found is not None
    return len(found.case_ids)


def test_more_cases_than_needed_change_nothing() -> None:
    """A cell stops at the same image whether one case more is there or all."""
    whole = stopping.stop(ORDER, ASKED, FREE, cases([0.9, 0.8] * 30))
    count = stopped(whole)
    assert 5 < count < 30
    assert stopping.stop(ORDER, ASKED, FREE, cases(([0.9, 0.8] * 30)[:count])) is not None
    assert stopping.stop(ORDER, ASKED, FREE, cases(([0.9, 0.8] * 30)[: count - 1])) is None


def test_a_gap_ends_what_counts() -> None:
    """Cases behind one that is not there yet do not count: their order would not be random."""
    there = dict(cases([0.9] * 60))
    del there["c03"]
    assert stopping.stop(ORDER, ASKED, FREE, there) is None


def test_cases_outside_of_the_task_are_no_cases() -> None:
    """They are looked at, and settle nothing."""
    there = {**cases([0.9] * 60), **dict.fromkeys(ORDER[::2], ())}
    found = stopping.stop(ORDER, ASKED, FREE, there)
    assert found is not None
    assert found.findings[0].mean == pytest.approx(0.9)
    assert stopping.stop(ORDER, ASKED, FREE, dict.fromkeys(ORDER[:-1], ())) is None


def test_more_failed_cases_than_tolerated_end_a_cell_at_once() -> None:
    """What the mean is does not matter any more; tolerated ones do not count for the mean."""
    broken = cases([0.9, -1, 0.9, -1] + [0.9] * 56)
    found = stopping.stop(ORDER, ASKED, FREE, broken)
    assert stopped(found) == 2
    assert found is not None
    assert found.explain() == "settled after 2 of 60 images: too many cases failed"
    tolerant = stopping.stop(ORDER, ASKED, dataclasses.replace(FREE, max_errors=2), broken)
    assert tolerant is not None
    assert tolerant.findings[0].mean == pytest.approx(0.9)


def test_the_limit_ends_what_counts() -> None:
    """A cell that is not settled by then does not stop for being sure."""
    assert stopping.stop(ORDER, ASKED, Bounds(limit=4, max_errors=0), cases([0.9] * 60)) is None


def test_without_a_question_a_cell_never_stops() -> None:
    """Not for failed cases either: it is evaluated as ever."""
    assert stopping.stop(ORDER, [], FREE, cases([-1.0] * 60)) is None


def test_all_questions_must_be_answered() -> None:
    """A cell with a threshold and a baseline stops where the later of them is settled."""
    baseline = stopping.of_baseline(result([0.9] * 60), "confident", 0.1, len(ORDER), 0.99)
    there = cases([0.9] * 60)
    alone = [stopped(stopping.stop(ORDER, [question], FREE, there)) for question in (*ASKED, baseline)]
    both = stopping.stop(ORDER, [*ASKED, baseline], FREE, there)
    assert alone[0] < alone[1]
    assert stopped(both) == max(alone)
    assert both is not None
    assert [found.decision.examined for found in both.findings] == alone


def test_a_worse_cell_stops_only_where_the_gate_fails_too() -> None:
    """The mean drop is soon clear, but from fewer than ten subjects a gate has no interval to fail by."""
    baseline = stopping.of_baseline(result([0.9] * 60), "confident", 0.01, len(ORDER), 0.99)
    found = stopping.stop(ORDER, [baseline], FREE, cases([0.3, 0.2] * 30))
    assert found is not None
    assert not found.findings[0].decision.above
    assert stopped(found) == 10
    few = {
        c: tuple(dataclasses.replace(r, subject_id=str(i % 9)) for r in rows)
        for i, (c, rows) in enumerate(cases([0.3, 0.2] * 30).items())
    }
    assert stopping.stop(ORDER, [baseline], FREE, few) is None


def test_a_baseline_that_is_a_sample_is_seen_as_far_as_it_matters() -> None:
    """Its order may not be random to who knows it, so nobody bets; beyond its end there is nothing to compare."""
    whole = result([0.9] * 60)
    sample = dataclasses.replace(
        whole,
        rows=whole.rows[:20],
        n_examined=20,
        provenance=Provenance.from_json({**whole.provenance.json, "n_images": 60}),
    )
    assert sample.is_sample
    there = cases([0.9] * 60)
    early = stopping.stop(ORDER, [stopping.of_baseline(whole, "confident", 0.3, len(ORDER), 0.99)], FREE, there)
    assert stopped(early) < 14
    question = stopping.of_baseline(sample, "confident", 0.3, len(ORDER), 0.99)
    found = stopping.stop(ORDER, [question], FREE, there)
    assert stopped(found) == 14  # 13 cases could be made up for by losses of 0.9 in seven others, less 0.3 each
    assert found is not None
    assert "whatever the baseline's other cases give" in found.explain()
    tight = stopping.of_baseline(sample, "confident", 0.0, len(ORDER), 0.99)
    assert stopped(stopping.stop(ORDER, [tight], FREE, there)) == 20
    assert stopping.stop(ORDER, [tight], FREE, cases([0.9] * 19)) is None


def test_a_case_that_the_baseline_lacks_does_not_count() -> None:
    """Differences are those of common cases."""
    baseline = stopping.of_baseline(result([0.9] * 30), "confident", 0.2, len(ORDER), 0.99)
    found = stopping.stop(ORDER, [baseline], FREE, cases([0.9] * 30 + [0.0] * 30))
    assert found is not None
    assert found.findings[0].mean == 0


def test_a_watch_looks_seldom_and_misses_nothing() -> None:
    """At each of the first hundred cases, later at each hundredth; once a cell has stopped, never again."""
    looks: list[int] = []
    there: dict[str, tuple[ResultRow, ...]] = {}

    def look(found: stopping.Cases) -> Stop | None:
        looks.append(len(found))
        return Stop(case_ids=(), n_images=0, findings=()) if len(found) >= 250 else None

    watch = Watch(look)
    answers = []
    for i in range(300):
        answers.append(watch(there))
        there[str(i)] = ()
    assert looks[:100] == list(range(100))
    assert looks[100:103] == [100, 102, 104]
    assert 250 <= looks[-1] < 254
    assert answers == [False] * looks[-1] + [True] * (300 - looks[-1])
