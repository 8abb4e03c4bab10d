"""From the board to Markdown: pure. Every text that came from plugins, data or results passes through `escape`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from promptseg.leaderboard.aggregate import NOTHING, Board, Entry
from promptseg.leaderboard.contamination import Overlap
from promptseg.leaderboard.standings import ModeStandings, RankedModel, Standing, of_mode, reference
from promptseg.specs import SELECTS
from promptseg.text import escape, table
from promptseg.verdicts.summary import NOC_CLICKS, NOC_IOUS

_MAX_TASKS = 5  # columns of numbers with intervals that a page of GitHub shows without scrolling
_MAX_MODES = 6
_CLICKS_SHOWN = (1, 3, 9)
_NOC = (
    f"mean clicks to IoU {' / '.join(f'{iou:.2f}' for iou in NOC_IOUS)} over the cases that reach it within "
    f"{NOC_CLICKS}, and the number of those that fail"
)
_SAME_NUMBER = 5e-4  # below the third decimal
_SEEN: dict[Overlap, str] = {"known": "†", "likely": "‡", "unknown": "", "none": ""}
_TO = "\N{NON-BREAKING HYPHEN}"  # an interval stays on one line of a narrow cell

_INTRODUCTION = """\
# Leaderboard

A number is a **mean IoU over the cases of a task**, behind it the 95 % bootstrap interval over patients (over cases
where patients are not known). Compare models down a column, never across prompt modes. A rank of 2 to 4 means that the
cases at hand leave open which of these the model has: where the ranks of two models overlap, either may be the better
one. The floors see the prompt and not the image: only what a model scores above them was read from pixels.
"""
_LEGEND = """\
## How to read it

- `rank`: the ranks that a paired comparison of all models of a table over the same cases leaves open, at 95 %
  confidence for the table as a whole. Floors have none, nor have models over other tasks or cases, nor tables of fewer
  than ten patients, nor means that a data set of a single patient is part of.
- `above floor`: what a model has more than the best floor, with `?` where that may be chance.
- `to oracle`: what the best of its candidates has more than the mask that counts.
- `cases` is the number of cases that a column speaks of. A cell over other cases says so with its own `n`.
- `sample`: only part of the data set's images was looked at (`--seg-limit`, or stopped early): no full score.
- `failed`: cases that could not be scored; they are not in the mean.
- No interval: fewer than two patients. `-`: not evaluated, or the model does not take this prompt.
- `†`: the model was trained on the data set of the task, so the number says little about data that it has not seen.
  `‡`: it probably was, by a collection that holds the data set or by another that shares images with it. A mean has
  the mark of any of its cells. A model whose training data are not published has no mark; they are `unknown` in the
  table of models.
- The mask that counts is the `confident` one (highest predicted IoU), in click modes the one that guides the clicks.
  `first` is candidate 0; `oracle` is the best against the target, an upper bound that no user gets.
"""
_SUMMARY = """\
## Summary

Mean over tasks, each task counting the same. Numbers without a remark are over the same tasks and cases as the others
in their column; `tasks` says how many tasks. The rest are not to be compared with them.
"""
_EMPTY = """\
# Leaderboard

