"""Files under a result's name that are not that result: they are named, not trusted for their name, and stay."""

from __future__ import annotations

import dataclasses
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.stored_results import CELL, A, B, result, rows

from promptseg.errors import ResultsError
from promptseg.results.journal import append_line
from promptseg.results.masks import MaskStore
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.rows import CellResult
from promptseg.results.rules import RowRules
from promptseg.results.store import ResultStore
from promptseg.specs import Cell

OTHERS: list[CellResult] = [
    dataclasses.replace(result(A, iou=0.9), cell=Cell("sam", "us_kidney", "box_each")),
    dataclasses.replace(result(A, iou=0.9), cell=Cell("minisam", "us_nerve", "box_each")),
    dataclasses.replace(result(A, iou=0.9), cell=Cell("minisam", "us_kidney", "box_all")),
    result(B, iou=0.9),
    result("a" * 16 + "c" * 48, iou=0.9),
]


def version(store: ResultStore, number: int, digits: str = "a") -> Path:
    """Return the place of a version."""
    return store.path(CELL).parent / ".versions" / f"box_each-{digits * 16}.{number:06}.parquet"


@pytest.fixture
def notices() -> list[str]:
    """Return what a store reports."""
    return []


@pytest.fixture
def store(tmp_path: Path, notices: list[str]) -> ResultStore:
    """Return an empty results folder."""
    return ResultStore(tmp_path, notices.append)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("number", [0, 7])
def test_a_version_of_another_result_is_not_used(
    store: ResultStore, notices: list[str], other: CellResult, number: int
) -> None:
    """It is named, the cell has no result, what is evaluated then is stored beside it and is what is read."""
    path = version(store, number)
    write_parquet(path, other)
    before = path.read_bytes()
    assert store.load(CELL, A) is None
    assert str(path) in notices[0]
    assert "move it away" in notices[0]
    assert store.save(result(A, iou=0.3)) == result(A, iou=0.3)
    assert store.load(CELL, A) == read_parquet(store.path(CELL)) == result(A, iou=0.3)
    assert path.read_bytes() == before


def test_another_result_that_is_the_latest_too_stays_a_version(store: ResultStore) -> None:
    """As where it was written into the file that both names are of."""
    store.save(result(A))
    write_parquet(store.root / "other.parquet", OTHERS[0])
    content = (store.root / "other.parquet").read_bytes()
    store.path(CELL).write_bytes(content)
    assert store.load(CELL, A) is None
    store.save(result(A, iou=0.3))
    assert version(store, 0).read_bytes() == content
    assert read_parquet(store.path(CELL)) == result(A, iou=0.3)


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("kind", ["garbage", "empty", "folder", "pipe", "link"])
def test_a_version_that_cannot_be_read_is_never_dropped(store: ResultStore, kind: str, number: int) -> None:
    """Older or newer than one that can: the cell fails by the file's name, and nothing changes."""
    store.save(result(A, "c1"))
    store.save(result(A, "c1", "c2"))
    path = version(store, number)
    make: dict[str, Callable[[], object]] = {
        "garbage": lambda: path.write_bytes(b"PAR1 from a newer version"),
        "empty": path.touch,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("nowhere.parquet"),
    }
    make[kind]()
    before = sorted(path.parent.iterdir())
    attempts: list[Callable[[], object]] = [lambda: store.load(CELL, A), lambda: store.save(result(A, "c3"))]
    for attempt in attempts:
        with pytest.raises(ResultsError, match=rf"{path.name} is not a readable result .*move it away"):
            attempt()
    assert sorted(path.parent.iterdir()) == before
    assert read_parquet(store.path(CELL)) == result(A, "c1", "c2")


def test_versions_that_somebody_put_beside_each_other_are_united(store: ResultStore) -> None:
    """As two folders copied into one: no case is lost with the older number."""
    write_parquet(version(store, 3), result(A, "c1", "c2"))
    write_parquet(version(store, 4), result(A, "c3"))
    found = store.load(CELL, A)
    assert found is not None
    assert [row.case_id for row in found.rows] == ["c1", "c2", "c3"]
    assert read_parquet(store.path(CELL)) == found
    assert [path.name for path in version(store, 0).parent.iterdir()] == [version(store, 5).name]


def test_a_latest_with_more_cases_than_its_versions_is_kept(store: ResultStore) -> None:
    """As one that was copied over ours from another machine."""
    store.save(result(A, "c1"))
    store.path(CELL).unlink()
    write_parquet(store.path(CELL), result(A, "c2", "c3"))
    found = store.load(CELL, A)
    assert found is not None
    assert [row.case_id for row in found.rows] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing"])
