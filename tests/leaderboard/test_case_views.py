"""Stored cases to look at: what a run left is found again, and what is missing is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.project import Project
from support.site_results import evaluate

from promptseg import registry
from promptseg.errors import ResultsError
from promptseg.leaderboard.case_views import CaseView, CellViews, open_cell, prompts_of
from promptseg.results.rows import ResultRow
from promptseg.specs import SELECTS, Cell

pytest.importorskip("pycocotools")

CELLS = Cell("blob", "squares", "box_each"), Cell("blob", "squares", "clicks_confident")


@pytest.fixture
def squares(project: Project) -> Any:
    """Return a project with the model ``blob``, whose three candidates are ellipses."""
    project.configure('[models.blob]\nadapter = "support.site_results:load"')
    return project


def run(project: Project, *, masks: bool) -> None:
    """Evaluate both cells."""
    root: Path = project.pytester.path
    evaluate(registry.build(root / "promptseg.toml"), root / "results", *CELLS, masks=masks)


def opened(project: Project, mode: str) -> CellViews:
    """Return the cases of one cell of the project."""
    root: Path = project.pytester.path
    return open_cell(root / "results", registry.build(root / "promptseg.toml"), Cell("blob", "squares", mode))


def test_a_case_is_shown_with_its_pixels_prompts_and_masks(squares: Any) -> None:
    """Image and target are those of the files; the masks score what the run scored, under every choice of mask."""
    run(squares, masks=True)
    views = opened(squares, "box_each")
    assert views.problems == ()
    view = views.view("case_03")
    mask = np.asarray(Image.open(squares.pytester.path / "squares/masks/case_03.png")) > 0
    assert view.problems == ()
    assert view.image is not None
    assert view.image.shape == (32, 48, 3)
    assert view.target is not None
    assert np.array_equal(view.target, mask)
    (step,) = view.steps
    (prompt,) = step.prompts
    assert prompt.box_xyxy is not None
    assert prompt.box_xyxy.tolist() == [6, 4, 22, 14]
    assert len(step.candidates) == 3
    assert step.choice is not None
    assert step.choice.candidate["confident"] == 1
    for choice in SELECTS:
        assert step.choice.iou[choice] == getattr(step.row, f"iou_{choice}")


def test_every_click_has_its_masks(squares: Any) -> None:
    """Nine steps in order, each with the clicks so far and masks that score what the run scored."""
    run(squares, masks=True)
    for view in opened(squares, "clicks_confident").views(["case_01", "case_00"]):
        assert [step.row.click for step in view.steps] == list(range(1, 10))
        for step in view.steps:
            assert step.choice is not None
            assert step.choice.iou["confident"] == step.row.iou_confident
            assert len(step.prompts[0].points_xy) <= step.row.click


def missing(view: CaseView) -> tuple[bool, bool, bool]:
    """Return whether image, target and masks are missing."""
    return view.image is None, view.target is None, not view.steps[0].predictions


def test_masks_that_were_not_saved_are_told(squares: Any) -> None:
    """Image, target and prompts are there all the same."""
    run(squares, masks=False)
    view = opened(squares, "box_each").view("case_03")
    assert missing(view) == (False, False, True)
    assert view.problems == ("Its masks were not saved: run pytest again with --seg-save-masks.",)
    assert len(view.steps[0].prompts) == 1


def test_other_pixels_are_not_shown_for_those_that_were_scored(squares: Any) -> None:
    """A data set whose fingerprint changed since the run gives no picture, and says why."""
    run(squares, masks=True)
    squares.add_images("squares", 1, first=10)
    view = opened(squares, "box_each").view("case_03")
    assert missing(view) == (True, True, False)
    assert view.steps[0].choice is None
    assert view.problems == ("The data set squares on this machine has other images or masks than were evaluated.",)


def test_data_sets_that_are_not_here_are_told(squares: Any) -> None:
    """The rows of a result can be read on a machine that has neither the images nor their data set registered."""
    run(squares, masks=False)
    root = squares.pytester.path
    (root / "squares").rename(root / "elsewhere")
    assert "The data set squares is not on this machine" in opened(squares, "box_each").problems[0]
    bare = open_cell(root / "results", registry.build(), CELLS[0])
    assert bare.problems[0] == "The data set squares is not registered on this machine."
    assert missing(bare.view("case_00")) == (True, True, True)


def test_damaged_masks_are_told(squares: Any) -> None:
    """A file that cannot be read costs the masks and nothing else."""
    run(squares, masks=True)
    for path in (squares.pytester.path / "results/blob/squares/.masks").glob("box_each*"):
        path.write_bytes(b"noise")
    view = opened(squares, "box_each").view("case_03")
    assert missing(view) == (False, False, True)
    assert "cannot be read" in view.problems[0]


def test_names_that_are_not_there(squares: Any) -> None:
    """A cell or a case that the results do not hold is an error that names it."""
    run(squares, masks=False)
    with pytest.raises(ResultsError, match=r"holds no result of blob-squares-noc\."):
        opened(squares, "noc")
    with pytest.raises(ResultsError, match="holds no case 'case_99'"):
        opened(squares, "box_each").view("case_99")


def test_a_grid_is_no_prompt() -> None:
    """Modes that segment everything give points by the thousand, which nobody wants drawn."""
    assert prompts_of(dataclasses.replace(ResultRow(case_id="a"), prompts='[{"grid": 32}]')) == ()
