"""Tables of models and tasks: one, or several by modality where there are many tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from promptseg.leaderboard.aggregate import NOTHING, Board, Entry
from promptseg.leaderboard.render.cells import model_name
from promptseg.leaderboard.standings import reference
from promptseg.text import escape, table

MAX_TASKS = 5  # columns of numbers with intervals that a page of GitHub shows without scrolling
Show = Callable[[Entry], str]


def task_tables(board: Board, mode: str, models: Sequence[str], show: Show, *, cases: bool = False) -> list[str]:
    """Return one table of models and tasks, or several by modality where there are many tasks.

    Args:
        board: the board.
        mode: the prompt mode.
        models: the rows; a table leaves out models without a cell in it.
        show: the text of a scored cell.
        cases: whether a first row has the number of cases of each task.
    """
    cells = board.of(mode)
    parts = []
    for title, tasks in _groups(cells.values()):
        shown = [model for model in models if any((model, task) in cells for task in tasks)]
        if not shown:
            continue
        rows = [[model_name(board, model), *(_shown(cells.get((model, t)), show) for t in tasks)] for model in shown]
        if cases:
            rows.insert(0, ["*cases*", *(_n_cases(column_of(cells, task)) for task in tasks)])
        if title:
            parts.append(f"**{escape(title)}**\n")
        parts.append(table(["model", *map(escape, tasks)], rows))
    return parts


def _groups(entries: Iterable[Entry]) -> list[tuple[str, list[str]]]:
    """Return title and tasks of each table: one without a title, or several by modality."""
    modality = {e.cell.task: e.modality for e in entries}
    if len(modality) <= MAX_TASKS:
        return [("", sorted(modality))]
    groups: list[tuple[str, list[str]]] = []
    for name in sorted(set(modality.values())):
        parts = balanced(sorted(task for task in modality if modality[task] == name), MAX_TASKS)
        if len(parts) > 1:
            groups += [(f"{name} ({i} of {len(parts)})", part) for i, part in enumerate(parts, 1)]
        elif groups and len(groups[-1][1]) + len(parts[0]) <= MAX_TASKS and not groups[-1][0].endswith(")"):
            groups[-1] = (f"{groups[-1][0]}, {name}", groups[-1][1] + parts[0])
        else:
            groups.append((name, parts[0]))
    return groups


def balanced(items: Sequence[str], most: int) -> list[list[str]]:
    """Return the items in as few groups of at most ``most`` as possible, of nearly equal size."""
    groups = math.ceil(len(items) / most)
    edges = [round(i * len(items) / groups) for i in range(groups + 1)]
    return [list(items[a:b]) for a, b in itertools.pairwise(edges)]


def _shown(entry: Entry | None, show: Show) -> str:
    if entry is None:
        return NOTHING
    if not entry.scored:
        return f"{entry.summary.n_errors} failed" if entry.summary.n_errors else "no cases"
    return show(entry)


def column_of(cells: Mapping[tuple[str, str], Entry], task: str) -> list[Entry]:
    """Return the cells of a task, of a prompt mode's by (model, task)."""
    return [entry for (_, name), entry in cells.items() if name == task]


def _n_cases(column: Sequence[Entry]) -> str:
    entry = reference(column)
    if entry is None:
        return "0"
    return f"{len(entry.cases)} (sample)" if entry.partial else str(len(entry.cases))
