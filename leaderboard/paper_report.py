"""Measured and published numbers side by side, as Markdown: pure. `promptseg.leaderboard.paper` has those published."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from promptseg.leaderboard import paper
from promptseg.leaderboard.aggregate import NOTHING, Board, Entry
from promptseg.leaderboard.paper import GUIDES, MODELS, STATIC
from promptseg.leaderboard.render.provenance import conditions, unreadable
from promptseg.specs import SELECTS, Cell, MaskChoice
from promptseg.stats.means import mean
from promptseg.text import escape, table

_MODES = (*STATIC, *GUIDES)
_INTRODUCTION = """\
# Measured against published

Published: Mazurowski et al., *Segment anything model for medical image analysis: an experimental study*, Medical Image
Analysis 89 (2023) 102918. Each number is a mean IoU over the cases of a task, `difference` is measured less published.
`first` is candidate 0, `oracle` the best of the candidates. Compare the numbers of cases before the IoUs: other cases,
or a sample, are another measurement. D1, D2, ... are [known disagreements](#known-disagreements) that bear on a row.
"""
_NONE = "No result here has a published number to be compared with.\n"
_DISAGREEMENTS = """\
## Known disagreements

Of the study's text, its released code (commit 2775b73; v1 is `prompt_gen_and_exec_v1.py`, v2 is
`prompt_gen_and_exec_v2_allmode.py`) and its tables with one another, and what promptseg does.
"""


def is_comparable(cell: Cell) -> bool:
    """Whether a cell has a published number."""
    return bool(_selects(cell))


def _selects(cell: Cell) -> list[MaskChoice]:
    """Return the choices of mask to show: the guide of a click mode, all that were published for a static mode."""
    choices = (GUIDES[cell.mode],) if cell.mode in GUIDES else SELECTS
    return [select for select in choices if paper.published(cell, select) is not None]


def render(board: Board) -> str:
    """Return the comparison of a board's cells with the published numbers; equal boards give equal text."""
    entries = {entry.cell: entry for entry in board.entries if is_comparable(entry.cell)}
    parts = [_INTRODUCTION]
    for model in MODELS:
        parts += _model(model, [entry for cell, entry in entries.items() if cell.model == model])
    parts += ["## Conditions\n", *conditions(board)] if entries else [_NONE]
    parts += ["## Not evaluated\n", *_missing(entries), "", *unreadable(board), _DISAGREEMENTS, disagreements()]
    return "\n".join(parts)