def test_what_is_no_file_in_the_place_of_the_latest_stays(store: ResultStore, kind: str) -> None:
    """It is refused before anything is evaluated, by a run and by a gate."""
    path = store.path(CELL)
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere.parquet")
    before = os.lstat(path)
    attempts: list[Callable[[], object]] = [
        lambda: store.check(CELL),
        lambda: store.latest(CELL),
        lambda: store.save(result(A)),
    ]
    for attempt in attempts:
        with pytest.raises(ResultsError, match=r"box_each\.parquet is not a readable result"):
            attempt()
    assert (os.lstat(path).st_ino, os.lstat(path).st_mode) == (before.st_ino, before.st_mode)


def test_a_link_to_a_result_is_read_and_not_replaced(store: ResultStore, tmp_path: Path) -> None:
    """Its file neither; what is evaluated further is kept among the versions."""
    elsewhere = tmp_path / "elsewhere" / "mine.parquet"
    write_parquet(elsewhere, result(A, "c1"))
    content = elsewhere.read_bytes()
    store.path(CELL).parent.mkdir(parents=True)
    store.path(CELL).symlink_to("../../elsewhere/mine.parquet")
    assert store.load(CELL, A) == result(A, "c1")
    with pytest.raises(ResultsError, match=r"box_each\.parquet is a link, which is not replaced"):
        store.save(result(A, "c2"))
    assert store.path(CELL).is_symlink()
    assert elsewhere.read_bytes() == content


def test_cases_that_the_data_set_does_not_have_are_refused(store: ResultStore) -> None:
    """Where its ids are at hand, by the name of the file."""
    store.save(result(A, "c1", "stranger"))
    assert store.load(CELL, A) is not None
    with pytest.raises(ResultsError, match=r"000000\.parquet holds the case 'stranger', which the data set does not"):
        store.load(CELL, A, ["c1", "c2", "c3", "c4", "c5"])
    store.save(result(B, "c1"))
    with pytest.raises(ResultsError, match=r"says that 5 images were examined, and the data set has 1"):
        store.load(CELL, B, ["c1"])


# --- journals -----------------------------------------------------------------------------------------------


def row(**changes: Any) -> dict[str, Any]:
    """Return a row as a line holds it."""
    return {**rows("c2")[0].as_dict(), **changes}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rows": [row(iou_first=9.0)]}, "iou_first"),
    ({"rows": [row(iou_confident=None)]}, "iou_confident"),
    ({"rows": [row(iou_oracle=float("nan"))]}, "iou_oracle"),
    ({"rows": [row(iou_oracle=True)]}, "iou_oracle"),
    ({"rows": [row(iou_oracle="0.5")]}, "iou_oracle"),
    ({"rows": [row(case_id="c3")]}, "holds case 'c3'"),
    ({"rows": [row(case_id=2)]}, "holds case 2"),
    ({"case_id": 2, "rows": [row(case_id=2)]}, "'case_id' is 2"),
    ({"case_id": "", "rows": []}, "'case_id' is ''"),
    ({"case_id": "c9", "rows": []}, "which the data set does not have"),
    ({"rows": [row(click=-1)]}, "click"),
    ({"rows": [row(click=1)]}, "click"),
    ({"rows": [row(click=0.5)]}, "click"),
    ({"rows": [row(click=2**40)]}, "2"),
    ({"rows": [row(seconds=-2)]}, "seconds"),
    ({"rows": [row(dice=0.5)]}, "dice"),
    ({"rows": [row(prompts="[[")]}, "prompts"),
    ({"rows": [row(prompts=[])]}, "prompts"),
    ({"rows": [row(predicted_iou=[True])]}, "predicted_iou"),
    ({"rows": [row(metrics={"dice": {"first": 0.5, "best": 1}})]}, "metrics"),
    ({"rows": [row(), row()]}, "'c2' is there twice"),
    ({"rows": {"c2": row()}}, "no list"),
    ({"rows": [7]}, "int"),
    ({"of": ["sam", "us_kidney", "box_each-aaaaaaaaaaaaaaaa"], "rows": [row()]}, "it is of"),
    ({"lines": []}, "rows"),
]
KNOWN = RowRules(steps=0, case_ids=["c1", "c2", "c3"])


