"""Our own cache folder: checked files that appear whole or not at all, and their sha256.

Only the standard library is imported here, so that asking whether a file is here costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from promptseg.errors import IntegrityError, UnavailableError
from promptseg.files.atomic import read_json, sweep, update_json

_CHUNK = 1 << 20


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
    sweep(base, "*")
    with folder as path:
        yield Path(path)


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
                f"{owner}: what was downloaded for {target.name} is not the file that was pinned: expected sha256 "
                f"{expected}, found {found} ({part.stat().st_size} bytes). Nothing was stored; get the right file."
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
