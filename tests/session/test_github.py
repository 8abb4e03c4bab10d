"""What a run shows on GitHub and in JUnit files: annotations, the step's summary, properties."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.project import Project

from promptseg.session import github

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell

ARGUMENTS = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "point_largest,box_all")


def entry(outcome: str = "passed", **more: Any) -> FinishedCell:
    """Return a cell of ``--seg-json``, as far as GitHub shows it."""
    scored = {"n": 12, "mean_iou": 0.5, "ci95": [0.4, 0.6], "threshold": 0.55, "baseline": None}
    names = {"model": "m", "task": "t", "mode": "box_all"}
    return cast("FinishedCell", {**names, **scored, "outcome": outcome, "reason": None, **more})


def test_an_annotation_is_one_line_that_github_reads_back() -> None:
    """Line ends, per cents, and in titles colons and commas are escaped as GitHub's toolkit does."""
    failed = entry("failed", mode="a:b,c", reason="100 % lost\n::error::injected")
    assert list(github.workflow_commands([failed])) == [
        "::error title=m-t-a%3Ab%2Cc::100 %25 lost%0A::error::injected",
    ]


def test_drops_that_may_be_chance_are_warnings_and_success_is_silent() -> None:
    """A gate that warns annotates; a cell that passed, or was skipped, does not."""
    unsure = entry(baseline={"verdict": "warn", "reason": "perhaps worse", "delta": -0.02})
    assert list(github.workflow_commands([unsure, entry(), entry("skipped")])) == [
        "::warning title=m-t-box_all::perhaps worse"
    ]


def test_no_more_annotations_than_github_shows() -> None:
    """Of many failures ten are annotated; the summary has all."""
    cells = [entry("failed", model=f"m{i:02}", reason="worse") for i in range(30)]
    assert len(list(github.workflow_commands(cells))) == github.ANNOTATIONS
    assert all(f"m{i:02}-t-box" in github.summary(cells).replace("&#95;", "_") for i in range(30))


def test_the_summary_has_failures_first_and_escapes_what_plugins_say() -> None:
    """Counts, then rows by outcome, then reasons; no markup of a reason survives."""
    text = github.summary([entry(), entry("failed", model="z", reason="<b>no</b> | [x](y)\nsecond line")])
    assert text.startswith("## promptseg: 1 failed, 1 passed\n")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "t-box" in line.replace("&#95;", "_")]
    assert ["failed" in row for row in rows] == [True, False]
    assert "0.500" in rows[0]
    assert "0.400 to 0.600" in rows[0]
    assert "<b>" not in text
    assert "[x](y)" not in text


def test_a_summary_stays_below_what_github_takes() -> None:
    """Of 40,000 cells the last are left out and counted."""
    text = github.summary([entry(model=f"model_with_a_name_{i}") for i in range(40_000)])
    assert len(text.encode()) < 1 << 20
    assert "more cells are in the scores" in text


@pytest.fixture
def on_github(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the step's summary; one cell fails, one has no threshold."""
    (project.pytester.path / "own.toml").write_text(
        '[bright.squares]\nbox_all = {value = 0.999, select = "confident", tolerance = 0, source = "us"}\n'
    )
    summary: Path = project.pytester.path / "summary.md"
    summary.write_text("# of another tool\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


def test_a_run_on_github_annotates_and_adds_to_the_summary(project: Project, on_github: Path) -> None:
    """The failed cell is an annotation at the start of a line; what was in the summary stays; xdist changes nothing.

    Nor does it in what a JUnit file says.
    """
    result = project.run(*ARGUMENTS, "--seg-thresholds", "own.toml", "--junit-xml", "junit.xml", "-n", "1", code=1)
    annotations = [line for line in result.outlines if line.startswith("::")]
    assert len(annotations) == 1
    assert annotations[0].startswith("::error title=bright-squares-box_all::")
    assert "0.999" in annotations[0]
    text = on_github.read_text()
    assert text.startswith("# of another tool\n## promptseg: 1 failed, 1 skipped\n")
    assert_properties(on_github.parent / "junit.xml")


def test_a_summary_that_cannot_be_written_is_reported(
    project: Project, on_github: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on, and says so."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(on_github.parent / "none" / "summary.md"))
    project.run(*ARGUMENTS, code=0).stdout.fnmatch_lines(["summary not written to *none*summary.md*"])


def test_junit_files_have_a_property_for_each_fact(project: Project) -> None:
    """Dashboards read plain names and values, not a Python dictionary."""
    project.run(*ARGUMENTS, "--junit-xml", "junit.xml", code=0)
    assert_properties(project.pytester.path / "junit.xml")


def assert_properties(junit: Path) -> None:
    """Assert that both cells have a property for each fact."""
    cases = list(ElementTree.parse(junit).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it just now
    assert len(cases) == 2
    for case in cases:
        found = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        assert found["seg_model"] == "bright"
        assert case.attrib["name"] == f"test_iou[bright-squares-{found['seg_mode']}]"
        assert 0 < float(found["seg_ci95_low"]) < float(found["seg_mean_iou"]) < float(found["seg_ci95_high"]) <= 1
        assert found["seg_n"] == "10"
        assert len(found["seg_fingerprint"]) == 64
        assert not any("{" in value for value in found.values())


def test_a_run_that_checked_nothing_says_that_it_cannot_fail(project: Project) -> None:
    """All cells skipped is exit code 0 for pytest; a person must see that nothing was compared with anything."""
    project.run(*ARGUMENTS, code=0).stdout.fnmatch_lines(
        ["no cell was checked against a threshold or baseline, so this run cannot fail*"]
    )
