"""The summary: each model's mean over all tasks, by prompt mode."""

from __future__ import annotations

from collections.abc import Mapping

from promptseg.leaderboard.aggregate import Board
from promptseg.leaderboard.render.cells import Notes, mean_and_rank, model_name, n_tasks
from promptseg.leaderboard.render.tables import balanced
from promptseg.leaderboard.standings import ModeStandings, Standing
from promptseg.text import escape, table

_MAX_MODES = 6
_SUMMARY = """\
## Summary

Mean over tasks, each task counting the same. Numbers without a remark are over the same tasks and cases as the others
in their column; `tasks` says how many tasks. The rest are not to be compared with them.
"""


def summary_section(board: Board, standings: Mapping[str, ModeStandings]) -> list[str]:
    """Return the section, with one table of models and prompt modes or several."""
    notes = Notes()
    overall = {mode: of_mode.overall for mode, of_mode in standings.items()}
    tables = [_summary_table(board, {mode: overall[mode] for mode in modes}, notes) for modes in _mode_groups(board)]
    return [_SUMMARY, *tables, *notes.lines()]


def _mode_groups(board: Board) -> list[list[str]]:
    """Return the modes of each table: static and iterative ones apart where there are many."""
    modes = board.modes()
    if len(modes) <= _MAX_MODES:
        return [modes]
    iterative = {entry.cell.mode for entry in board.entries if entry.clicks}
    apart = [[m for m in modes if m not in iterative], [m for m in modes if m in iterative]]
    return [group for kind in apart if kind for group in balanced(kind, _MAX_MODES)]


def _summary_table(board: Board, columns: Mapping[str, Standing], notes: Notes) -> str:
    rows = [
        [model_name(board, model), *(mean_and_rank(standing, model, notes) for standing in columns.values())]
        for model in board.models_of()
        if any(standing.of(model) for standing in columns.values())
    ]
    counts = [n_tasks(standing) for standing in columns.values()]
    return table(["model", *map(escape, columns)], [["*tasks*", *counts], *rows])
