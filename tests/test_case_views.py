"""Stored cases to look at: what a run left is found again, and what is missing is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptseg import registry
from promptseg.case_views import CaseView, CellViews, open_cell, prompts_of
from promptseg.errors import ResultsError
from promptseg.results import Row
from promptseg.specs import SELECTS, Cell

pytest.importorskip("pycocotools")

RUN = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_each,clicks_confident")


def opened(project: Any, mode: str) -> CellViews:
    """Return the cases of one cell of the project."""
    root: Path = project.pytester.path
    found = registry.build(root / "promptseg.toml")
    return open_cell(root / "leaderboard/results", found, Cell("bright", "squares", mode))


def test_a_case_is_shown_with_its_pixels_prompts_and_masks(project: Any) -> None:
    """Image and target are those of the files; the masks score what the run scored, under every choice of mask."""
    project.run(*RUN, "--seg-save-masks")
    views = opened(project, "box_each")
    assert views.problems == ()
    view = views.view("case_03")
    mask = np.asarray(Image.open(project.pytester.path / "squares/masks/case_03.png")) > 0
    assert view.problems == ()
    assert view.image is not None
    assert view.image.shape == (32, 48, 3)
    assert view.target is not None
    assert np.array_equal(view.target, mask)
    (step,) = view.steps
    (prompt,) = step.prompts
    assert prompt.box_xyxy is not None
    assert prompt.box_xyxy.tolist() == [6, 4, 22, 14]
    assert len(step.candidates) == 2
    assert step.choice is not None
    assert step.choice.candidate["confident"] == 0
    for choice in SELECTS:
        assert step.choice.iou[choice] == getattr(step.row, f"iou_{choice}")


def test_every_click_has_its_masks(project: Any) -> None:
    """Nine steps in order, each with the clicks so far and masks that score what the run scored."""
    project.run(*RUN, "--seg-save-masks")
    for view in opened(project, "clicks_confident").views(["case_01", "case_00"]):
        assert [step.row.click for step in view.steps] == list(range(1, 10))
        for step in view.steps:
            assert step.choice is not None
            assert step.choice.iou["confident"] == step.row.iou_confident
            assert len(step.prompts[0].points_xy) <= step.row.click


def missing(view: CaseView) -> tuple[bool, bool, bool]:
    """Return whether image, target and masks are missing."""
    return view.image is None, view.target is None, not view.steps[0].predictions


def test_masks_that_were_not_saved_are_told(project: Any) -> None:
    """Image, target and prompts are there all the same."""
    project.run(*RUN)
    view = opened(project, "box_each").view("case_03")
    assert missing(view) == (False, False, True)
    assert view.problems == ("Its masks were not saved: run pytest again with --seg-save-masks.",)
    assert len(view.steps[0].prompts) == 1


def test_other_pixels_are_not_shown_for_those_that_were_scored(project: Any) -> None:
    """A data set whose fingerprint changed since the run gives no picture, and says why."""
    project.run(*RUN, "--seg-save-masks")
    project.add_images("squares", 1, first=10)
    view = opened(project, "box_each").view("case_03")
    assert missing(view) == (True, True, False)
    assert view.steps[0].choice is None
    assert view.problems == ("The data set squares on this machine has other images or masks than were evaluated.",)


def test_data_sets_that_are_not_here_are_told(project: Any) -> None:
    """The rows of a result can be read on a machine that has neither the images nor their data set registered."""
    project.run(*RUN)
    root = project.pytester.path
    (root / "squares").rename(root / "elsewhere")
    assert "The data set squares is not on this machine" in opened(project, "box_each").problems[0]
    bare = open_cell(root / "leaderboard/results", registry.build(), Cell("bright", "squares", "box_each"))
    assert "Unknown data set 'squares'" in bare.problems[0]
    assert missing(bare.view("case_00")) == (True, True, True)


def test_damaged_masks_are_told(project: Any) -> None:
    """A file that cannot be read costs the masks and nothing else."""
    project.run(*RUN, "--seg-save-masks")
    for path in (project.pytester.path / "leaderboard/results/bright/squares/masks").glob("box_each*"):
        path.write_bytes(b"noise")
    view = opened(project, "box_each").view("case_03")
    assert missing(view) == (False, False, True)
    assert "cannot be read" in view.problems[0]


def test_names_that_are_not_there(project: Any) -> None:
    """A cell or a case that the results do not hold is an error that names it."""
    project.run(*RUN)
    with pytest.raises(ResultsError, match=r"holds no result of bright-squares-noc\."):
        opened(project, "noc")
    with pytest.raises(ResultsError, match="holds no case 'case_99'"):
        opened(project, "box_each").view("case_99")


def test_a_grid_is_no_prompt() -> None:
    """Modes that segment everything give points by the thousand, which nobody wants drawn."""
    assert prompts_of(dataclasses.replace(Row(case_id="a"), prompts='[{"grid": 32}]')) == ()
