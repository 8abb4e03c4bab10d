"""The figures of ``test_speed`` as a section of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from promptseg.errors import ResultsError
from promptseg.results import speed
from promptseg.results.speed import Speed
from promptseg.text import escape, table

_HEADER = ("model", "device", "dtype and fast paths", "images/s", "ms/prompt", "peak memory", "date")
_INTRODUCTION = """\
## Speed

Images encoded in a second, time to decode a prompt, and peak memory (of the GPU, or of the whole process): figures of
`pytest -k test_speed` on the device named, to be compared on one device only.
"""


def read_speeds(folders: Iterable[Path]) -> tuple[list[Speed], list[str]]:
    """Return the figures in results folders, and what is wrong with each file that cannot be used.

    Where a model was measured more than once on one device in one way, the latest figures count.
    """
    latest: dict[tuple[str, ...], Speed] = {}
    problems: set[str] = set()
    for results in folders:
        for path in speed.files(results):
            try:
                read = speed.read(path)
            except ResultsError as error:
                problems.add(str(error).replace(str(path), path.relative_to(results).as_posix()))
            else:
                key = (read.model, read.device, read.dtype, *read.fast)
                latest[key] = max(
                    read, latest.get(key, read), key=lambda s: (s.date, s.images_per_second, -s.ms_per_prompt)
                )
    return list(latest.values()), sorted(problems)


def section(speeds: Sequence[Speed], problems: Sequence[str] = ()) -> str:
    """Return the section as Markdown, the fastest encoder of each device first; empty if nothing was measured."""
    if not speeds and not problems:
        return ""
    ordered = sorted(speeds, key=lambda s: (s.device, -s.images_per_second, s.model, s.dtype))
    parts = [_INTRODUCTION, table(_HEADER, map(_row, ordered))] if ordered else []
    return "\n".join([*parts, *(f"- {escape(problem)}" for problem in problems), *[""] * bool(problems)])


def _row(measured: Speed) -> list[str]:
    names = [escape(text) for text in (measured.model, measured.device, ", ".join([measured.dtype, *measured.fast]))]
    return [*names, *speed.figures(measured), escape(measured.date)]
