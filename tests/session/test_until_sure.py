"""``--seg-until-sure`` as a user meets it: what stops, what is told, what is stored, and what does not stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import ADAPTERS, Project
from typer.testing import CliRunner, Result

from promptseg.cli import main
from promptseg.results.masks import MaskStore
from promptseg.specs import Cell

CELL = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
NAME = "bright-squares-box_all"
IN_FLIGHT = 5  # cases at most that are evaluated beyond the one that settles a cell
SURE = ("--seg-until-sure", "--seg-thresholds", "mine.toml")


@pytest.fixture
def large(project: Project) -> Any:
    """A project with 50 images, on which the model scores about 0.95."""
    project.add_images("squares", 40, first=10)
    return project


def threshold(project: Project, text: str) -> None:
    """Write a threshold for the cell."""
    path: Path = project.pytester.path / "mine.toml"
    path.write_text(f'[bright.squares]\nbox_all = {{{text}, select = "confident", tolerance = 0.0, source = "mine"}}\n')


def test_a_cell_stops_once_it_surely_passes_and_a_full_run_goes_on_from_there(large: Any) -> None:
    """The result is partial for JSON and board; again it needs no evaluation; all cases later need only the rest."""
    threshold(large, "value = 0.5")
    first = large.scores(*CELL, *SURE)[NAME]
    calls = len(large.calls("embed"))
    assert (first["outcome"], first["partial"]) == ("passed", True)
    assert first["n"] == first["until_sure"]["n_examined"] <= calls <= first["n"] + 5 < 20  # some are in flight
    found = first["until_sure"]["threshold"]
    assert found["side"] == "above"
    assert 0.5 <= found["interval"][0] < first["mean_iou"] < found["interval"][1]
    board = (large.pytester.path / "leaderboard/LEADERBOARD.md").read_text()
    assert f"{calls} (sample)" in board

    result = large.run(*CELL, *SURE, code=0)
    result.stdout.fnmatch_lines(
        ["partial, stopped as soon as the verdict was settled: 1 cell", "*settled after * of 50 *"]
    )
    assert large.calls("embed") == []

    whole = large.scores(*CELL, "--seg-thresholds", "mine.toml")[NAME]
    assert len(large.calls("embed")) == 50 - calls
    assert (whole["n"], whole["partial"], whole["until_sure"]) == (50, False, None)
    assert "(sample)" not in (large.pytester.path / "leaderboard/LEADERBOARD.md").read_text()
    assert large.scores(*CELL, *SURE)[NAME] == whole


def test_a_cell_that_surely_fails_says_after_how_many_images(large: Any) -> None:
    """The same score whatever the batch and the number of workers."""
    threshold(large, "value = 0.99")
    result = large.run(*CELL, *SURE, code=1)
    result.stdout.re_match_lines(
        [
            r".*bright on squares, box_all: mean IoU 0\.9\d\d < 0\.990",
            r".*partial: settled after \d+ of 50 images: mean IoU 0\.9\d\d in \[0\.\d{3}, 0\.988\] at 99 %",
        ]
    )
    first = large.scores(*CELL, *SURE)[NAME]
    for more in (("--seg-batch-size", "8"), ("-n", "2")):
        again = large.scores(*CELL, *SURE, "--seg-rerun", *more)[NAME]
        assert {**again, "reason": ""} == {**first, "reason": ""}


def test_what_cannot_be_settled_early_is_evaluated_as_ever(large: Any) -> None:
    """Without a threshold, with one that speaks of another number of cases, and up to the limit."""
    assert large.scores(*CELL, "--seg-until-sure")[NAME]["n"] == 50
    threshold(large, "value = 0.5, n = 51")
    cell = large.scores(*CELL, *SURE, "--seg-rerun")[NAME]
    assert (cell["n"], cell["outcome"], cell["until_sure"]) == (50, "skipped", None)
    large.add_images("squares", 1, first=50)  # other data: nothing stored
    cell = large.scores(*CELL, *SURE, "--seg-limit", "3")[NAME]
    assert (cell["n"], cell["until_sure"]) == (3, None)
    cell = large.scores(*CELL, *SURE)[NAME]
    assert (cell["outcome"], cell["partial"]) == ("passed", True)  # 51 images, all with an object


def test_a_baseline_settles_too(large: Any) -> None:
    """A model as it was passes early, one that lost much fails early."""
    from promptseg.verdicts import baselines

    large.run(*CELL, code=0)
    root = large.pytester.path / "leaderboard"
    baselines.save("main", root / "results", root / "baselines")
    against = (*CELL, "--seg-baseline", "main", "--seg-max-drop", "0.2", "--seg-until-sure")
    shutil.rmtree(root / "results")
    same = large.scores(*against)[NAME]
    assert (same["outcome"], same["until_sure"]["baseline"]["side"]) == ("passed", "above")
    worse = ADAPTERS.replace("bright = image[..., 0] > 127", "bright = np.roll(image[..., 0] > 127, 8, axis=1)")
    large.pytester.makepyfile(adapters=worse)
    result = large.scores(*against)[NAME]
    assert (result["outcome"], result["until_sure"]["baseline"]["side"]) == ("failed", "below")
    assert max(same["n"], result["n"]) < 50


# --- really early, of 300 images ----------------------------------------------------------------------------


@pytest.fixture
def huge(project: Project) -> Any:
    """A project with 300 images, on which the model scores about 0.97; the threshold is 0.8."""
    project.add_images("squares", 290, first=10)
    threshold(project, "value = 0.8")
    return project


def command(*words: str) -> Result:
    """Run a command of promptseg in this process, in the folder of the test."""
    return CliRunner().invoke(main.app, words, catch_exceptions=False)


def test_other_questions_go_on_from_the_cases_that_are_there(huge: Any) -> None:
    """After a limit, which is told, of other levels and thresholds; each case is encoded once, its masks are kept."""
    seen: list[dict[str, Any]] = []

    def ask(*more: str) -> tuple[dict[str, Any], int]:
        found = huge.scores(*CELL, "--seg-save-masks", "--seg-thresholds", "mine.toml", *more)[NAME]
        calls = huge.calls("embed")
        seen.extend(calls)
        return found, len(calls)

    short = huge.run(*CELL, *SURE, "--seg-save-masks", "--seg-limit", "3", code=0)
    short.stdout.fnmatch_lines(["partial, ended by --seg-limit before the verdict was settled, *cases so far: 1 cell"])
    assert "stopped as soon as" not in short.stdout.str()
    seen += huge.calls("embed")
    assert len(seen) == 3
    first, calls = ask("--seg-until-sure")
    assert 5 < first["n"] < 60
    assert first["n"] - 3 <= calls <= first["n"] + IN_FLIGHT
    loose, calls = ask("--seg-until-sure=0.8")
    assert (loose["outcome"], calls) == ("passed", 0)
    assert loose["n"] < first["n"]
    strict, calls = ask("--seg-until-sure=0.9999")
    assert 0 < calls <= strict["n"] - first["n"] + IN_FLIGHT
    assert strict["until_sure"]["threshold"]["level"] == 0.9999
    threshold(huge, "value = 0.99")
    failed, calls = ask("--seg-until-sure")
    assert (failed["outcome"], failed["until_sure"]["threshold"]["side"], calls) == ("failed", "below", 0)
    threshold(huge, "value = 0.8")
    whole, _ = ask()
    assert (whole["n"], whole["partial"], whole["until_sure"]) == (300, False, None)
    assert len(seen) == 300
    masks = MaskStore(huge.pytester.path / "leaderboard/results", print)
    assert len(masks.cases(Cell("bright", "squares", "box_all"), whole["fingerprint"])) == 300


def test_two_processes_settle_as_one(huge: Any) -> None:
    """Each cell where one process finds it settled, which evaluates nothing again."""
    cells = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all,box_each")
    path: Path = huge.pytester.path / "mine.toml"
    path.write_text(
        path.read_text() + 'box_each = {value = 0.85, select = "oracle", tolerance = 0.0, source = "mine"}\n'
    )
    together = huge.scores(*cells, *SURE, "-n", "2")
    assert {cell["partial"] for cell in together.values()} == {True}
    huge.calls("embed")
    assert huge.scores(*cells, *SURE) == together
    assert huge.calls("embed") == []


def test_a_sample_is_never_shown_as_a_full_score(huge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Board, report, figures, baseline and comparison mark it; a submission refuses it, and says what completes it."""
    monkeypatch.chdir(huge.pytester.path)
    modes = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_each")
    path = Path("mine.toml")
    path.write_text(path.read_text().replace("box_all", "box_each"))
    n = huge.scores(*modes, *SURE)["bright-squares-box_each"]["n"]
    n_stored = len(huge.calls("embed"))
    assert n <= n_stored < 60
    mark = f"{n_stored} (sample)"

    assert command("leaderboard").exit_code == 0
    assert mark in Path("leaderboard/LEADERBOARD.md").read_text()
    assert "gate compares only" in command("baseline", "save", "part").output
    assert mark in command("baseline", "show", "part").output
    compared = command("compare", "part", "leaderboard/results", "--json", "compared.json")
    assert mark in compared.output
    assert "Sample: one of the runs examined only a part" in compared.output
    assert json.loads(Path("compared.json").read_text())["cells"][0]["sample"] is True
    refused = command("submit", "leaderboard/results")
    assert refused.exit_code == 1
    assert f"a sample: {n_stored} of 300 images" in refused.output
    assert "without --seg-limit and --seg-until-sure completes it" in refused.output
    assert not Path("submission").exists()
    assert command("report", "--cases", "0", "--thresholds", "mine.toml").exit_code == 0
    assert "A sample of the data set." in Path("leaderboard/report/cells/bright-squares-box_each.html").read_text()
    board = json.loads(Path("leaderboard/report/board.js").read_text().partition("=")[2].strip().rstrip(";"))
    assert board["sample"] == [True]


def test_a_baseline_that_is_a_sample_is_seen_to_its_end(huge: Any) -> None:
    """Where it ended may have depended on its own IoU, so nothing is guessed; beyond it there is nothing to compare."""
    from promptseg.verdicts import baselines

    huge.scores(*CELL, *SURE)
    n_stored = len(huge.calls("embed"))
    root = huge.pytester.path / "leaderboard"
    baselines.save("part", root / "results", root / "baselines")
    shutil.rmtree(root / "results")
    result = huge.run(*CELL, "--seg-baseline", "part", "--seg-until-sure", code=0)
    result.stdout.fnmatch_lines(
        [
            "compared on a sample, since the baseline has no other cases: 1 cell",
            f"*settled after {n_stored} of 300 images: mean difference 0.000 in * whatever the baseline's other*",
        ]
    )
    assert len(huge.calls("embed")) <= n_stored + IN_FLIGHT
