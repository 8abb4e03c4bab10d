"""A process that ends in compiled code: who was evaluated is said by the controller, the next run, and doctor."""

from __future__ import annotations

import pandas as pd
import pytest
from support.project import Project

from promptseg.cli.doctor import examine

CRASHES = """
import ctypes, os
from pathlib import Path
from adapters import Bright

class Crashes(Bright):
    def answer(self, image, prompt):
        if len(Path("calls.jsonl").read_text().splitlines()) > 7 and not Path("mended").exists():
            ctypes.CDLL(None)._exit(0)
        return super().answer(image, prompt)

def load(spec, files, runtime):
    return Crashes(spec, files, runtime)
"""
CELLS = ("--seg-models", "crashes", "--seg-tasks", "squares", "--seg-modes", "box_all")
NAMED = "evaluated crashes on squares (squares-box_all) ended without a word"


@pytest.fixture
def crashing(project: Project) -> Project:
    """A project with a model that ends its process after a few cases, with the exit code 0."""
    project.configure('[models.crashes]\nadapter = "crashing:load"')
    project.pytester.makepyfile(crashing=CRASHES)
    return project


def test_the_next_run_names_it_once_and_goes_on(crashing: Project) -> None:
    """Doctor does too, until then; the results folder is still one table."""
    folder = crashing.pytester.path
    assert "scored" not in crashing.run(*CELLS, apart=True).stdout.str()
    findings = [finding.found for finding in examine(folder / "promptseg.toml", folder)]
    assert sum(NAMED in found for found in findings) == 1
    (folder / "mended").touch()
    again = crashing.run(*CELLS).stdout.str()
    assert again.count(NAMED) == 1
    assert "1 scored" in again
    assert NAMED not in crashing.run(*CELLS).stdout.str()
    assert len(pd.read_parquet(folder / "leaderboard" / "results")) == 10
    assert not (folder / "leaderboard" / "results" / ".running").exists()


def test_the_controller_of_xdist_names_it_at_once(crashing: Project) -> None:
    """The cell is among those of the run, as failed."""
    scores = crashing.scores(*CELLS, "-n", "1", "--max-worker-restart", "0")
    cell = scores["crashes-squares-box_all"]
    assert (cell["outcome"], cell["n"]) == ("failed", 0)
    assert "crashed while running" in cell["reason"]
    assert NAMED in cell["reason"]
