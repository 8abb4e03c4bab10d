"""Journals: a line of JSON for each finished case of a result that is not finished, appended in a single write."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from promptseg.errors import ResultsError
from promptseg.results.rows import ResultRow

KEPT = (
    "Finished cases are kept in journals beside it: make room or choose another folder with --seg-results, and run the "
    "same command again."
)
"""What to do where a result or a journal could not be written."""
Item = TypeVar("Item")
_CHECKSUM = "crc32"  # of the rest of a line


class Journal:
    """The finished cases of one unfinished result, appended by this process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, case_id: str, rows: Sequence[ResultRow]) -> None:
        """Add one case in a single write; ``rows`` is empty for a case that does not belong to the task.

        Raises:
            ResultsError: it cannot be written.
        """
        append_line(self._path, {"case_id": case_id, "rows": [row.as_dict() for row in rows]})


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line of JSON to a journal in a single write. Raises `ResultsError` if it cannot be written."""
    text = json.dumps(entry).encode()
    line = text[:-1] + f', "{_CHECKSUM}": {zlib.crc32(text)}}}\n'.encode()  # as one object, written out once
    try:
        with _opened_to_append(path) as stream:
            start = stream.seek(0, os.SEEK_END)
            if stream.write(line) < len(line):  # a disk that fills up takes the beginning without complaint
                stream.truncate(start)  # else the next line would be lost with it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ResultsError(f"{path} could not be written: {error}. {KEPT}") from error


def _opened_to_append(path: Path) -> FileIO:
    try:
        return path.open("ab", buffering=0)
    except FileNotFoundError:  # the first line of a journal
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)


def entries_of(
    journal: Path, key: str, make: Callable[..., Item], notify: Callable[[str], None]
) -> Iterator[tuple[str, tuple[Item, ...]]]:
    """Yield the case and the items of each whole line: a last one that a kill cut short is no finished case.

    A journal that is gone has no lines: another process finished the result and dropped it.

    Args:
        journal: the file.
        key: under which a line holds its items.
        make: makes an item of the names and values that the line holds of it.
        notify: called with a sentence about each line that is not what `append_line` wrote.
    """
    try:
        lines = journal.read_bytes().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            if entry.pop(_CHECKSUM) != zlib.crc32(json.dumps(entry).encode()):
                raise ValueError("another checksum")
            case = entry["case_id"], tuple(make(**item) for item in entry[key])
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            notify(f"{journal} holds a line that is not a finished case; it is evaluated again.")
        else:
            yield case