def disagreements() -> str:
    """Return the known disagreements as a Markdown table; its columns are not padded, since the texts are long."""
    rows = [(d.name, d.text, d.code, d.tables, d.here) for d in paper.disagreements()]
    lines = [("", "text", "code", "tables", "here"), ("---",) * 5, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tasks() -> str:
    """Return the study's tasks under our names and its own, with the number of cases, as a Markdown table."""
    rows = [(f"`{name}`", _names(task), task.dataset, task.cases) for name, task in paper.tasks().items()]
    return table(("task", "in the tables", "data set", "cases"), rows, numbers=False)


def _names(task: paper.PublishedTask) -> str:
    return ", ".join(dict.fromkeys((task.in_modes, task.in_clicks)))


# --- one model ----------------------------------------------------------------------------------------------


def _model(model: str, entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return []
    parts = [f"## {model}\n", _about(model)]
    for mode in _MODES:
        of_mode = [entry for entry in entries if entry.cell.mode == mode]
        parts += _mode(model, mode, sorted(of_mode, key=_place)) if of_mode else []
    return parts


def _about(model: str) -> str:
    method = MODELS[model]
    if model == method.model:
        return f"The study's {method.name}.\n"
    return f"{method.name} as its authors run it. The published numbers belong to `{method.model}` (D26).\n"


def _place(entry: Entry) -> int:
    return list(paper.tasks()).index(entry.cell.task)


def _mode(model: str, mode: str, entries: Sequence[Entry]) -> list[str]:
    number = f" (mode {STATIC.index(mode) + 1})" if mode in STATIC else ""
    selects = _selects(entries[0].cell)
    header = [
        "task",
        "cases",
        "published cases",
        *(title for select in selects for title in _titles(select)),
        "remarks",
    ]
    rows = [_row(entry, selects) for entry in entries]
    rows += _mean_row(entries, selects)
    parts = [f"### {mode}{number}\n", *_affecting(model, mode), table(header, rows)]
    if mode in GUIDES:
        parts += [f"After each of the clicks that the {GUIDES[mode]} mask guides:\n", _curves(entries, GUIDES[mode])]
    return parts


def _titles(select: MaskChoice) -> tuple[str, str, str]:
    return select, "published", "difference"


def _affecting(model: str, mode: str) -> list[str]:
    """Return the line that names the disagreements which affect all tasks."""
    anywhere = Cell(model, "", mode)
    names = [d.name for d in paper.disagreements() if (d.models or d.modes) and not d.tasks and d.touches(anywhere)]
    return [f"See {', '.join(names)}.\n"] if names else []


def _row(entry: Entry, selects: Sequence[MaskChoice]) -> list[str]:
    published = [paper.published(entry.cell, select) for select in selects]
    measured = [entry.summary.iou[select] for select in selects]
    cases = [str(entry.summary.n), paper.tasks()[entry.cell.task].cases]
    return [entry.cell.task, *cases, *_numbers(measured, published), ", ".join(_remarks(entry))]


def _remarks(entry: Entry) -> Iterator[str]:
    yield from (d.name for d in paper.disagreements() if d.tasks and d.touches(entry.cell))
    if entry.partial:
        yield "sample"
    if entry.summary.n_errors:
        yield f"{entry.summary.n_errors} failed"
    yield from map(escape, entry.notes)


def _numbers(measured: Iterable[float], published: Iterable[float | None]) -> list[str]:
    """Return three columns for each pair: measured, published, difference."""
    return [text for m, p in zip(measured, published, strict=True) for text in _pair(m, math.nan if p is None else p)]


def _pair(measured: float, published: float) -> tuple[str, str, str]:
    return _number(measured), _number(published), _number(measured - published, "+")


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if math.isfinite(value) else NOTHING


def _mean_row(entries: Sequence[Entry], selects: Sequence[MaskChoice]) -> list[list[str]]:
    """Return a row with the means over the tasks, if there are several."""
    scored = [entry for entry in entries if entry.scored]
    if len(scored) < 2:
        return []
    measured = [mean(e.summary.iou[select] for e in scored) for select in selects]
    published = [mean(paper.published(e.cell, select) or 0.0 for e in scored) for select in selects]
    return [[f"*mean of {len(scored)} tasks*", "", "", *_numbers(measured, published), ""]]


# --- curves -------------------------------------------------------------------------------------------------


def _curves(entries: Sequence[Entry], select: MaskChoice) -> str:
    rows = [row for entry in entries if entry.scored for row in _curve_rows(entry, select)]
    return table(["task", "", *(str(click + 1) for click in range(paper.CLICKS))], rows)


def _curve_rows(entry: Entry, select: MaskChoice) -> list[list[str]]:
    """Return three rows: measured, published, difference."""
    measured = dict(zip(entry.clicks, (entry.summary.iou_per_click or {}).get(select, ()), strict=False))
    published = paper.curve(entry.cell, select) or ()
    columns = [_pair(measured.get(click, math.nan), value) for click, value in enumerate(published, 1)]
    kinds = ("measured", "published", "difference")
    return [[entry.cell.task if i == 0 else "", kind, *(c[i] for c in columns)] for i, kind in enumerate(kinds)]


# --- what is missing ----------------------------------------------------------------------------------------


def _missing(entries: Mapping[Cell, Entry]) -> list[str]:
    """Return a line for each model and set of missing tasks, with the modes that lack them."""
    lacking: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for model in MODELS:
        for mode in _MODES:
            wanted = [cell for task in paper.tasks() if is_comparable(cell := Cell(model, task, mode))]
            missing = tuple(cell.task for cell in wanted if cell not in entries)
            if missing:
                lacking[model, missing].append(mode)
    return [f"- {model}, {', '.join(modes)}: {_listed(missing)}" for (model, missing), modes in lacking.items()]


def _listed(missing: Sequence[str]) -> str:
    """Return the missing tasks in words, or all but those that are there if that is shorter."""
    there = [task for task in paper.tasks() if task not in missing]
    if not there:
        return "all tasks"
    return ", ".join(missing) if len(missing) < len(there) else f"all but {', '.join(there)}"
