"""GitHub Actions: annotations on a run for its cells, and the summary of its step. Pure: text in, text out.

The forms are GitHub's: workflow commands, ``::error title=TITLE::MESSAGE`` with ``%`` and line ends escaped and in the
title also ``:`` and ``,``, and Markdown for the file that ``GITHUB_STEP_SUMMARY`` names.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from promptseg.session.finished import Outcome, name
from promptseg.text import escape, table

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell

ANNOTATIONS = 10  # of each kind; GitHub drops what a step adds beyond them
SUMMARY_BYTES = 900_000  # GitHub refuses a summary of more than 1 MiB
_PADDING = 8  # bytes that a table puts round a cell
_OUTCOMES: tuple[Outcome, ...] = ("failed", "passed", "skipped")
_HEADER = ("cell", "outcome", "n", "mean IoU", "95 % interval", "threshold", "against the baseline")


def workflow_commands(cells: Sequence[FinishedCell]) -> Iterator[str]:
    """Yield an error for each failed cell and a warning for each drop that may be chance, ten of each at most."""
    errors = (_command("error", cell, cell["reason"]) for cell in cells if cell["outcome"] == "failed")
    compared = ((cell, baseline) for cell in cells if (baseline := cell.get("baseline")))
    warnings = (_command("warning", cell, found["reason"]) for cell, found in compared if found["verdict"] == "warn")
    yield from itertools.islice(errors, ANNOTATIONS)
    yield from itertools.islice(warnings, ANNOTATIONS)


def summary(cells: Sequence[FinishedCell]) -> str:
    """Return the step's summary: counts, a row for each cell, failed ones first, and why those failed.

    The last rows of a run that is too large for GitHub are left out, and counted.

    Args:
        cells: each with all keys (`promptseg.session.finished.complete`).
    """
    counts = Counter(cell["outcome"] for cell in cells)
    title = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    ordered = sorted(cells, key=lambda cell: (_OUTCOMES.index(cell["outcome"]), name(cell)))
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


def _command(kind: str, cell: FinishedCell, message: str | None) -> str:
    title = _escaped(name(cell)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escaped(message or '')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _row(cell: FinishedCell) -> Sequence[str]:
    interval = " to ".join(_iou(end) for end in cell["ci95"] or ())
    baseline = cell.get("baseline")
    against = f"{baseline['verdict']}{_change(baseline.get('delta'))}" if baseline else ""
    scored = str(cell["n"]), _iou(cell["mean_iou"]), interval, _iou(cell["threshold"]), against
    return [escape(name(cell)), cell["outcome"], *scored]


def _iou(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _change(delta: float | None) -> str:
    return "" if delta is None else f" ({delta:+.4f})"


def _reason(cell: FinishedCell) -> Sequence[str]:
    lines = [escape(line) for line in (cell["reason"] or "").splitlines()]
    return [f"**{escape(name(cell))}**\n", "\\\n".join(lines), ""]
