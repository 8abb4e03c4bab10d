"""The section of one prompt mode: all tasks together, by modality, and by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptseg.leaderboard.aggregate import NOTHING, Board, Entry
from promptseg.leaderboard.render.cells import (
    OVERLAP_MARKS,
    Notes,
    above_floor,
    averaged,
    interval_text,
    mean_and_rank,
    model_name,
    n_tasks,
    possible_ranks,
)
from promptseg.leaderboard.render.details import details
from promptseg.leaderboard.render.tables import MAX_TASKS, balanced, column_of, task_tables
from promptseg.leaderboard.standings import ModeStandings, Standing, reference
from promptseg.text import escape, table


def mode_section(board: Board, mode: str, standings: ModeStandings) -> list[str]:
    """Return the section of a prompt mode."""
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
        parts += task_tables(board, mode, ranked, lambda e: _standing(standings.tasks[e.cell.task], e))
    return parts + details(board, mode, models)


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


def _overall(board: Board, standing: Standing) -> list[str]:
    """Return the table of the models over all tasks."""
    notes = Notes()
    rows = [
        [
            model_name(board, p.model),
            possible_ranks(p),
            averaged(standing, p) + notes.marks(p.notes),
            above_floor(p),
            f"{p.to_oracle:+.3f}",
        ]
        for p in standing.places
    ]
    parts = [table(["model", "rank", f"mean over {n_tasks(standing, ' tasks')}", "above floor", "to oracle"], rows)]
    if standing.other_tasks:
        left = ", ".join(map(escape, standing.other_tasks))
        parts.append(f"Left out of what is compared, since not all of these models have them: {left}.\n")
    if standing.single_subject:
        alone = ", ".join(map(escape, standing.single_subject))
        parts.append(f"No intervals and ranks, since a single patient tells nothing of others: {alone}.\n")
    return [*parts, *notes.lines()]


def _modalities(board: Board, standings: Mapping[str, Standing], models: Sequence[str]) -> list[str]:
    """Return tables of models and modalities."""
    notes = Notes()
    tables = []
    for names in balanced(list(standings), MAX_TASKS - 1):
        shown = [model for model in models if any(standings[name].of(model) for name in names)]
        rows = [
            [model_name(board, m), *(mean_and_rank(standings[name], m, notes, interval=True) for name in names)]
            for m in shown
        ]
        counts = [n_tasks(standings[name]) for name in names]
        tables.append(table(["model", *map(escape, names)], [["*tasks*", *counts], *rows]))
    return [*tables, *notes.lines()]


def _scores(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    cells, notes = board.of(mode), Notes()
    columns = {task: reference(column_of(cells, task)) for task in sorted({task for _, task in cells})}
    tables = task_tables(board, mode, models, lambda e: _score(e, columns[e.cell.task], notes), cases=True)
    return [*tables, *notes.lines()]


def _score(entry: Entry, column: Entry | None, notes: Notes) -> str:
    summary = entry.summary
    text = f"{summary.mean_iou:.3f}{OVERLAP_MARKS[entry.seen]}"
    if summary.ci95:
        text += f" {interval_text(summary.ci95)}"
    remarks = []
    if column is not None and entry.cases != column.cases:
        remarks.append(f"n={summary.n}{' (sample)' if entry.partial else ''}")
    if summary.n_errors:
        remarks.append(f"{summary.n_errors} failed")
    return " ".join([text, ", ".join(remarks)]).strip() + notes.marks(entry.notes)


def _standing(standing: Standing, entry: Entry) -> str:
    place = standing.of(entry.cell.model)
    return NOTHING if place is None else f"{possible_ranks(place)} / {above_floor(place)} / {place.to_oracle:+.3f}"
