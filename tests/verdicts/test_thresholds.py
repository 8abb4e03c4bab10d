"""Thresholds: what is read, what is refused, and whose wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptseg.errors import ConfigError
from promptseg.leaderboard import paper
from promptseg.specs import Cell
from promptseg.verdicts import thresholds
from promptseg.verdicts.thresholds import Threshold

CELL = Cell("sam_vit_b", "us_kidney", "box_each")
TABLE = '[sam_vit_b.us_kidney.box_each]\nvalue = 0.8\nselect = "first"\ntolerance = 0.05\nsource = "paper Fig. 2"\n'


def write(folder: Path, text: str) -> Path:
    """Write a thresholds file."""
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_threshold_by_hand(tmp_path: Path) -> None:
    """Value, choice of mask, tolerance, source; passes from value less tolerance on."""
    found = thresholds.read(write(tmp_path, TABLE))
    assert found == {CELL: Threshold(value=0.8, select="first", tolerance=0.05, source="paper Fig. 2")}
    assert found[CELL].floor == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("key", "scores", "words"),
    [
        ("", [(1, False), (7, True), (900, True)], "any number"),
        ("n = 7\n", [(7, True), (7, False)], "7"),
        ("at_most = 7\n", [(1, True), (7, True)], "whole data sets of at most 7"),
    ],
)
def test_which_scores_a_threshold_applies_to(
    tmp_path: Path, key: str, scores: list[tuple[int, bool]], words: str
) -> None:
    """All; those over n cases; those over a whole data set that is no larger than what was measured."""
    found = thresholds.read(write(tmp_path, TABLE + key))[CELL]
    others = {(n, whole) for n in (1, 6, 7, 8, 900) for whole in (True, False)} - set(scores)
    assert all(found.applies_to(n, whole=whole) for n, whole in scores)
    if key:
        applied_to = {(n, whole) for n, whole in others if found.applies_to(n, whole=whole)}
        assert applied_to == ({(6, True)} if "most" in key else set())
    assert found.cases == words


def test_several_cells_and_whole_numbers(tmp_path: Path) -> None:
    """0 and 1 may be written without a point."""
    text = TABLE + TABLE.replace("box_each", "box_all").replace("0.8", "1").replace("0.05", "0")
    found = thresholds.read(write(tmp_path, text))
    assert len(found) == 2
    assert found[Cell("sam_vit_b", "us_kidney", "box_all")].floor == 1


def test_an_empty_file_has_no_thresholds(tmp_path: Path) -> None:
    """Cells without one are scored and skipped."""
    assert thresholds.read(write(tmp_path, "")) == {}


MISTAKES = {
    "key": (
        TABLE.replace("source", "sauce"),
        "needs the keys select, source, tolerance, value, and may have n or at_most; found value, s",
    ),
    "missing": (
        TABLE.replace("tolerance = 0.05\n", ""),
        "needs the keys select, source, tolerance, value, and may have n or at_most; fou",
    ),
    "n": (TABLE + "n = 0\n", "n must be a whole number of cases, not 0"),
    "at_most": (TABLE + "at_most = 1.5\n", "at_most must be a whole number of cases, not 1.5"),
    "both": (TABLE + "n = 8\nat_most = 8\n", "n and at_most exclude each other."),
    "source": (TABLE.replace('"paper Fig. 2"', "3"), "source must be a string, not 3"),
    "extra": (
        TABLE + "m = 8\n",
        "needs the keys select, source, tolerance, value, and may have n or at_most; found value, select, toler",
    ),
    "select": (TABLE.replace("first", "best"), "select must be one of first, confident, oracle, not 'best'."),
    "text": (TABLE.replace("0.8", '"0.8"'), "value must be a number from 0 to 1, not '0.8'."),
    "bool": (TABLE.replace("0.8", "true"), "value must be a number from 0 to 1, not True."),
    "percent": (TABLE.replace("0.8", "80"), "value must be a number from 0 to 1, not 80."),
    "nan": (TABLE.replace("0.8", "nan"), "value must be a number from 0 to 1, not nan."),
    "negative": (TABLE.replace("0.05", "-0.05"), "tolerance must be a number from 0 to 1, not -0.05."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_file_and_table(tmp_path: Path, name: str) -> None:
    """A threshold that is not understood must not quietly pass."""
    text, message = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        thresholds.read(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'} [sam_vit_b.us_kidney.box_each]")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where"),
    [("a = 1\n", "[a]"), ("[a]\nb = 1\n", "[a.b]"), ("[a.b]\nvalue = 1\n", "[a.b.value]")],
)
def test_tables_of_other_depth_are_refused(tmp_path: Path, text: str, where: str) -> None:
    """The message shows how they are written."""
    with pytest.raises(ConfigError) as caught:
        thresholds.read(write(tmp_path, text))
    assert f"mine.toml {where} must be a table; thresholds are written as [MODEL.TASK.MODE]." in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, or not TOML."""
    with pytest.raises(ConfigError, match=r"thresholds file .*gone\.toml cannot be read: .*No such file"):
        thresholds.read(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"thresholds file .*mine\.toml cannot be read: "):
        thresholds.read(write(tmp_path, "[a"))


def test_what_ships_can_be_read() -> None:
    """And says where each value comes from."""
    assert all(threshold.source for threshold in paper.shipped().values())
