"""``scripts/checks/check_verify.py`` on small pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.script_modules import load_script, run_script

script = load_script("check_verify")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of six pictures with a disc of label 1 and a square of label 2 each."""
    for kind in ("images", "masks"):
        (tmp_path / "discs" / kind).mkdir(parents=True)
    for i in range(6):
        mask = np.zeros((64, 80), np.uint8)
        cv2.circle(mask, (30, 30), 9 + i, 1, -1)
        mask[40:60, 60:70] = 2
        cv2.imwrite(str(tmp_path / "discs/masks" / f"{i}.png"), mask)
        cv2.imwrite(str(tmp_path / "discs/images" / f"{i}.png"), mask * 100 + 10)
    return tmp_path


def test_every_label_of_a_picture_is_a_case(data: Path) -> None:
    """With the pixels of that label alone."""
    pictures = script.Pictures(data, 100)
    assert len(pictures.ids()) == 12
    assert pictures.labels("discs/3/2").sum() == 200
    assert len(script.Pictures(data, 5).ids()) == 5


def test_draws_are_caught_as_often_as_chance_has_it() -> None:
    """Of 1,000 cases 20 are edited, 200 drawn: 1.1 % of draws miss all; none is found if none deviates."""
    assert script.caught(np.ones(50, bool)) >= 95
    assert script.caught(np.zeros(50, bool)) == 0


def test_the_script_prints_both_tables(data: Path) -> None:
    """Of a floor, whose honest claim holds; the boxes, which it fills exactly, cannot be raised."""
    lines = run_script("check_verify", "--data", str(data), "--model", "box_fill").stdout.splitlines()
    [honest] = [line for line in lines if "this machine" in line]
    assert [field.strip() for field in honest.strip("|").split("|")][4:] == ["0"] * len(script.MARGINS)
    [small] = [line for line in lines if line.startswith("| box_each |   0.05 ")]
    assert small.count("100 %") == len(script.MARGINS)
