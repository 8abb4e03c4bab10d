"""The whole leaderboard: introduction, warnings, summary, legend, a section for each prompt mode, provenance."""

from __future__ import annotations

from promptseg.leaderboard.aggregate import Board
from promptseg.leaderboard.render.modes import mode_section
from promptseg.leaderboard.render.provenance import merged_sections, provenance_section, unreadable
from promptseg.leaderboard.render.summary import summary_section
from promptseg.leaderboard.standings import of_mode
from promptseg.text import counted

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
_EMPTY = """\
# Leaderboard

No results yet. `pytest` evaluates what needs no download, `pytest -k NAME` a model, task or prompt mode.
"""


def render(board: Board) -> str:
    """Return the leaderboard as Markdown; equal boards give equal text."""
    if not board.entries:
        return "\n".join([_EMPTY, *unreadable(board)]) if board.unreadable else _EMPTY
    standings = {mode: of_mode(board, mode) for mode in board.modes()}
    parts = [_INTRODUCTION, *_warnings(board), *summary_section(board, standings), _LEGEND]
    for mode, of_this in standings.items():
        parts += mode_section(board, mode, of_this)
    parts += [*provenance_section(board), *merged_sections(board), *unreadable(board)]
    return "\n".join(parts)


def _warnings(board: Board) -> list[str]:
    """Return what a reader must know before any number."""
    lines = []
    outdated = sum(bool(e.changes) for e in board.entries)
    if outdated:
        lines.append(
            f"**{outdated} of {counted(len(board.entries), 'cell')} out of date**: made with something else than what "
            "is installed now. Notes say what; `pytest --seg-rerun`, asked for these cells, makes them anew."
        )
    if board.conflicts:
        lines.append(f"**{counted(len(board.conflicts), 'cell')} in conflict**: see [Conflicts](#conflicts).")
    return [f"{line}\n" for line in lines]
