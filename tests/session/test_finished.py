"""The cells of finished tests: their keys, which of two tests counts, and what a JUnit file holds of them."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from promptseg.results.provenance import Provenance
from promptseg.session import finished
from promptseg.specs import Cell
from promptseg.verdicts.score import CellEntry, CellScore
from promptseg.verdicts.summary import Calibration, Noc, Summary

SUMMARY = Summary(
    n=3,
    n_errors=1,
    select="confident",
    mean_iou=0.5,
    iou={"first": 0.4, "confident": 0.5, "oracle": 0.6},
    ci95=(0.4, 0.6),
    iou_per_click={"confident": (0.4, 0.6)},
    worst=(),
    errors=(),
    noc={"noc80": Noc(clicks=2.0, n_reached=1, n_failures=2)},
    coverage=0.9,
    calibration=Calibration(n=9, rank_correlation=0.1, mean_absolute_error=0.2),
)


def score(summary: Summary = SUMMARY) -> CellScore:
    """Return a score with every number that a cell can have."""
    return CellScore(
        cell=Cell("m", "t", "box_all"),
        summary=summary,
        threshold=None,
        asserted=summary,
        seed=7,
        max_errors=1,
        n_images=4,
        whole=True,
        fingerprint="f" * 64,
        provenance=Provenance.from_json({}),
    )


def test_the_type_of_an_entry_names_what_is_written() -> None:
    """A key that `CellScore.as_json` adds is one that readers can be checked against."""
    assert set(score().as_json()) == set(get_type_hints(CellEntry))


def test_a_cell_without_a_score_has_the_keys_that_every_cell_has() -> None:
    """Names and outcome stay; scores are null, and a number of cases is zero."""
    skipped: Any = {"model": "m", "task": "t", "mode": "box_all", "outcome": "skipped", "reason": "no weights"}
    complete: dict[str, Any] = {**finished.complete(skipped)}
    assert {**complete, **skipped} == complete
    assert (complete["n"], complete["mean_iou"], complete["iou"]["oracle"]) == (0, None, None)
    assert not finished.is_scored(skipped)
    scored: Any = {**score().as_json(), "outcome": "passed", "reason": None}
    assert finished.complete(scored) == {**scored, "scored": True}
    assert complete["scored"] is False
    assert finished.is_scored(scored)


@pytest.mark.parametrize(
    ("known", "later", "expected"),
    [
        (None, "skipped", True),
        ("passed", "failed", True),
        ("passed", "passed", True),
        ("failed", "passed", False),
        ("passed", "skipped", False),
    ],
)
def test_the_worst_of_several_tests_of_a_cell_counts(known: str | None, later: str, *, expected: bool) -> None:
    """Of two equal outcomes the later one."""
    before: Any = None if known is None else {"outcome": known}
    now: Any = {"outcome": later}
    assert finished.replaces(now, before) is expected


def test_properties_are_plain_names_and_values() -> None:
    """Nothing nested, and nothing of what a cell does not have."""
    entry: Any = {**score().as_json(), "baseline": {"reference": "main", "verdict": "pass", "delta": 0.01}}
    found = dict(finished.properties(entry))
    assert found["seg_mean_iou"] == 0.5
    assert (found["seg_iou_oracle"], found["seg_ci95_low"], found["seg_ci95_high"]) == (0.6, 0.4, 0.6)
    assert (found["seg_baseline"], found["seg_baseline_verdict"], found["seg_baseline_delta"]) == ("main", "pass", 0.01)
    assert found["seg_scored"] is True
    assert finished.score_of(found.items()) == 0.5
    assert "seg_threshold" not in found
    assert not any(isinstance(value, dict | list) for value in found.values())
    without = dataclasses.replace(SUMMARY, ci95=None)
    assert "seg_ci95_low" not in dict(finished.properties(score(without).as_json()))
