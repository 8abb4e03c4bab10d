"""Files that appear whole or not at all, small JSON records that several processes change, and what killed ones left.

Only the standard library is imported here, so that asking whether a file is here costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_STALE_SECONDS = 24 * 3600.0


@contextlib.contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder to write, which becomes ``target`` if the block ends well.

    Raises:
        OSError: it cannot be written, or by then there is such a folder that is not empty and not to be replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole, old = Path(temporary) / "new", Path(temporary) / "old"
        whole.mkdir()
        yield whole
        if replace and target.exists():
            target.rename(old)
        whole.rename(target)


@contextlib.contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that becomes ``path`` if the block ends well.

    Raises:
        FileExistsError: by then there is such a file, and ``replace`` is False.
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, path, replace=replace)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path, *, replace: bool) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())  # where some systems first say that the disk is full
    if replace or not linked(temporary, path):
        temporary.replace(path)


def linked(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``; return False where the file system has no links.

    Raises:
        OSError: ``target`` exists, or ``source`` does not.
    """
    try:
        target.hardlink_to(source)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        return False
    return True


def replace_by(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` (a copy where there are no links), at once or not at all.

    Raises:
        OSError: ``source`` is gone, or ``target`` cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        if not linked(source, temporary):
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # also where both were one file already: then replace() does nothing


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, or of the file that a link leads to; a pipe or a device is not waited for.

    Raises:
        FileNotFoundError: there is nothing of that name.
        OSError: there is, and it is not a file, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(f"it is a link to {path.readlink()}, where nothing is") from None
        raise
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}, not a file")
    return path.read_bytes()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all, and the folders that it needs. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sweep(folder: Path, pattern: str) -> None:
    """Remove files and folders that match a glob and were last changed more than a day ago.

    They were left behind by processes that were killed while they wrote; younger ones may still be written to.
    """
    for entry in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


# --- JSON records -------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``; empty where the file is missing, unreadable or not an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object so that a reader sees the old file or the new one, never a part. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # not by tempfile: the user's umask shall decide
    try:
        part.write_text(json.dumps(data, indent=1, sort_keys=True), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def update_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply ``change`` to the JSON object in ``path``; of two processes doing so, neither loses its entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_name(f".{path.name}.lock")):
        data = read_json(path)
        change(data)
        write_json(path, data)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock that ends with the process; without one where the system has none."""
    try:
        import fcntl
    except ImportError:  # Windows: the last writer wins
        yield
        return
    with path.open("a") as file:
        with contextlib.suppress(OSError):  # some network file systems refuse locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
