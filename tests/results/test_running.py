"""Marks of evaluations in progress, and what names a process that ended without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptseg.results import running

CHILD = """
import os, sys
from pathlib import Path
from promptseg.results.running import marked
with marked(Path(sys.argv[1]), "crashes", "scans", ["lung-box_all", "lung-noc"]):
    os._exit(0)
"""


def _crash(results: Path) -> None:
    subprocess.run([sys.executable, "-c", CHILD, str(results)], check=True)


def test_a_mark_is_there_as_long_as_the_block(tmp_path: Path) -> None:
    """With what is evaluated, and of a process that runs; afterwards nothing is left, whatever ended the block."""

    def interrupted() -> None:
        with running.marked(tmp_path, "m", "d", ["t-box_all"]):
            [mark] = running.marks(tmp_path).values()
            assert (mark.model, mark.dataset, mark.cells, mark.process) == ("m", "d", ("t-box_all",), os.getpid())
            assert not mark.is_left_behind
            assert running.take_left_behind(tmp_path) == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ended_without_a_word_is_named_once(tmp_path: Path) -> None:
    """By model, data set and cells; another one that runs stays marked."""
    _crash(tmp_path)
    with running.marked(tmp_path, "lives", "scans", ["lung-noc"]):
        [mark] = running.take_left_behind(tmp_path)
        assert "evaluated crashes on scans (lung-box_all, lung-noc) ended without a word" in str(mark)
        assert running.take_left_behind(tmp_path) == []
        assert [mark.model for mark in running.marks(tmp_path).values()] == ["lives"]


def test_a_later_process_with_the_same_id_is_another_one(tmp_path: Path) -> None:
    """Ids are given again: what tells them apart is when they were started."""
    with running.marked(tmp_path, "m", "d", []):
        [path] = running.marks(tmp_path)
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "started": "an earlier boot"}))
        assert len(running.take_left_behind(tmp_path)) == 1


def test_marks_of_other_machines_and_what_is_no_mark_are_left_alone(tmp_path: Path) -> None:
    """Nothing is known of a process of another machine that shares the folder."""
    _crash(tmp_path)
    [path] = running.marks(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    for name, content in {"1-a.json": "{", "1-b.json": "[]", "1-c.json": '{"process": "x"}', "note": "mine"}.items():
        (path.parent / name).write_text(content)
    assert running.take_left_behind(tmp_path) == []
    assert len(list(path.parent.iterdir())) == 5


def test_a_mark_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    """A file is where the folder would be."""
    (tmp_path / running.FOLDER).write_text("")
    with running.marked(tmp_path, "m", "d", []):
        assert running.marks(tmp_path) == {}


def test_many_cells_are_counted(tmp_path: Path) -> None:
    """A sentence names some of them."""
    with running.marked(tmp_path, "m", "d", [f"t{i}-box_all" for i in range(9)]):
        [mark] = running.marks(tmp_path).values()
    assert "t5-box_all and 3 more)" in str(mark)