No results yet. `pytest` evaluates what needs no download, `pytest -k NAME` a model, task or prompt mode.
"""


def render(board: Board) -> str:
    """Return the leaderboard as Markdown; equal boards give equal text."""
    if not board.entries:
        return "\n".join([_EMPTY, *unreadable(board)]) if board.unreadable else _EMPTY
    standings = {mode: of_mode(board, mode) for mode in board.modes()}
    parts = [_INTRODUCTION, *_warnings(board), *_summary(board, standings), _LEGEND]
    for mode, found in standings.items():
        parts += _mode(board, mode, found)
    parts += [*_provenance(board), *_merged(board), *unreadable(board)]
    return "\n".join(parts)


class _Notes:
    """Numbers the notes of one section, in the order in which they are first used."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, notes: Iterable[str]) -> str:
        """Return the marks to set behind a number."""
        numbers = sorted(self._numbers.setdefault(note, len(self._numbers) + 1) for note in notes)
        return f"[{','.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        """Return the notes as a list under the table."""
        return [f"- [{number}] {escape(note)}" for note, number in self._numbers.items()] + [""] * bool(self._numbers)


def _name(board: Board, model: str) -> str:
    return f"{escape(model)} (floor)" if board.is_floor(model) else escape(model)


def _balanced(items: Sequence[str], most: int) -> list[list[str]]:
    """Return the items in as few groups of at most ``most`` as possible, of nearly equal size."""
    groups = math.ceil(len(items) / most)
    edges = [round(i * len(items) / groups) for i in range(groups + 1)]
    return [list(items[a:b]) for a, b in itertools.pairwise(edges)]


def _warnings(board: Board) -> list[str]:
    """Return what a reader must know before any number."""
    lines = []
    outdated = sum(bool(e.changes) for e in board.entries)
    if outdated:
        lines.append(
            f"**{outdated} of {_cells(len(board.entries))} out of date**: made with something else than what is "
            "installed now. Notes say what; `pytest --seg-rerun`, asked for these cells, makes them anew."
        )
    if board.conflicts:
        lines.append(f"**{_cells(len(board.conflicts))} in conflict**: see [Conflicts](#conflicts).")
    return [f"{line}\n" for line in lines]


def _cells(count: int) -> str:
    return f"{count} {'cell' if count == 1 else 'cells'}"


# --- summary ------------------------------------------------------------------------------------------------


def _summary(board: Board, standings: Mapping[str, ModeStandings]) -> list[str]:
    notes = _Notes()
    overall = {mode: found.overall for mode, found in standings.items()}
    tables = [_summary_table(board, {mode: overall[mode] for mode in modes}, notes) for modes in _mode_groups(board)]
    return [_SUMMARY, *tables, *notes.lines()]


def _mode_groups(board: Board) -> list[list[str]]:
    """Return the modes of each table: static and iterative ones apart where there are many."""
    modes = board.modes()
    if len(modes) <= _MAX_MODES:
        return [modes]
    iterative = {entry.cell.mode for entry in board.entries if entry.clicks}
    apart = [[m for m in modes if m not in iterative], [m for m in modes if m in iterative]]
    return [group for kind in apart if kind for group in _balanced(kind, _MAX_MODES)]


def _summary_table(board: Board, columns: Mapping[str, Standing], notes: _Notes) -> str:
    rows = [
        [_name(board, model), *(_mean(standing, model, notes) for standing in columns.values())]
        for model in board.models_of()
        if any(standing.of(model) for standing in columns.values())
    ]
    counts = [_tasks(standing) for standing in columns.values()]
    return table(["model", *map(escape, columns)], [["*tasks*", *counts], *rows])


def _tasks(standing: Standing, unit: str = "") -> str:
    """Return the number of tasks that a mean is over, of how many, and how many of them are samples."""
    count, total = len(standing.tasks), _total(standing)
    text = f"{count if count == total else f'{count} of {total}'}{unit}"
    if not standing.samples:
        return text
    return f"{text} (sample)" if len(standing.samples) == count else f"{text} ({len(standing.samples)} sampled)"


def _total(standing: Standing) -> int:
    return len(standing.tasks) + len(standing.other_tasks)


def _mean(standing: Standing, model: str, notes: _Notes, *, interval: bool = False) -> str:
    """Return a mean over tasks with what must be said of it."""
    place = standing.of(model)
    if place is None:
        return NOTHING
    rank = f", rank {_ranks(place)}" if place.ranks else ""
    return _averaged(standing, place, interval=interval) + rank + notes.marks(place.notes)


def _averaged(standing: Standing, place: RankedModel, *, interval: bool = True) -> str:
    """Return a mean, its interval, and why it is not compared with the others, if it is not."""
    text = f"{place.mean_iou:.3f}{_SEEN[place.seen]}"
    if interval and place.ci95:
        text += f" {_interval(place.ci95)}"
    remarks = ", ".join(_remarks(standing, place))
    return f"{text} ({remarks})" if remarks else text


def _remarks(standing: Standing, place: RankedModel) -> list[str]:
    """Return why a place is not compared; nothing where it is."""
    if place.compared:
        return []
    remarks = [] if place.n_tasks == _total(standing) else [f"{place.n_tasks} of {_total(standing)} tasks"]
    return remarks if place.same_cases else [*remarks, "other cases"]


def _interval(ci95: tuple[float, float]) -> str:
    return f"({ci95[0]:.3f}{_TO}{ci95[1]:.3f})"


def _ranks(place: RankedModel) -> str:
    if place.ranks is None:
        return NOTHING
    first, last = place.ranks
    return str(first) if first == last else f"{first}{_TO}{last}"


def _above(place: RankedModel) -> str:
    if place.above_floor is None:
        return NOTHING
    return f"{place.above_floor:+.3f}{'?' if place.above_floor > 0 and not place.surely_above else ''}"


# --- one prompt mode ----------------------------------------------------------------------------------------

_Show = Callable[[Entry], str]


def _mode(board: Board, mode: str, standings: ModeStandings) -> list[str]:
    cells = board.of(mode)
    models = [*standings.overall.models, *(m for m in board.models_of(mode) if standings.overall.of(m) is None)]
    title = escape(mode)
    parts = [f"## {title}\n", _about(cells)]
    if len(standings.tasks) > 1:
        parts += [f"### {title}, all tasks\n", *_overall(board, standings.overall)]
    if len(standings.modalities) > 1:
        parts += [f"### {title} by modality\n", *_modalities(board, standings.modalities, models)]
    parts += [f"### {title} by task\n", *_scores(board, mode, models)]
    if any(place.ranks or place.above_floor is not None for s in standings.tasks.values() for place in s.places):
        ranked = [model for model in models if not board.is_floor(model)]
        parts.append(f"### {title} by task: rank / above floor / to oracle\n")
        parts += _tables(board, mode, ranked, lambda e: _standing(standings.tasks[e.cell.task], e))
    return parts + _details(board, mode, models)


def _overall(board: Board, standing: Standing) -> list[str]:
    """Return the table of the models over all tasks."""
    notes = _Notes()
    rows = [
        [
            _name(board, p.model),
            _ranks(p),
            _averaged(standing, p) + notes.marks(p.notes),
            _above(p),
            f"{p.to_oracle:+.3f}",
        ]
        for p in standing.places
    ]
    parts = [table(["model", "rank", f"mean over {_tasks(standing, ' tasks')}", "above floor", "to oracle"], rows)]
    if standing.other_tasks:
        left = ", ".join(map(escape, standing.other_tasks))
        parts.append(f"Left out of what is compared, since not all of these models have them: {left}.\n")
    if standing.of_one:
        alone = ", ".join(map(escape, standing.of_one))
        parts.append(f"No intervals and ranks, since a single patient tells nothing of others: {alone}.\n")
    return [*parts, *notes.lines()]


def _modalities(board: Board, standings: Mapping[str, Standing], models: Sequence[str]) -> list[str]:
    """Return tables of models and modalities."""
    notes = _Notes()
    tables = []
    for names in _balanced(list(standings), _MAX_TASKS - 1):
        shown = [model for model in models if any(standings[name].of(model) for name in names)]
        rows = [[_name(board, m), *(_mean(standings[name], m, notes, interval=True) for name in names)] for m in shown]
        counts = [_tasks(standings[name]) for name in names]
        tables.append(table(["model", *map(escape, names)], [["*tasks*", *counts], *rows]))
    return [*tables, *notes.lines()]


def _scores(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    cells, notes = board.of(mode), _Notes()
    columns = {task: reference(_column(cells, task)) for task in sorted({task for _, task in cells})}
    tables = _tables(board, mode, models, lambda e: _score(e, columns[e.cell.task], notes), cases=True)
    return [*tables, *notes.lines()]


def _standing(standing: Standing, entry: Entry) -> str:
    place = standing.of(entry.cell.model)
    return NOTHING if place is None else f"{_ranks(place)} / {_above(place)} / {place.to_oracle:+.3f}"


def _details(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    """Return what some modes have beside their scores: clicks, coverage, choices of mask."""
    cells, title = board.of(mode), escape(mode)
    parts = []
    clicks = _shown_clicks(cells.values())
    if clicks:
        parts.append(f"### {title} after {_listed(clicks)} clicks\n")
        parts += _tables(board, mode, models, lambda e: _curve(e, clicks))
    if any(entry.summary.noc for entry in cells.values()):
        parts.append(f"### {title}: {_NOC}\n")
        parts += _tables(board, mode, models, _noc)
    if any(entry.summary.coverage is not None for entry in cells.values()):
        parts.append(f"### {title}: part of the target that any mask covers\n")
        return [*parts, *_tables(board, mode, models, _coverage)]
    choices = _differing(board, mode, models)
    if choices:
        parts.append(f"### {title} by choice of mask: first / confident / oracle\n")
        parts += _tables(board, mode, choices, _choices)
    left_out = [_name(board, model) for model in models if model not in choices]
    if left_out:
        parts.append(f"The choice of mask makes no difference for {', '.join(left_out)}.\n")
    return parts


def _about(cells: Mapping[tuple[str, str], Entry]) -> str:
    first = next(iter(cells.values()))
    if first.summary.coverage is not None:
        return "Of all masks of an image the one that fits a target best counts, an upper bound.\n"
    if first.clicks:
        return (
            f"Mean over {max(first.clicks)} clicks, the {first.summary.select} mask guides and counts. "
            "Each case's IoU is averaged over its clicks first.\n"
        )
    return f"The {first.summary.select} mask counts.\n"


def _column(cells: Mapping[tuple[str, str], Entry], task: str) -> list[Entry]:
    return [entry for (_, name), entry in cells.items() if name == task]


def _tables(board: Board, mode: str, models: Sequence[str], show: _Show, *, cases: bool = False) -> list[str]:
    """Return one table of models and tasks, or several by modality where there are many tasks."""
    cells = board.of(mode)
    parts = []
    for title, tasks in _groups(cells.values()):
        shown = [model for model in models if any((model, task) in cells for task in tasks)]
        if not shown:
            continue
        rows = [[_name(board, model), *(_shown(cells.get((model, t)), show) for t in tasks)] for model in shown]
        if cases:
            rows.insert(0, ["*cases*", *(_cases(_column(cells, task)) for task in tasks)])
        if title:
            parts.append(f"**{escape(title)}**\n")
        parts.append(table(["model", *map(escape, tasks)], rows))
    return parts


def _groups(entries: Iterable[Entry]) -> list[tuple[str, list[str]]]:
    """Return title and tasks of each table: one without a title, or several by modality."""
    modality = {e.cell.task: e.modality for e in entries}
    if len(modality) <= _MAX_TASKS:
        return [("", sorted(modality))]
    groups: list[tuple[str, list[str]]] = []
    for name in sorted(set(modality.values())):
        parts = _balanced(sorted(task for task in modality if modality[task] == name), _MAX_TASKS)
        if len(parts) > 1:
            groups += [(f"{name} ({i} of {len(parts)})", part) for i, part in enumerate(parts, 1)]
        elif groups and len(groups[-1][1]) + len(parts[0]) <= _MAX_TASKS and not groups[-1][0].endswith(")"):
            groups[-1] = (f"{groups[-1][0]}, {name}", groups[-1][1] + parts[0])
        else:
            groups.append((name, parts[0]))
    return groups


def _shown(entry: Entry | None, show: _Show) -> str:
    if entry is None:
        return NOTHING
    if not entry.scored:
        return f"{entry.summary.n_errors} failed" if entry.summary.n_errors else "no cases"
    return show(entry)


def _cases(column: Sequence[Entry]) -> str:
    found = reference(column)
    if found is None:
        return "0"
    return f"{len(found.cases)} (sample)" if found.partial else str(len(found.cases))


def _score(entry: Entry, column: Entry | None, notes: _Notes) -> str:
    summary = entry.summary
    text = f"{summary.mean_iou:.3f}{_SEEN[entry.seen]}"
    if summary.ci95:
        text += f" {_interval(summary.ci95)}"
    remarks = []
    if column is not None and entry.cases != column.cases:
        remarks.append(f"n={summary.n}{' (sample)' if entry.partial else ''}")
    if summary.n_errors:
        remarks.append(f"{summary.n_errors} failed")
    return " ".join([text, ", ".join(remarks)]).strip() + notes.marks(entry.notes)


def _differing(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    """Return the models for which the choice of mask makes a difference somewhere."""
    different = {e.cell.model for e in board.of(mode).values() if e.scored and _spread(e) > _SAME_NUMBER}
    return [model for model in models if model in different]


def _spread(entry: Entry) -> float:
    values = [entry.summary.iou[choice] for choice in SELECTS]
    return max(values) - min(values)


def _choices(entry: Entry) -> str:
    return " / ".join(f"{entry.summary.iou[choice]:.3f}" for choice in SELECTS)


def _shown_clicks(entries: Iterable[Entry]) -> list[int]:
    """Return the clicks to show: 1, 3, 9 as far as there are so many, and the last."""
    clicks = {click for entry in entries for click in entry.clicks}
    return sorted(clicks & {*_CLICKS_SHOWN, max(clicks)}) if clicks else []


def _curve(entry: Entry, clicks: Sequence[int]) -> str:
    values = (entry.summary.iou_per_click or {}).get(entry.summary.select, ())
    found = dict(zip(entry.clicks, values, strict=False))
    return " / ".join(f"{found[click]:.3f}" if click in found else NOTHING for click in clicks)


def _noc(entry: Entry) -> str:
    found = (entry.summary.noc or {}).values()
    if not found:
        return NOTHING
    clicks = " / ".join(f"{noc.clicks:.1f}" if noc.n_reached else NOTHING for noc in found)
    return f"{clicks} ({' / '.join(str(noc.n_failures) for noc in found)} failed)"


def _coverage(entry: Entry) -> str:
    return NOTHING if entry.summary.coverage is None else f"{entry.summary.coverage:.3f}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


# --- provenance ---------------------------------------------------------------------------------------------


def _provenance(board: Board) -> list[str]:
    return [
        "## Where the numbers come from\n",
        "### Models\n",
        _facts(board.models),
        "### Data sets\n",
        _facts(board.datasets),
        "### Conditions\n",
        *conditions(board),
    ]


def conditions(board: Board) -> list[str]:
    """Return protocol, seed, device, versions, ... of the cells as a list."""
    return [*(f"- {escape(name)}: {_counted(values)}" for name, values in board.conditions.items()), ""]


def _facts(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table of facts without the columns that do not apply to any row."""
    columns = [c for c in rows[0] if any(row[c] != NOTHING for row in rows)]
    return table(columns, [[escape(row[c]) for c in columns] for row in rows], numbers=False)