@pytest.mark.parametrize(("change", "reason"), WRONG)
def test_a_line_that_cannot_be_true_is_named_with_its_number(
    store: ResultStore, notices: list[str], change: dict[str, Any], reason: str
) -> None:
    """Its case is evaluated again, the lines round it are read, and the journal outlives the result."""
    store.journal(CELL, A).append("c1", rows("c1"))
    (path,) = (store.path(CELL).parent / ".journals").iterdir()
    append_line(path, {"case_id": "c2", **change})
    append_line(path, {"case_id": "c3", "rows": [row(case_id="c3")]})
    assert store.finished_cases(CELL, A, KNOWN) == {"c1": rows("c1"), "c3": rows("c3")}
    (notice,) = notices
    assert notice.startswith(f"{path} holds a line that is not a finished case; it is evaluated again: line 2, ")
    assert reason in notice
    if change not in ({"case_id": "c9", "rows": []}, {"rows": [row(click=1)]}):  # which only a run knows to be wrong
        store.save(result(A, "c1", "c2", "c3"))
        assert path.exists()


def test_a_line_that_is_nested_too_deeply_is_named(store: ResultStore, notices: list[str]) -> None:
    """No error of Python's escapes, whatever the checksum."""
    store.journal(CELL, A).append("c1", rows("c1"))
    (path,) = (store.path(CELL).parent / ".journals").iterdir()
    text = b'{"case_id": "c2", "rows": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with path.open("ab") as stream:
        stream.write(text[:-1] + f', "crc32": {zlib.crc32(text)}}}\n'.encode())
    assert store.finished_cases(CELL, A) == {"c1": rows("c1")}
    assert "line 2, RecursionError" in notices[0]


def test_a_journal_of_another_result_is_not_trusted_for_its_name(store: ResultStore, notices: list[str]) -> None:
    """Each line says whose it is."""
    other = Cell("sam", "us_kidney", "box_each")
    store.journal(other, A).append("c1", rows("c1", iou=0.9))
    (path,) = (store.path(other).parent / ".journals").iterdir()
    copy = store.path(CELL).parent / ".journals" / path.name
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    assert store.finished_cases(CELL, A) == {}
    assert f"{copy} holds a line" in notices[0]


def test_a_pipe_among_journals_is_named_and_stays(store: ResultStore, notices: list[str]) -> None:
    """Nobody waits for what may never be written."""
    pipe = store.path(CELL).parent / ".journals" / f"box_each-{'a' * 16}.1-2.journal"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    assert store.finished_cases(CELL, A) == {}
    store.save(result(A))
    assert pipe.exists()
    assert "a pipe or a device, not a file" in notices[0]


# --- masks --------------------------------------------------------------------------------------------------


def mask(**changes: Any) -> dict[str, Any]:
    """Return a mask as a line holds it."""
    first = {"case_id": "c2", "click": 0, "prompt": 0, "candidate": 0, "height": 2, "width": 3, "counts": "06"}
    return {**first, "predicted_iou": 0.5, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"click": -1},
        {"prompt": "0"},
        {"candidate": None},
        {"height": 0},
        {"width": 2.5},
        {"counts": 6},
        {"predicted_iou": float("inf")},
        {"case_id": "c3"},
        {"score": 1},
    ],
)
def test_a_mask_that_cannot_be_one_is_named(tmp_path: Path, notices: list[str], change: dict[str, Any]) -> None:
    """Its case has no masks then, and is evaluated again."""
    store = MaskStore(tmp_path, notices.append)
    store.journal(CELL, A).append("c1", [])
    (path,) = tmp_path.glob("*/*/.masks/*.journal")
    append_line(path, {"case_id": "c2", "masks": [mask(**change)]})
    assert store.cases(CELL, A) == {"c1"}
    assert f"{path} holds a line that is not a finished case; it is evaluated again: line 2, " in notices[0]


def test_masks_of_another_result_are_not_used(tmp_path: Path, notices: list[str]) -> None:
    """Whatever the name of their file; they stay."""
    store, other = MaskStore(tmp_path, notices.append), Cell("sam", "us_kidney", "box_each")
    store.journal(other, A).append("c2", [])
    (path,) = tmp_path.glob("*/*/.masks/*.journal")
    append_line(path, {"case_id": "c1", "masks": [mask(case_id="c1")]})
    store.save(other, A)
    (saved,) = store.versions(other, A)
    assert store.cases(other, A) == {"c1", "c2"}
    copy = tmp_path / CELL.model / CELL.task / ".masks" / saved.name
    copy.parent.mkdir(parents=True)
    shutil.copyfile(saved, copy)
    assert store.cases(CELL, A) == set()
    assert f"{copy} holds the masks of another result" in notices[0]
    assert copy.read_bytes() == saved.read_bytes()
