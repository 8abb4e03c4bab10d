"""Versions of a file that several processes may store at once: ``MODE-FINGERPRINT.NUMBER.parquet``.

The last one counts.
What cannot be read, and what is of another result than its name says, stays where it is.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.files.atomic import sweep

_DIGITS = 16  # of the fingerprint that are in a name
_ANY = f"[0-9a-f]{{1,{_DIGITS}}}"


def stem(mode: str, fingerprint: str) -> str:
    """Return the beginning of the names of all files of one result."""
    return f"{mode}-{fingerprint[:_DIGITS]}"


def path_of(folder: Path, mode: str, fingerprint: str, number: int) -> Path:
    """Return where the version with a number is stored."""
    return folder / f"{stem(mode, fingerprint)}.{number:06}.parquet"


def number_of(version: Path) -> int:
    """Return the number in the name of a version."""
    return int(version.name.split(".")[1])


def versions_in(folder: Path, mode: str, fingerprint: str | None = None) -> list[Path]:
    """Return what has the name of a version of one result, oldest first; without a fingerprint of all of a mode."""
    name = re.compile(rf"{re.escape(mode)}-{_ANY if fingerprint is None else fingerprint[:_DIGITS]}\.[0-9]+\.parquet")
    found = [path for path in folder.glob(f"{glob.escape(mode)}-*.parquet") if name.fullmatch(path.name)]
    return sorted(found, key=lambda path: (number_of(path), path.name))


def add_version(
    files: Callable[[], list[Path]], name: Callable[[int], Path], write: Callable[[Path], Iterable[Path]]
) -> None:
    """Write the next version of a file, and drop those that are in it.

    A version is made by a link, which fails if its number is taken; whoever comes second adds what the first one wrote
    and takes the next number.

    Args:
        files: returns the versions that there are, oldest first.
        name: returns the path of the version with a number.
        write: writes to a path what is stored together with what is new, and returns the versions that it read for
            that; raises `FileExistsError` if the path is taken.
    """
    while True:
        versions = files()
        ours = name(number_of(versions[-1]) + 1 if versions else 0)
        try:
            merged = write(ours)
        except FileExistsError:
            continue
        if files()[-1:] == [ours]:
            break  # else somebody was faster, and has not seen ours
    for older in merged:
        if not older.is_symlink():  # somebody else's arrangement, which is not ours to change
            older.unlink(missing_ok=True)
    sweep(ours.parent, ".*.parquet.*")


def is_gone(error: ResultsError) -> bool:
    """Whether a file could not be read because there is none: another process dropped it a moment ago."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
