"""Marks of evaluations in progress: what names a process that ended without a word, when somebody looks later.

A process that is killed, runs out of memory, or crashes or exits in compiled code cannot say what it was doing. So it
writes that down before: ``.running/PID-RANDOM.json`` in the results folder, while a model is evaluated on a data set.
What is there although its process is gone was left by one that ended so. Folders that begin with a dot are passed over
by readers of results. A mark that cannot be written is not written: it is no reason to fail.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from promptseg.files.atomic import read_json, write_json
from promptseg.text import listed

FOLDER = ".running"
_SHOWN = 6  # cells that a sentence names


@dataclass(frozen=True)
class Mark:
    """A model being evaluated on a data set.

    Attributes:
        model, dataset: names.
        cells: what is evaluated, as ``task-mode``.
        host: name of the machine.
        process: its id there.
        started: what tells the process from a later one with the same id; empty where the system does not say.
        since: local time at which the evaluation began.
    """

    model: str
    dataset: str
    cells: tuple[str, ...]
    host: str
    process: int
    started: str
    since: str

    @property
    def is_of_here(self) -> bool:
        """Whether the process was one of this machine; nothing is known of others."""
        return self.host == platform.node()

    @property
    def is_left_behind(self) -> bool:
        """Whether the process is known to have ended."""
        now = _started(self.process) if self.is_of_here else ""
        return now is None or ("" not in (now, self.started) and now != self.started)

    def __str__(self) -> str:
        """Return a sentence about a process that ended."""
        return (
            f"the process that evaluated {self.model} on {self.dataset} ({listed(self.cells, _SHOWN)}) ended without a "
            "word: it was killed, ran out of memory, or crashed or exited in compiled code "
            f"(process {self.process} on {self.host}, since {self.since}). Finished cases are kept; the same command "
            "evaluates the rest."
        )


@contextlib.contextmanager
def marked(results: Path, model: str, dataset: str, cells: Sequence[str]) -> Iterator[None]:
    """Have a mark in a results folder as long as the block takes, however Python leaves it."""
    path = results / FOLDER / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    mark = Mark(
        model=model,
        dataset=dataset,
        cells=tuple(cells),
        host=platform.node(),
        process=os.getpid(),
        started=_started(os.getpid()) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    with contextlib.suppress(OSError):
        write_json(path, asdict(mark))
    try:
        yield
    finally:
        _remove(path)


def marks(results: Path) -> dict[Path, Mark]:
    """Return the marks in a results folder by their files. What is no mark is left alone."""
    found = {path: _mark(read_json(path)) for path in sorted((results / FOLDER).glob("*-*.json"))}
    return {path: mark for path, mark in found.items() if mark is not None}


def take_left_behind(results: Path) -> list[Mark]:
    """Return the marks of processes of this machine that have ended, and remove them: each is reported once."""
    left = {path: mark for path, mark in marks(results).items() if mark.is_left_behind}
    for path in left:
        _remove(path)
    return list(left.values())


def _mark(entry: dict[str, object]) -> Mark | None:
    cells, process = entry.get("cells"), entry.get("process")
    if not isinstance(cells, list) or not isinstance(process, int):
        return None
    names = ("model", "dataset", "host", "started", "since")
    model, dataset, host, started, since = (str(entry.get(name, "")) for name in names)
    return Mark(model, dataset, tuple(map(str, cells)), host, process, started, since)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):  # others are running
        path.parent.rmdir()


def _started(process: int) -> str | None:
    """Return what identifies a running process beside its id; empty where only that it runs is known, None if not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold blanks and brackets
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    except (OSError, ValueError, IndexError):
        return _runs(process)


def _runs(process: int) -> str | None:
    if os.name != "posix":
        return ""  # signal 0 would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        return ""
    return ""
