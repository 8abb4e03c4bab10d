"""``--seg-until-sure`` as a user meets it: what stops, what is told, what is stored, and what does not stop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import ADAPTERS

CELL = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
NAME = "bright-squares-box_all"
SURE = ("--seg-until-sure", "--seg-thresholds", "mine.toml")


@pytest.fixture
def large(project: Any) -> Any:
    """A project with 50 images, on which the model scores about 0.95."""
    project.add_images("squares", 40, first=10)
    return project


def threshold(project: Any, text: str) -> None:
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
    result.stdout.fnmatch_lines(["partial, stopped as soon as they were settled: 1 cells", "*settled after * of 50 *"])
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
            r".*partial: settled after \d+ of 50 images: mean IoU 0\.9\d\d in \[0\.\d{3}, 0\.990\] at 99 %",
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
    from promptseg import baselines

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
