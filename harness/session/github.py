"""What a GitHub Actions run shows of the cells: annotations on the run, and the step's summary. Text in, text out.

The forms are GitHub's: workflow commands, ``::error title=TITLE::MESSAGE`` with ``%`` and line ends escaped and in the
title also ``:`` and ``,``, and Markdown for the file that ``GITHUB_STEP_SUMMARY`` names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from promptseg.text import escape, table

ANNOTATIONS = 10  # of each kind; GitHub drops what a step adds beyond them
SUMMARY_BYTES = 900_000  # GitHub refuses a summary of more than 1 MiB
_PADDING = 8  # bytes that a table puts round a cell
_OUTCOMES = ("failed", "passed", "skipped")
_HEADER = ("cell", "outcome", "n", "mean IoU", "95 % interval", "threshold", "against the baseline")

Entry = Mapping[str, Any]  # a cell of --seg-json


def workflow_commands(cells: Sequence[Entry]) -> Iterator[str]:
    """Yield an error for each failed cell and a warning for each drop that is unsure, ten of each at most."""
    failed = (_command("error", cell, cell["reason"]) for cell in cells if cell["outcome"] == "failed")
    unsure = (_command("warning", cell, found["reason"]) for cell in cells if (found := _unsure(cell)))
    yield from itertools.islice(failed, ANNOTATIONS)
    yield from itertools.islice(unsure, ANNOTATIONS)


def summary(cells: Sequence[Entry]) -> str:
    """Return the step's summary: counts, a row for each cell, those that failed first, and why they did.

    Of a run too large for GitHub the last rows are left out, and their number is told.
    """
    counts = Counter(cell["outcome"] for cell in cells)
    title = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    ordered = sorted(cells, key=lambda cell: (_OUTCOMES.index(cell["outcome"]), _name(cell)))
    room = SUMMARY_BYTES // 2
    rows = list(_within(map(_row, ordered), room))
    reasons = list(_within(map(_reason, (cell for cell in ordered if cell["outcome"] == "failed")), room))
    parts = [f"## promptseg: {title or 'no cell ran'}\n", table(_HEADER, rows)]
    if len(rows) < len(ordered):
        parts.append(f"{len(ordered) - len(rows)} more cells are in the scores (`--seg-json`).\n")
    return "\n".join([*parts, *("\n".join(lines) for lines in reasons)])


def _within(items: Iterator[Sequence[str]], room: int) -> Iterator[Sequence[str]]:
    """Yield the items until their texts take more than ``room`` bytes."""
    for item in items:
        room -= sum(len(text.encode()) + _PADDING for text in item)
        if room < 0:
            return
        yield item


def _name(cell: Entry) -> str:
    return f"{cell['model']}-{cell['task']}-{cell['mode']}"


def _unsure(cell: Entry) -> Entry | None:
    found: Entry | None = cell.get("baseline")
    return found if found and found["verdict"] == "warn" else None


def _command(kind: str, cell: Entry, message: str | None) -> str:
    title = _escaped(_name(cell)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escaped(message or '')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _row(cell: Entry) -> Sequence[str]:
    interval = " to ".join(_iou(end) for end in cell["ci95"] or ())
    found = cell.get("baseline") or {}
    against = f"{found['verdict']}{_change(found.get('delta'))}" if found else ""
    scored = str(cell["n"]), _iou(cell["mean_iou"]), interval, _iou(cell["threshold"]), against
    return [escape(_name(cell)), cell["outcome"], *scored]


def _iou(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _change(delta: float | None) -> str:
    return "" if delta is None else f" ({delta:+.4f})"


def _reason(cell: Entry) -> Sequence[str]:
    lines = [escape(line) for line in (cell["reason"] or "").splitlines()]
    return [f"**{escape(_name(cell))}**\n", "\\\n".join(lines), ""]
