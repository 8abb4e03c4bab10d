"""``pytest -k us_kidney`` in this repository, whose conftest.py leaves unit tests out: run on a copy of that file."""

from __future__ import annotations

import pytest
from support.inside import run_inside
from support.paths import ROOT
from support.project import Project

UNIT = "def test_box_fill_of_us_kidney(): pass\ndef test_bright_and_squares(): pass\ndef test_other(): pass\n"


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with the benchmark, unit tests and the conftest.py of this repository."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = (ROOT / "conftest.py").read_text().replace('pytest_plugins = ["pytester"]', "")
    project.pytester.makepyfile(conftest=text, test_unit=UNIT, test_iou="from promptseg.benchmark import test_iou")
    return project


def test_k_of_registered_names_selects_cells_alone(repository: Project) -> None:
    """The unit tests that it would select too are counted."""
    result = run_inside(repository.pytester, "-k", "box_fill and phantom_ct and not point_each", "--seg-limit", "1")
    assert set(result.parseoutcomes()) == {"deselected", "scored"}
    result = run_inside(repository.pytester, "-k", "us_kidney and box_fill")
    result.stdout.fnmatch_lines(["1 unit test with such names left out, since -k asks for cells: *"])
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "fill_of"),
        ("-k", "fill_of and us_kidney"),
        ("test_unit.py", "-k", "us_kidney and box_fill"),
        ("-k", "us_kidney and box_fill", "."),
    ],
)
def test_other_words_and_named_files_select_as_ever(repository: Project, arguments: tuple[str, ...]) -> None:
    """Nothing is left out where a word is no registered name, or where a path says what to run."""
    result = run_inside(repository.pytester, *arguments, "--seg-models", "box_fill", "--seg-modes", "box_all")
    assert result.parseoutcomes()["passed"] == 1
    assert "left out" not in result.stdout.str()


def test_workers_leave_out_the_same(repository: Project) -> None:
    """The number reaches the terminal of the controller."""
    result = repository.pytester.runpytest_subprocess("-n", "2", "-k", "us_kidney and box_fill")
    result.stdout.fnmatch_lines(["1 unit test with such names left out*"])
