"""Journals: a line of JSON for each finished case of a result that is not finished, appended in a single write."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from promptseg.errors import ResultsError
from promptseg.files.atomic import read_file
from promptseg.results.rows import ResultRow
from promptseg.results.rules import FaultError, shown

KEPT = (
    "Finished cases are kept in journals beside it: make room or choose another folder with --seg-results, and run the "
    "same command again."
)
"""What to do where a result or a journal could not be written."""
_CHECKSUM = "crc32"  # of the rest of a line
_PLACE = "of"  # which result the line is of
_SHOWN = 3  # lines in a message
_LONGEST = 200  # characters of an error that is not ours


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
    text = json.dumps({_PLACE: _place(path), **entry}).encode()
    line = text[:-1] + f', "{_CHECKSUM}": {zlib.crc32(text)}}}\n'.encode()  # as one object, written out once
    try:
        with _opened_to_append(path) as stream:
            start = stream.seek(0, os.SEEK_END)
            if stream.write(line) < len(line):  # a disk that fills up takes the beginning without complaint
                stream.truncate(start)  # else the next line would be lost with it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ResultsError(f"{path} could not be written: {error}. {KEPT}") from error


def _place(path: Path) -> list[str]:
    """Return which result a journal is of: the folders of model and task, prompt mode and fingerprint.

    Each line has it, since a file may be given another name, or be copied elsewhere.
    """
    return [*path.parts[-4:-2], path.name.split(".")[0]]


def _opened_to_append(path: Path) -> FileIO:
    try:
        return path.open("ab", buffering=0)
    except FileNotFoundError:  # the first line of a journal
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)


@dataclass(frozen=True)
class Entry:
    """One line of a journal: its number, its case, and what it holds of that."""

    number: int
    case_id: str
    items: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Contents:
    """What a journal holds.

    Attributes:
        entries: the lines that are finished cases.
        is_whole: whether these are all; a last line that a kill cut short is no finished case, and not missed.
    """

    entries: Sequence[Entry]
    is_whole: bool = True


def read_journal(
    journal: Path, key: str, check: Callable[[Sequence[Entry]], None], notify: Callable[[str], None]
) -> Contents:
    """Return what a journal holds; a journal that is gone is empty: another process finished the result.

    Args:
        journal: the file.
        key: under which a line holds its items.
        check: raises `ValueError`, `TypeError` or `OverflowError` unless the items of some lines can be true.
        notify: called with a sentence that names the lines which are not finished cases, and says what is wrong.
    """
    try:
        lines = read_file(journal).split(b"\n")[:-1]
    except FileNotFoundError:
        return Contents([])
    except OSError as error:
        notify(f"{journal} cannot be read ({error}); move it away. What it holds is evaluated again.")
        return Contents([], is_whole=False)
    entries: list[Entry] = []
    refused: dict[int, str] = {}
    place = _place(journal)
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_entry(number, line, key, place))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            refused[number] = _in_words(error)
    refused |= _refused(entries, check)
    if refused:
        some = [f"line {number}, {refused[number]}" for number in sorted(refused)[:_SHOWN]]
        more = [f"and {len(refused) - _SHOWN} more"] * (len(refused) > _SHOWN)
        notify(
            f"{journal} holds a line that is not a finished case; it is evaluated again: {'; '.join([*some, *more])}. "
            "The journal stays where it is: move it away."
        )
    return Contents([entry for entry in entries if entry.number not in refused], not refused)


def _entry(number: int, line: bytes, key: str, place: list[str]) -> Entry:
    """Return what a line holds. Raises an error of many kinds for what `append_line` did not write."""
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise FaultError("it is no JSON object")
    if entry.pop(_CHECKSUM) != zlib.crc32(json.dumps(entry).encode()):
        raise FaultError("another checksum than it was written with")
    if entry[_PLACE] != place:
        raise FaultError(f"it is of {shown(entry[_PLACE])}, not of {place}")
    case_id, items = entry["case_id"], entry[key]
    if not isinstance(case_id, str) or not case_id:
        raise FaultError(f"'case_id' is {shown(case_id)}, no text")
    if not isinstance(items, list):
        raise FaultError(f"{key!r} is {shown(items)}, no list")
    other = [item.get("case_id") for item in items if item.get("case_id") != case_id]
    if other:
        raise FaultError(f"it is of case {shown(case_id)} and holds case {shown(other[0])}")
    return Entry(number, case_id, items)


def _refused(entries: Sequence[Entry], check: Callable[[Sequence[Entry]], None]) -> dict[int, str]:
    """Return the numbers of the lines that a check refuses, and why; all are checked at once, then halves."""
    if not entries:
        return {}
    try:
        check(entries)
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        if len(entries) == 1:
            return {entries[0].number: _in_words(error)}
        half = len(entries) // 2
        return _refused(entries[:half], check) | _refused(entries[half:], check)
    return {}


def _in_words(error: Exception) -> str:
    if isinstance(error, FaultError):
        return str(error)
    return f"it has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"[:_LONGEST]
