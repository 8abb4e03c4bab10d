"""Our own cache folder: files that appear whole or not at all, their sha256, and small JSON records.

Only the standard library is imported here, so that asking whether a file is here costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from promptseg.errors import IntegrityError, UnavailableError

_CHUNK = 1 << 20
_STALE_SECONDS = 24 * 3600.0


def cache_dir() -> Path:
    """Return the folder of everything promptseg keeps: ``$PROMPTSEG_CACHE`` or ``~/.cache/promptseg``."""
    chosen = os.environ.get("PROMPTSEG_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "promptseg"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder on the file system of the cache, so that a rename out of it is atomic."""
    base = cache_dir() / "tmp"
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=base)
    except OSError as error:
        raise UnavailableError(
            f"The cache {cache_dir()} cannot be written ({error.strerror}); point PROMPTSEG_CACHE to a folder that can."
        ) from error
    _sweep(base)
    with folder as path:
        yield Path(path)


def _sweep(base: Path) -> None:
    """Remove what pulls that were killed more than a day ago left behind."""
    for entry in base.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``; empty where the file is missing, unreadable or not an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object so that a reader sees the old file or the new one, never a part."""
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


def digest_of(stream: IO[bytes]) -> str:
    """Return the sha256 of the rest of a stream, 64 hex digits."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def git_sha1_of(path: Path) -> str:
    """Return the name that git gives to a file's content, 40 hex digits; for small files, as it is not remembered."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits; read once, then remembered by path, size and mtime."""
    real = path.resolve()
    stat = real.stat()
    seen = read_json(_verified()).get(str(real))
    if isinstance(seen, dict) and (seen.get("size"), seen.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
        return str(seen.get("sha256"))
    with real.open("rb") as file:
        found = digest_of(file)
    _remember(real, stat, found)
    return found


def _verified() -> Path:
    return cache_dir() / "verified.json"


def _remember(real: Path, stat: os.stat_result, sha256: str) -> None:
    """Note a sha256 for `sha256_of`."""
    entry = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    with contextlib.suppress(OSError):  # a read-only cache costs time, not correctness
        update_json(_verified(), lambda data: data.__setitem__(str(real), entry))


def check_sha256(path: Path, expected: str | None, *, owner: str, remedy: str) -> str:
    """Return the sha256 of ``path``; raise `IntegrityError` where it is not ``expected`` (None: any will do)."""
    found = sha256_of(path)
    if expected is not None and found != expected:
        raise IntegrityError(
            f"{owner}: {path} is not the file that was pinned: expected sha256 {expected}, found {found} "
            f"({path.stat().st_size} bytes). {remedy}"
        )
    return found


def install(source: IO[bytes], target: Path, expected: str | None, *, owner: str) -> str:
    """Copy a stream to ``target``, which appears whole and checked or not at all; return its sha256.

    Raises:
        IntegrityError: the bytes do not have the sha256 ``expected``; nothing is stored.
        UnavailableError: the disk is full; nothing is stored.
    """
    with disk_space(owner), scratch() as folder:
        part = folder / target.name
        found = _copy(source, part)
        if expected is not None and found != expected:
            raise IntegrityError(
                f"{owner}: what was brought for {target.name} is not the file that was pinned: expected sha256 "
                f"{expected}, found {found} ({part.stat().st_size} bytes). Nothing was stored; bring the right file."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    _remember(target.resolve(), target.stat(), found)
    return found


def _copy(source: IO[bytes], part: Path) -> str:
    """Copy to the end, on to the disk, and return the sha256 of what was copied."""
    digest = hashlib.sha256()
    with part.open("wb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def disk_space(owner: str) -> Iterator[None]:
    """Turn a full disk into an `UnavailableError` that says which one and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UnavailableError(
            f"{owner}: no space left while storing its files (cache: {cache_dir()}). Free some, or point "
            "PROMPTSEG_CACHE and HF_HOME to folders on another disk."
        ) from error
