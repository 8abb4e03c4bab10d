"""Relative gates: the rule, what is refused, strata, and messages that read alone."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paired_results import ABOUT, BASE, CELL, changed, minus, result

from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult
from promptseg.verdicts import gates
from promptseg.verdicts.gates import BaselineVerdict, GateSettings, against

TERMS = GateSettings(reference="main", select="confident")


@pytest.mark.parametrize(
    ("after", "outcome", "words"),
    [
        (minus(0), "pass", "not worse: mean IoU 0.690 to 0.690 (+0.0000, 95 % interval +0.0000 to +0.0000)"),
        (minus(-0.2), "pass", "not worse"),
        (
            minus(0.05),
            "fail",
            "worse: mean IoU 0.690 to 0.640 (-0.0500, 95 % interval -0.0500 to -0.0",
        ),
        (minus(0.05, noise=1), "fail", "worse: "),
        (minus(0.01), "warn", "surely lower, but by no more than 0.01"),
        (minus(0.02, noise=5), "warn", "lower by more than 0.01, but not surely"),
        (minus(0.005, noise=5), "pass", "not worse"),
    ],
)
def test_the_rule(after: CellResult, outcome: str, words: str) -> None:
    """Fails if the mean drop exceeds the tolerance and the interval excludes zero, warns if only one of both holds."""
    found = against(minus(0), after, TERMS)
    assert found.outcome == outcome
    assert found.reason.startswith(words)
    assert found.fails == (outcome == "fail")


def test_the_tolerance_is_the_users() -> None:
    """The same drop passes a gate that tolerates more, and is then still told."""
    terms = dataclasses.replace(TERMS, max_drop=0.05)
    assert against(minus(0), minus(0.05), terms).outcome == "warn"
    assert against(minus(0), minus(0.06), terms).outcome == "fail"


def test_the_choice_of_mask_is_the_one_that_was_asked_for() -> None:
    """A drop of the first mask fails only where the first mask counts."""
    before, after = result(BASE), result(BASE, iou_first=0.1)
    assert against(before, after, TERMS).outcome == "pass"
    assert against(before, after, dataclasses.replace(TERMS, select="first")).outcome == "fail"


def test_few_subjects_warn_and_never_fail() -> None:
    """Twenty slices of four patients cannot be sure, and the message says how many are needed."""
    patients = [f"p{i % 4}" for i in range(20)]
    found = against(result(BASE, subject_id=patients), result([0.1] * 20, subject_id=patients), TERMS)
    assert found.outcome == "warn"
    assert "no interval from 4 subjects: 10 are needed" in found.reason


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=10, max_size=20), st.floats(0, 0.3))
def test_a_run_that_is_no_lower_anywhere_passes(ious: list[float], gain: float) -> None:
    """Whatever the IoUs; and the other way round it is never a gain."""
    better = result([min(1.0, iou + gain) for iou in ious])
    assert against(result(ious), better, TERMS).outcome == "pass"
    found = against(better, result(ious), TERMS).comparison
    assert found is not None
    assert found.delta <= 0


# --- what cannot be compared --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (changed("protocol", None, ["paper", 2]), "protocol paper 1, in the baseline paper 2"),
        (changed("seed", None, 7), "seed 0, in the baseline 7"),
        (changed("dtype", None, "bfloat16"), "dtype float32, in the baseline bfloat16"),
        (changed("device", None, "cuda"), "kind of device cpu, in the baseline cuda"),
        (changed("dataset", "fingerprint", "e" * 64), "fingerprint ffffffffffff, in the baseline eeeeeeeeeeee"),
        (changed("task", "labels", [2]), "task's labels 1, in the baseline 2"),
        (changed("mode", "steps", 9), "mode's number of clicks 0, in the baseline 9"),
    ],
)
def test_other_conditions_are_refused_with_the_reason(about: dict[str, Any], words: str) -> None:
    """Equal scores or not: a difference could come from the conditions. What was found and what to do is said."""
    found = against(result(BASE, about), result(BASE), TERMS)
    assert found.outcome == "refused"
    assert found.fails
    assert found.comparison is None
    assert words in found.reason
    assert found.reason.endswith("Evaluate with the baseline's settings, or save a new baseline.")


def test_every_reason_is_given() -> None:
    """Who has to evaluate again wants to know of all that differs."""
    found = against(result(BASE, {**ABOUT, "seed": 1, "dtype": "float16"}), result(BASE), TERMS)
    assert "seed 0, in the baseline 1; dtype float32, in the baseline float16" in found.reason


def test_other_prompts_are_refused() -> None:
    """The first prompt of a case must be the same; later clicks depend on the model."""
    before = result(BASE, prompts="[1]")
    found = against(before, result(BASE, prompts=["[2]", *["[1]"] * 19]), TERMS)
    assert found.outcome == "refused"
    assert "other prompts for 1 cases, such as 'c00'" in found.reason
    clicks = [
        dataclasses.replace(
            run, rows=tuple(dataclasses.replace(row, click=c, prompts=p) for c, p in told for row in run.rows)
        )
        for run, told in ((before, [(1, "x"), (2, "y")]), (before, [(1, "x"), (2, "z")]))
    ]
    assert against(clicks[0], clicks[1], TERMS).outcome == "pass"


def test_runs_without_a_common_case_are_refused() -> None:
    """A mean over nothing is no pass."""
    other = dataclasses.replace(
        result(BASE), rows=tuple(dataclasses.replace(r, case_id="x") for r in result(BASE).rows)
    )
    assert "no case was scored in both" in against(other, result(BASE), TERMS).reason


def test_a_cell_that_the_baseline_does_not_have_asserts_nothing() -> None:
    """It is neither a pass nor a failure."""
    found = against(None, result(BASE), TERMS)
    assert (found.outcome, found.fails) == ("missing", False)


def test_cases_that_fail_now_fail_the_gate() -> None:
    """A model that breaks on the hard cases must not pass by the mean of the others; as many as tolerated may."""
    after = result(BASE, error=["out of memory", *[None] * 19])
    found = against(result(BASE), after, TERMS)
    assert found.outcome == "fail"
    assert found.reason.startswith("failed cases that the baseline scored: 1, such as 'c00'; not worse")
    assert against(result(BASE), after, dataclasses.replace(TERMS, max_errors=1)).outcome == "pass"
    assert against(after, after, TERMS).outcome == "pass"


# --- strata -------------------------------------------------------------------------------------------------


def on_small_objects(drop: float, **more: Any) -> BaselineVerdict:
    """Compare runs of 60 cases of which the 20 smallest lost, and the largest gained as much."""
    lost = [drop] * 20 + [0.0] * 20 + [-drop] * 20
    sizes = [i / 60 for i in range(60)]
    before, after = result([0.5] * 60, area_fraction=sizes), result([0.5 - d for d in lost], area_fraction=sizes)
    return against(before, after, dataclasses.replace(TERMS, **more))


def test_a_stratum_fails_its_cell() -> None:
    """What got worse on small objects only is found where strata have gates, and not by the mean of all."""
    assert on_small_objects(0.1).outcome == "pass"
    found = on_small_objects(0.1, strata=("size",))
    assert found.outcome == "fail"
    assert found.reason.startswith("small objects: worse: mean IoU 0.500 to 0.400")
    assert list(found.strata) == ["small objects", "medium objects", "large objects"]


def test_strata_share_the_error_of_one_gate() -> None:
    """Of three strata each has an interval of 98.3 %, of five one of 99 %."""
    assert {round(s.level, 4) for s in on_small_objects(0, strata=("size",)).strata.values()} == {0.9833}
    both = on_small_objects(0, strata=("size", "parts")).strata
    assert {round(s.level, 4) for s in both.values()} == {0.9875}
    assert list(both)[3:] == ["objects of one part"]


# --- words and JSON -----------------------------------------------------------------------------------------


def test_a_message_reads_alone() -> None:
    """Cell, baseline, means, interval, n, mask, p, what would have been found, worst cases, and what else changed."""
    about = changed("model", "sha256", {"checkpoint": "9" * 64})
    before = result(BASE)
    after = dataclasses.replace(
        minus(0.05, noise=0.2),
        provenance=Provenance.from_json({**about, "versions": {"torch": "2.7", "python": "3.11"}}),
    )
    rows = tuple(dataclasses.replace(r, iou_confident=0.55) if r.case_id == "c07" else r for r in after.rows)
    text = against(before, dataclasses.replace(after, rows=rows), TERMS).explain().splitlines()
    assert text[0].startswith("minisam on us_kidney, box_each, against baseline main: worse: mean IoU 0.690 to 0.6")
    assert text[1].startswith("n=20 of 20 subjects, p=0.0001, smallest drop that is surely found: 0.0")
    assert text[1].endswith(", mask: confident")
    assert text[2].startswith("lost most: c07 0.640 to 0.550, c")
    assert text[3] == (
        "not as in the baseline: weights (checkpoint 111111111111 to 999999999999); versions (torch 2.6 to 2.7)"
    )


def test_json_holds_the_numbers_of_cell_and_strata() -> None:
    """As plain JSON: of a comparison, and of a refusal, which has none."""
    entry = json.loads(json.dumps(on_small_objects(0.1, strata=("size",)).as_json(), allow_nan=False))
    assert (entry["verdict"], entry["n"], entry["delta"]) == ("fail", 60, pytest.approx(0))
    assert entry["strata"]["small objects"]["delta"] == pytest.approx(-0.1)
    assert entry["strata"]["small objects"]["worst"][0] == {"case_id": "c00", "before": 0.5, "after": 0.4}
    refused = json.loads(json.dumps(gates.refused(CELL, TERMS, "torn file").as_json()))
    assert (refused["verdict"], refused["reason"]) == ("refused", "cannot be compared: torn file")
    assert "n" not in refused
