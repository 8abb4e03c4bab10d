"""Files and folders that are written whole or not at all, and what killed writers left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.stored_results import files

from promptseg.files.atomic import atomic_file, atomic_folder, sweep


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
        "import os, signal, sys; from pathlib import Path; from promptseg.files.atomic import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.parquet")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "r.parquet").exists()


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


def test_what_was_left_behind_is_removed_a_day_later(tmp_path: Path) -> None:
    """Files and folders that match; younger ones may still be written to, others are not ours."""
    for name in (".a.old", ".a.new", "b.old"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "file").write_text("x")
    for path in tmp_path.iterdir():
        if path.suffix == ".old":
            os.utime(path, (0, 0))
    sweep(tmp_path, ".*")
    assert files(tmp_path) == [".a.new", "b.old"]
    assert not (tmp_path / ".folder.old").exists()
    sweep(tmp_path / "nowhere", "*")
