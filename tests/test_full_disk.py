"""A disk that is really full, at every place where it may fill up: what is there stays, the message says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.blocks import SPEC as BLOCKS
from support.project import Project

from promptseg.data import prepared
from promptseg.errors import PromptsegError, ResultsError, UnavailableError
from promptseg.files import cache
from promptseg.leaderboard.board import write_leaderboard
from promptseg.preparation import run
from promptseg.results.masks import MaskStore, encoded
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.segmenter import Prediction
from promptseg.specs import Cell

CELL, FINGERPRINT = Cell("bright", "squares", "box_all"), "ab" * 32
WAYS_OUT = "make room or choose another folder with --seg-results, and run the same command again"
PROMPTS = '[{"points_xy": [[12.0, 30.0]], "labels": [1], "box_xyxy": null}]'
PAGE = os.sysconf("SC_PAGE_SIZE")


class Disk:
    """A file system of 8 MB; a file of ballast fills it but for some pages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def leave(self, pages: int) -> None:
        """Let so many pages be free."""
        self.empty()
        free = os.statvfs(self.root).f_bavail - pages
        (self.root / "ballast").write_bytes(bytes(max(free, 0) * PAGE))

    def empty(self) -> None:
        """Take the ballast away."""
        (self.root / "ballast").unlink(missing_ok=True)

    def first_that_is_enough(self, attempt: Callable[[], object], check: Callable[[PromptsegError], None]) -> int:
        """Try with no page, one page, two, ... and check each refusal; return how many pages were enough."""
        for pages in range(200):
            self.leave(pages)
            try:
                attempt()
            except PromptsegError as error:
                check(error)
            else:
                self.empty()
                return pages
        raise AssertionError("200 pages were not enough")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a file system in memory, which takes root."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)  # errors may still hold a file open


def row(case_id: str, iou: float = 0.5) -> ResultRow:
    """Return a scored row."""
    return ResultRow(case_id=case_id, n_components=1, prompts=PROMPTS, iou_first=iou, iou_confident=iou, iou_oracle=iou)


def rows(count: int) -> tuple[ResultRow, ...]:
    """Return scored rows."""
    return tuple(row(f"case {i:04}", i / count) for i in range(count))


