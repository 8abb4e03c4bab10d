"""The scores of a run as tables for the terminal, models by tasks, one for each prompt mode: pure, without pytest.

A table that is wider than the terminal is split by tasks. A run of many cells shows the best models of each table, and
says what was left out: the leaderboard has everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptseg.session.lines import Line
from promptseg.text import counted

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell

MAX_ROWS = 60  # of all tables together, about a screen and a half
MAX_TABLES = 12
_MIN_ROWS = 3  # of a table, however many tables there are
_USUAL = "confident"  # choice of mask that a table need not name
_LEGEND = f"mean IoU of the {_USUAL} mask (or the one named), 95% interval, n"
_GAP = "  "
_NONE = "-"


@dataclass(frozen=True)
class _Entry:
    """One cell of a table: its texts, its mean and number of cases as numbers, and whether its test failed."""

    mean: str
    interval: str
    n: str
    value: float
    n_cases: int
    failed: bool


@dataclass(frozen=True)
class _Table:
    """The scores of one mode on some tasks: entries by model and task."""

    mode: str
    select: str | None
    tasks: tuple[str, ...]
    entries: Mapping[str, Mapping[str, _Entry]]

    @property
    def title(self) -> str:
        return _title(self.mode, self.select)


def lines(cells: Iterable[FinishedCell], *, notes: Mapping[str, str], width: int) -> list[Line]:
    """Return the tables of all cells that have a score.

    Args:
        cells: of the finished tests.
        notes: by model, why it is no competitor: ``floor``, ``sees the target``. Such models come first, dim, and are
            never the best.
        width: of the terminal, in columns.
    """
    entries = [(cell, _entry(cell, mean)) for cell in cells if (mean := cell.get("mean_iou")) is not None]
    if not entries:
        return []
    labels = {cell["model"]: _label(cell["model"], notes) for cell, _ in entries}
    tables = _split(entries, labels, width)
    shown = _first(tables)
    fits = sum(len(table.entries) for table in shown) <= MAX_ROWS
    rows = [_rows(table, notes, None if fits else max(_MIN_ROWS, MAX_ROWS // len(shown))) for table in shown]
    any_failed = any(entry.failed for _, entry in entries)
    found = [Line(_LEGEND + ("; ! failed" if any_failed else ""))]
    found += [line for table, models in zip(shown, rows, strict=True) for line in _lines(table, models, labels, notes)]
    left_out = sum(len(table.entries) for table in tables) - sum(map(len, rows))
    if left_out:
        found.append(Line(f"and {counted(left_out, 'more row')} of such tables: the leaderboard has them all"))
    return found


def _label(model: str, notes: Mapping[str, str]) -> str:
    return f"{model} ({notes[model]})" if model in notes else model


def _split(cells: Sequence[tuple[FinishedCell, _Entry]], labels: Mapping[str, str], width: int) -> list[_Table]:
    """Return a table for each mode and choice of mask, or several where its tasks do not fit beside one another."""
    groups: dict[tuple[str, str | None], dict[str, dict[str, _Entry]]] = defaultdict(lambda: defaultdict(dict))
    for cell, entry in cells:
        groups[cell["mode"], cell.get("select")][cell["model"]][cell["task"]] = entry
    tables = []
    for mode, select in sorted(groups, key=str):
        entries = groups[mode, select]
        first = max(len(_title(mode, select)), *(len(labels[model]) for model in entries))
        for tasks in _fitting(entries, width - first):
            here = {model: row for model, row in entries.items() if not row.keys().isdisjoint(tasks)}
            tables.append(_Table(mode, select, tasks, here))
    return tables


def _title(mode: str, select: str | None) -> str:
    return mode if select in (None, _USUAL) else f"{mode} ({select})"


def _entry(cell: FinishedCell, mean: float) -> _Entry:
    low_high, n = cell.get("ci95"), cell.get("n", 0)
    return _Entry(
        mean=f"{mean:.3f}",
        interval="-".join(f"{end:.3f}".removeprefix("0") for end in low_high) if low_high else _NONE,
        n=str(n),
        value=mean,
        n_cases=n,
        failed=cell["outcome"] == "failed",
    )


def _fitting(entries: Mapping[str, Mapping[str, _Entry]], room: int) -> list[tuple[str, ...]]:
    """Return the tasks, sorted, in groups whose columns fit into ``room``; each group has one at least."""
    groups: list[tuple[str, ...]] = []
    taken = 0
    for task in sorted({task for row in entries.values() for task in row}):
        needed = len(_GAP) + max(len(task), _width_of([row[task] for row in entries.values() if task in row]))
        if groups and taken + needed <= room:
            groups[-1] += (task,)
            taken += needed
        else:
            groups.append((task,))
            taken = needed
    return groups


def _width_of(entries: Sequence[_Entry]) -> int:
    return sum(_widths(entries)) + len("  ") + any(entry.failed for entry in entries)  # blanks and the mark


def _widths(entries: Sequence[_Entry]) -> tuple[int, int, int]:
    """Return the columns that means, intervals and numbers of cases of one task take."""
    texts = [(entry.mean, entry.interval, entry.n) for entry in entries]
    mean, interval, n = (max(map(len, column), default=0) for column in zip(*texts, strict=True))
    return mean, interval, n


def _first(tables: Sequence[_Table]) -> list[_Table]:
    """Return at most `MAX_TABLES`, in order: the first of every mode before the second of any."""
    seen: dict[str, int] = defaultdict(int)
    ranked = []
    for position, table in enumerate(tables):
        ranked.append((seen[table.mode], position))
        seen[table.mode] += 1
    return [tables[position] for position in sorted(position for _, position in sorted(ranked)[:MAX_TABLES])]


def _rows(table: _Table, notes: Mapping[str, str], room: int | None) -> list[str]:
    """Return the models: those with a note, then the others, those of most tasks and of the best mean first.

    ``room`` is how many of the others are shown, None for all.
    """

    def key(model: str) -> tuple[int, float, str]:
        values = [entry.value for task, entry in table.entries[model].items() if task in table.tasks]
        return -len(values), -sum(values) / len(values), model

    ordered = sorted(table.entries, key=key)
    return [*(m for m in ordered if m in notes), *[m for m in ordered if m not in notes][:room]]


def _best(table: _Table, task: str, notes: Mapping[str, str]) -> set[str]:
    """Return the models with the highest mean of a task as shown; none where fewer than two scored the same cases."""
    rivals = {m: row[task] for m, row in table.entries.items() if task in row and m not in notes}
    if len(rivals) < 2 or len({entry.n_cases for entry in rivals.values()}) > 1:
        return set()
    highest = max(entry.mean for entry in rivals.values())
    return {model for model, entry in rivals.items() if entry.mean == highest}


def _lines(table: _Table, models: Sequence[str], labels: Mapping[str, str], notes: Mapping[str, str]) -> list[Line]:
    """Return header and rows of one table."""
    first = max(len(table.title), *(len(labels[model]) for model in models))
    columns = {task: [row[task] for row in table.entries.values() if task in row] for task in table.tasks}
    widths = {task: max(len(task), _width_of(entries)) for task, entries in columns.items()}
    best = {task: _best(table, task, notes) for task in table.tasks}
    header = _GAP.join([table.title.ljust(first), *(task.ljust(widths[task]) for task in table.tasks)]).rstrip()
    found = [Line(header)]
    for model in models:
        text, bold = labels[model].ljust(first), []
        for task in table.tasks:
            text += _GAP
            entry = table.entries[model].get(task)
            if model in best[task] and entry is not None:
                bold.append((len(text), len(text) + len(entry.mean)))
            text += _text(entry, _widths(columns[task])).ljust(widths[task])
        found.append(Line(text.rstrip(), is_dim=model in notes, bold=tuple(bold)))
    return [*found, Line("")]


def _text(entry: _Entry | None, widths: tuple[int, int, int]) -> str:
    if entry is None:
        return _NONE
    mean, interval, n = widths
    parts = entry.mean.rjust(mean), entry.interval.center(interval), entry.n.rjust(n)
    return " ".join(parts) + ("!" if entry.failed else "")
