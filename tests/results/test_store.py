"""The results folder: nothing is lost, whatever processes do to it at once, and unusable files stay."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.stored_results import CELL, FULL_ROW, VERSION_A, A, B, files, result, rows

from promptseg.errors import ResultsError
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.rows import ResultRow
from promptseg.results.store import MisplacedResultError, ResultStore, read_all
from promptseg.specs import Cell


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Return an empty results folder."""
    return ResultStore(tmp_path / "results")


def test_the_layout_of_the_folder(store: ResultStore) -> None:
    """MODEL/TASK/MODE.parquet, and the same file among the versions."""
    store.save(result())
    assert files(store.root) == [f"minisam/us_kidney/{name}" for name in (VERSION_A, "box_each.parquet")]
    assert store.path(CELL).samefile(store.path(CELL).parent / VERSION_A)
    assert store.load(CELL, A) == result()
    assert store.load(CELL, B) is None
    assert store.load(Cell("minisam", "us_kidney", "box_all"), A) is None


def test_files_can_be_read_by_others(store: ResultStore) -> None:
    """A temporary file is private; the result has the rights that the user's umask gives."""
    before = os.umask(0o022)
    try:
        store.save(result())
    finally:
        os.umask(before)
    assert store.path(CELL).stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_told_and_keeps_the_journal(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is kept and what to do; after making room the cases are there."""
    store.journal(CELL, A).append("c1", rows("c1"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ResultsError) as caught:
        store.save(result())
    message = str(caught.value)
    kept = store.path(CELL).parent / VERSION_A
    assert message.startswith(f"{kept} could not be written: [Errno 28] No space left on device.")
    assert "journals beside it: make room or choose another folder with --seg-results, and run the same" in message
    assert [name.rpartition(".")[2] for name in files(store.root)] == ["journal"]
    assert store.finished_cases(CELL, A) == {"c1": rows("c1")}


LIMITED = """
import resource, signal, sys
from pathlib import Path
from promptseg.errors import ResultsError
from promptseg.results.rows import ResultRow
from promptseg.results.store import ResultStore
from promptseg.specs import Cell
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
journal = ResultStore(Path(sys.argv[1])).journal(Cell("minisam", "us_kidney", "box_each"), "a" * 64)
journal.append("c1", [ResultRow(case_id="c1")])
try:
    journal.append("c2", [ResultRow(case_id="c2")])
except ResultsError as error:
    print(error)
"""


def test_a_disk_that_fills_up_within_a_line_is_told(store: ResultStore) -> None:
    """The system takes the first bytes of a line without complaint; the case must not count as kept."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(store.root)], capture_output=True, text=True, check=True)
    assert "could not be written: [Errno 28] No space left on device. Finished cases are kept in journals" in (
        done.stdout
    )
    assert "make room or choose another folder with --seg-results, and run the same command again" in done.stdout
    assert set(store.finished_cases(CELL, A)) == {"c1"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    """Neither result nor journal can be written; both say which path."""
    (tmp_path / "results").write_text("not a folder")
    store = ResultStore(tmp_path / "results")
    with pytest.raises(ResultsError, match=r"box_each-a+\.000000\.parquet could not be written"):
        store.save(result())
    with pytest.raises(ResultsError, match=r"\.journal could not be written"):
        store.journal(CELL, A).append("c1", rows("c1"))


def test_a_result_with_another_fingerprint_is_kept_and_comes_back(store: ResultStore) -> None:
    """Going back to an earlier seed finds its result, and the other is kept in turn."""
    store.save(result(A, iou=0.1))
    store.save(result(B, iou=0.2))
    both = [VERSION_A, VERSION_A.replace("a" * 16, "b" * 16), "box_each.parquet"]
    assert files(store.root / "minisam" / "us_kidney") == both
    assert store.load(CELL, B) == result(B, iou=0.2)
    assert store.load(CELL, A) == result(A, iou=0.1)
    assert read_parquet(store.path(CELL)).fingerprint == A
    assert files(store.root / "minisam" / "us_kidney") == both
    assert store.load(CELL, B) == result(B, iou=0.2)


def test_the_same_fingerprint_grows(store: ResultStore) -> None:
    """More cases of the same evaluation are not another result, and fewer take none away."""
    store.save(result(A, "c1"))
    store.save(result(A, "c1", "c2", "c3"))
    store.save(result(A, "c2", iou=0.9))
    assert [(row.case_id, row.iou_first) for row in read_parquet(store.path(CELL)).rows] == [
        ("c1", 0.5),
        ("c2", 0.9),
        ("c3", 0.5),
    ]
    newest = VERSION_A.replace("000000", "000002")
    assert files(store.root) == [f"minisam/us_kidney/{name}" for name in (newest, "box_each.parquet")]


def test_a_case_that_fails_now_does_not_take_its_earlier_result_away(store: ResultStore) -> None:
    """Running out of memory once is no reason to lose a score."""
    store.save(result(A, "c1"))
    failing = dataclasses.replace(result(A), rows=(ResultRow(case_id="c1", error="out of memory"), *rows("c2")))
    assert store.save(failing).rows == (*rows("c1"), *rows("c2"))


def test_a_journal_with_more_cases_than_the_result_stays(store: ResultStore) -> None:
    """Another process is still at work on a larger part of the same result."""
    journal = store.journal(CELL, A)
    journal.append("c1", rows("c1"))
    journal.append("c2", rows("c2"))
    store.save(result(A, "c1"))
    assert set(store.finished_cases(CELL, A)) == {"c1", "c2"}
    store.save(result(A, "c1", "c2"))
    assert store.finished_cases(CELL, A) == {}


def test_without_links_the_latest_is_a_copy(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have no hard links."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.save(result(A, "c1"))
    store.save(result(A))
    store.save(result(B))
    assert store.load(CELL, A) == result(A)
    assert read_parquet(store.path(CELL)) == result(A)


def test_the_latest_alone_is_enough(store: ResultStore) -> None:
    """A folder of MODE.parquet files that somebody handed on is a folder of results."""
    store.save(result(A))
    (store.root / "minisam" / "us_kidney" / VERSION_A).unlink()
    assert store.load(CELL, A) == result(A)


def test_what_a_killed_write_left_is_removed_a_day_later(store: ResultStore) -> None:
    """Not before: another process may be at it."""
    store.save(result(A, "c1"))
    versions = (store.path(CELL).parent / VERSION_A).parent
    old, new = (versions / f".box_each-{'a' * 16}.000001.parquet.{name}" for name in ("old", "new"))
    for scrap in (old, new):
        scrap.write_bytes(b"PAR1 half")
    os.utime(old, (0, 0))
    store.save(result(A, "c2"))
    assert (old.exists(), new.exists()) == (False, True)


def test_a_failing_write_never_leaves_the_folder_without_the_old_result(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result in place stays there until the new one is whole."""
    store.save(result(A))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(ResultsError):
        store.save(result(B))
    assert read_parquet(store.path(CELL)) == result(A)


def test_a_result_that_comes_back_keeps_the_journals_that_go_beyond_it(store: ResultStore) -> None:
    """A killed run had more cases than the result it meant to extend: they are not dropped with its return."""
    store.save(result(A, "c1"))
    store.journal(CELL, A).append("c2", rows("c2"))
    store.save(result(B))
    assert store.load(CELL, A) == result(A, "c1")
    assert store.finished_cases(CELL, A) == {"c2": rows("c2")}


def test_journals_of_all_processes_are_read_together(store: ResultStore) -> None:
    """Each writes its own; a case outside the task is finished too."""
    store.journal(CELL, A).append("c1", rows("c1"))
    store.journal(CELL, A).append("c2", ())
    store.journal(CELL, B).append("c3", rows("c3"))
    store.journal(Cell("minisam", "us_kidney", "box_all"), A).append("c4", rows("c4"))
    assert store.finished_cases(CELL, A) == {"c1": rows("c1"), "c2": ()}


def test_every_field_survives_a_journal(store: ResultStore) -> None:
    """A resumed run has the rows that the killed one had."""
    store.journal(CELL, A).append(FULL_ROW.case_id, [FULL_ROW])
    assert store.finished_cases(CELL, A) == {FULL_ROW.case_id: (FULL_ROW,)}


def test_failed_cases_are_tried_again(store: ResultStore) -> None:
    """A case that failed is not finished."""
    journal = store.journal(CELL, A)
    journal.append("c1", [ResultRow(case_id="c1", error="out of memory")])
    journal.append("c2", rows("c2"))
    assert set(store.finished_cases(CELL, A)) == {"c2"}


def test_saving_drops_the_journals_of_this_result_only(store: ResultStore) -> None:
    """Their cases are in the result now."""
    store.journal(CELL, A).append("c1", rows("c1"))
    store.journal(CELL, B).append("c1", rows("c1"))
    store.save(result(A))
    assert store.finished_cases(CELL, A) == {}
    assert store.finished_cases(CELL, B) == {"c1": rows("c1")}


def _journal_file(store: ResultStore) -> Path:
    journal = store.journal(CELL, A)
    journal.append("c1", rows("c1"))
    journal.append("c2", rows("c2"))
    (path,) = store.path(CELL).parent.glob(".journals/*.journal")
    return path


def test_a_last_line_that_was_cut_is_no_case(store: ResultStore) -> None:
    """Wherever a kill cut the line, the cases before it count and nothing is said."""
    path = _journal_file(store)
    content = path.read_bytes()
    for size in range(content.index(b"\n") + 1, len(content)):
        path.write_bytes(content[:size])
        assert set(store.finished_cases(CELL, A)) == {"c1"}


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x00", b"\xff\xfe", b"[]", b'"c2"', b'{"case_id": "c9"}', b'{"case_id": "c9", "rows": [{"dice": 1}]}'],
)
def test_a_garbage_line_is_reported_and_the_rest_is_read(store: ResultStore, garbage: bytes) -> None:
    """A damaged disk block or a journal of another release costs a case, not the journal."""
    path = _journal_file(store)
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, garbage, second, b""]))
    with pytest.warns(UserWarning, match=r"journal holds a line that is not a finished case; it is evaluated again"):
        assert set(store.finished_cases(CELL, A)) == {"c1", "c2"}


def test_an_empty_journal_is_no_trouble(store: ResultStore) -> None:
    """A process may be killed between making the file and the first line."""
    _journal_file(store).write_bytes(b"")
    assert store.finished_cases(CELL, A) == {}


def _write_often(root: str, fingerprint: str, times: int, cases: int = 300) -> None:
    store = ResultStore(Path(root))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(times):
            store.journal(CELL, fingerprint).append(f"case {i:04}", rows(f"case {i:04}"))
            store.finished_cases(CELL, fingerprint)
            store.save(result(fingerprint, *(f"case {k:04}" for k in range(cases))))
            store.load(CELL, fingerprint)


def _write_parts(root: str, name: str) -> None:
    store = ResultStore(Path(root))
    for i in range(8):
        mine = [f"{name}{i}{j}" for j in range(4)]
        ours = dataclasses.replace(result(A, *mine), n_examined=1000)
        assert set(mine) <= {row.case_id for row in store.save(ours).rows}


def test_processes_that_store_other_cases_at_once_lose_none(store: ResultStore) -> None:
    """Each adds to what the others stored a moment ago; in the end all is there, once."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_parts, args=(str(store.root), name)) for name in "pqr"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len({row.case_id for row in read_parquet(store.path(CELL)).rows}) == 3 * 8 * 4
    assert len(files(store.root)) == 2


def test_a_small_run_beside_a_large_one_takes_nothing_away(store: ResultStore) -> None:
    """Two processes with other limits on the same results folder: the larger sample is there in the end."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_often, args=(str(store.root), A, 20, n)) for n in (60, 300)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_parquet(store.path(CELL)).rows) == 300


@pytest.mark.parametrize("fingerprints", [(A, A), (A, B)], ids=["same", "different"])
def test_two_writers_at_once_end_with_whole_files(store: ResultStore, fingerprints: tuple[str, str]) -> None:
    """Two processes save and load the same cell at the same time: no error, no half file, no leftover."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_often, args=(str(store.root), f, 40)) for f in fingerprints]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_parquet(store.path(CELL)).rows) == 300
    assert not [name for name in files(store.root) if not name.endswith(".parquet")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # every file that is there can be read
        loaded = [store.load(CELL, fingerprint) for fingerprint in fingerprints]
    assert [len(one.rows) if one else 0 for one in loaded] == [300, 300]


# --- files that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["latest", "version"])
def test_an_unreadable_file_is_never_replaced(store: ResultStore, place: str) -> None:
    """Neither loading nor storing touches it; both name it and say to move it away, and then they work."""
    store.save(result())
    path = store.path(CELL) if place == "latest" else store.path(CELL).parent / VERSION_A
    path.unlink()
    path.write_bytes(b"hello, this is no Parquet")
    before = {name: (store.root / name).read_bytes() for name in files(store.root)}
    message = rf"{path.name} is not a readable result .*; move it away to evaluate again"
    with pytest.raises(ResultsError, match=message):
        store.load(CELL, A)
    with pytest.raises(ResultsError, match=message):
        store.save(result(A, "c3"))
    assert {name: (store.root / name).read_bytes() for name in files(store.root)} == before
    path.unlink()
    assert [row.case_id for row in store.save(result(A, "c3")).rows] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("fingerprint", [A, B])
def test_the_result_of_another_cell_is_never_replaced(store: ResultStore, fingerprint: str) -> None:
    """Somebody copied it under this name, and may have it nowhere else."""
    other = dataclasses.replace(result(fingerprint), cell=Cell("minisam", "us_kidney", "box_all"))
    write_parquet(store.path(CELL), other)
    message = r"box_each\.parquet holds the result of minisam-us_kidney-box_all; move it away"
    with pytest.raises(ResultsError, match=message):
        store.load(CELL, A)
    with pytest.raises(ResultsError, match=message):
        store.save(result())
    with pytest.raises(ResultsError, match=message):
        store.check(CELL)
    assert files(store.root) == ["minisam/us_kidney/box_each.parquet"]
    assert read_parquet(store.path(CELL)) == other


def test_a_result_that_was_copied_here_alone_is_not_lost_to_another(store: ResultStore) -> None:
    """A run with another seed takes its place as the latest; it is kept as a version, and comes back."""
    write_parquet(store.path(CELL), result(A))
    store.save(result(B))
    assert read_parquet(store.path(CELL)) == result(B)
    assert store.load(CELL, A) == result(A)


def test_all_latest_results_are_read_in_one_way(store: ResultStore) -> None:
    """Sorted, without versions and journals; what cannot be used is an error, or handed to the caller."""
    for mode in ("point_each", "box_all"):
        store.save(dataclasses.replace(result(), cell=Cell("m", "t", mode)))
    store.save(dataclasses.replace(result(), cell=Cell("a", "t", "box_all")))
    store.save(dataclasses.replace(result(B), cell=Cell("a", "t", "box_all")))
    store.journal(Cell("a", "t", "point_each"), A).append("c1", rows("c1"))
    read = [(path.relative_to(store.root).as_posix(), r.fingerprint[0]) for path, r in read_all(store.root)]
    assert read == [("a/t/box_all.parquet", "b"), ("m/t/box_all.parquet", "a"), ("m/t/point_each.parquet", "a")]
    assert [r.cell.model for _, r in read_all(store.root, wanted=lambda cell: cell.mode == "box_all")] == ["a", "m"]
    assert list(read_all(store.root / "nowhere")) == []
    shutil.copyfile(store.root / "a/t/box_all.parquet", store.root / "a/t/copied.parquet")
    (store.root / "a/t/torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"copied\.parquet holds the result of a-t-box_all; move it away"):
        list(read_all(store.root))
    skipped: dict[str, ResultsError] = {}
    assert len(list(read_all(store.root, lambda path, error: skipped.update({path.name: error})))) == 3
    assert sorted(skipped) == ["copied.parquet", "torn.parquet"]
    assert isinstance(skipped["copied.parquet"], MisplacedResultError)