def names(folder: Path) -> list[str]:
    """Return all files below a folder but for the ballast."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "ballast")


def test_a_result_is_stored_whole_or_not_at_all(disk: Disk) -> None:
    """Wherever the space ends, the older result and the journals stay, and no scrap does."""
    store = ResultStore(disk.root / "results")
    older = CellResult(cell=CELL, fingerprint=FINGERPRINT, rows=rows(3), n_examined=3)
    newer = CellResult(cell=CELL, fingerprint=FINGERPRINT, rows=rows(2000), n_examined=2000)
    store.save(older)
    store.journal(CELL, FINGERPRINT).append("case 1999", newer.rows[1999:])
    before = names(disk.root)

    def check(error: PromptsegError) -> None:
        assert isinstance(error, ResultsError)
        assert WAYS_OUT in str(error)
        assert names(disk.root) == before
        assert store.load(CELL, FINGERPRINT) == older
        assert set(store.finished_cases(CELL, FINGERPRINT)) == {"case 1999"}

    assert disk.first_that_is_enough(lambda: store.save(newer), check) > 1
    assert store.load(CELL, FINGERPRINT) == newer
    assert store.finished_cases(CELL, FINGERPRINT) == {}


def test_a_journal_ends_with_a_whole_line(disk: Disk) -> None:
    """A line that does not fit is taken back, so that the next one, when there is room again, is no part of it."""
    store = ResultStore(disk.root / "results")
    journal = store.journal(CELL, FINGERPRINT)
    journal.append("first", [row("first")])
    disk.leave(3)
    for number in range(1000):
        try:
            journal.append(f"case {number}", [row(f"case {number}")])
        except ResultsError as error:
            assert WAYS_OUT in str(error)  # noqa: PT017 - how many fit is not known before
            break
    assert 5 < number < 100
    assert len(store.finished_cases(CELL, FINGERPRINT)) == 1 + number
    disk.empty()
    journal.append("last", [row("last")])
    assert len(store.finished_cases(CELL, FINGERPRINT)) == 2 + number


def test_masks_are_stored_whole_or_not_at_all(disk: Disk) -> None:
    """The older file and the journals stay; nothing is told, as nothing is unreadable."""
    pytest.importorskip("pycocotools")
    told: list[str] = []
    store = MaskStore(disk.root / "results", told.append)
    rng = np.random.default_rng(0)
    for case_id in ("a", "b"):
        store.journal(CELL, FINGERPRINT).append(
            case_id, encoded(case_id, 0, [Prediction(rng.random((3, 90, 90)) > 0.5)])
        )
        if case_id == "a":
            store.save(CELL, FINGERPRINT)
    before = names(disk.root)

    def check(error: PromptsegError) -> None:
        assert isinstance(error, ResultsError)
        assert WAYS_OUT in str(error)
        assert names(disk.root) == before
        assert store.cases(CELL, FINGERPRINT) == {"a", "b"}

    assert disk.first_that_is_enough(lambda: store.save(CELL, FINGERPRINT), check) > 1
    assert [saved.case_id for saved in store.read(CELL, FINGERPRINT)] == ["a"] * 3 + ["b"] * 3
    assert told == []


def test_the_board_is_the_old_or_the_new_one(disk: Disk, tmp_path: Path) -> None:
    """The message says that results are complete and which command writes the board elsewhere."""
    store = ResultStore(tmp_path / "results")
    store.save(
        CellResult(
            cell=CELL, fingerprint=FINGERPRINT, rows=rows(3), n_examined=3, provenance=Provenance.from_json({"seed": 0})
        )
    )
    board = disk.root / "LEADERBOARD.md"
    board.write_text("the old one")

    def check(error: PromptsegError) -> None:
        assert "`promptseg leaderboard " in str(error)
        assert (names(disk.root), board.read_text()) == (["LEADERBOARD.md"], "the old one")

    assert disk.first_that_is_enough(lambda: write_leaderboard([tmp_path / "results"], board), check) > 0
    assert "bright" in board.read_text()


def test_a_file_of_the_cache_is_there_or_not(disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights that did not fit leave nothing behind; the message names the variables that move the cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(disk.root / "cache"))
    (tmp_path / "weights").write_bytes(bytes(20 * PAGE))

    def install() -> None:
        with (tmp_path / "weights").open("rb") as source:
            cache.install(source, disk.root / "cache" / "w.pth", None, owner="sam_vit_b")

    def check(error: PromptsegError) -> None:
        assert isinstance(error, UnavailableError)
        assert "sam_vit_b: no space left" in str(error)
        assert "PROMPTSEG_CACHE" in str(error)
        assert names(disk.root) == []

    assert disk.first_that_is_enough(install, check) >= 20
    assert (disk.root / "cache" / "w.pth").stat().st_size == 20 * PAGE


def test_a_preparation_goes_on_when_there_is_room(
    disk: Disk, block_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is prepared in the end has the bytes of a preparation that always had room."""
    whole = run.prepare(BLOCKS, block_files)
    monkeypatch.setenv("PROMPTSEG_CACHE", str(disk.root / "cache"))

    def check(error: PromptsegError) -> None:
        assert isinstance(error, UnavailableError)
        assert "PROMPTSEG_CACHE" in str(error)
        assert prepared.find(BLOCKS) is None

    assert disk.first_that_is_enough(lambda: run.prepare(BLOCKS, block_files), check) > 3
    assert prepared.find(BLOCKS) == whole


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(project: Project, disk: Disk) -> None:
    """Masks, journals and JSON do not fit; the same command ends with the numbers of a free disk."""
    cells = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "point_largest,box_all")
    where = (f"--seg-results={disk.root / 'results'}", "--seg-save-masks")
    undisturbed = project.scores(*cells)
    project.calls("embed")
    not_written = "scores not written to *scores.json: *No space left on device"
    # Of five pages the mark of a run that is under way takes some, and gives them back before the scores are written.
    for pages, scores in ((0, not_written), (5, "scores: *scores.json")):
        disk.leave(pages)
        result = project.run(*cells, *where, f"--seg-json={disk.root / 'scores.json'}", code=1)
        result.stdout.fnmatch_lines([f"*No space left on device*{WAYS_OUT}*"])
        result.stdout.fnmatch_lines([scores])
        assert "INTERNALERROR" not in result.stdout.str()
        assert "Traceback" not in result.stdout.str()
    disk.empty()
    found = project.scores(*cells, *where)
    for name, cell in undisturbed.items():
        same = ("n", "iou", "mean_iou", "ci95", "outcome")
        assert [found[name][key] for key in same] == [cell[key] for key in same]
    assert not list(disk.root.rglob("*.journal"))
    assert 10 <= len(project.calls("embed")) <= 10 + 5  # an image in flight for each run that came so far