def _counted(values: Mapping[str, int]) -> str:
    """Return the values with the number of cells of each, which a single value does not need."""
    if len(values) == 1:
        return escape(next(iter(values)))
    return ", ".join(f"{escape(v)} ({_cells(count)})" for v, count in values.items())


def _merged(board: Board) -> list[str]:
    """Return what came of several results of one cell, and what could not be checked; nothing where there is none."""
    parts: list[str] = []
    if board.conflicts:
        told = "The same model, data, code and settings, and other scores. Evaluate such a cell again with --seg-rerun."
        parts += ["## Conflicts\n", f"{told}\n", *(f"- {escape(line)}" for line in board.conflicts), ""]
    if board.versions:
        parts += ["## Other versions\n", *(f"- {escape(line)}" for line in board.versions), ""]
    if board.unchecked:
        names = ", ".join(map(escape, board.unchecked))
        parts += ["## Not checked\n", f"Whether cells of these models are out of date cannot be told here: {names}.\n"]
    return parts


def unreadable(board: Board) -> list[str]:
    """Return a section with the result files that had to be left out; nothing where there are none."""
    if not board.unreadable:
        return []
    lines = [f"- {escape(problem)}" for problem in board.unreadable]
    return ["## Left out\n", "These files in the results folder could not be used:\n", *lines, ""]
