"""The sections on the origin of numbers: models, data sets, conditions, conflicts, other versions, broken files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptseg.leaderboard.aggregate import NOTHING, Board
from promptseg.text import counted, escape, table


def provenance_section(board: Board) -> list[str]:
    """Return the section on models, data sets and conditions."""
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
    return ", ".join(f"{escape(v)} ({counted(count, 'cell')})" for v, count in values.items())


def merged_sections(board: Board) -> list[str]:
    """Return sections on cells with several results and on cells that could not be checked, as far as there are any."""
    parts: list[str] = []
    if board.conflicts:
        advice = (
            "The same model, data, code and settings, and other scores. Evaluate such a cell again with --seg-rerun."
        )
        parts += ["## Conflicts\n", f"{advice}\n", *(f"- {escape(line)}" for line in board.conflicts), ""]
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
