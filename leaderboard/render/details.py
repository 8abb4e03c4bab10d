"""The tables that only some prompt modes have: IoU after clicks, number of clicks, coverage, choices of mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promptseg.leaderboard.aggregate import NOTHING, Board, Entry
from promptseg.leaderboard.render.cells import model_name
from promptseg.leaderboard.render.tables import task_tables
from promptseg.specs import SELECTS
from promptseg.text import escape
from promptseg.verdicts.summary import NOC_CLICKS, NOC_IOUS

_CLICKS_SHOWN = (1, 3, 9)
_NOC = (
    f"mean clicks to IoU {' / '.join(f'{iou:.2f}' for iou in NOC_IOUS)} over the cases that reach it within "
    f"{NOC_CLICKS}, and the number of those that fail"
)
_SAME_NUMBER = 5e-4  # below the third decimal


def details(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    """Return the further tables of a mode, each under its title."""
    cells, title = board.of(mode), escape(mode)
    parts = []
    clicks = _shown_clicks(cells.values())
    if clicks:
        parts.append(f"### {title} after {_listed(clicks)} clicks\n")
        parts += task_tables(board, mode, models, lambda e: _curve(e, clicks))
    if any(entry.summary.noc for entry in cells.values()):
        parts.append(f"### {title}: {_NOC}\n")
        parts += task_tables(board, mode, models, _noc)
    if any(entry.summary.coverage is not None for entry in cells.values()):
        parts.append(f"### {title}: part of the target that any mask covers\n")
        return [*parts, *task_tables(board, mode, models, _coverage)]
    choices = _differing(board, mode, models)
    if choices:
        parts.append(f"### {title} by choice of mask: first / confident / oracle\n")
        parts += task_tables(board, mode, choices, _choices)
    left_out = [model_name(board, model) for model in models if model not in choices]
    if left_out:
        parts.append(f"The choice of mask makes no difference for {', '.join(left_out)}.\n")
    return parts


def _shown_clicks(entries: Iterable[Entry]) -> list[int]:
    """Return the clicks to show: those of 1, 3 and 9 that exist, and the last."""
    clicks = {click for entry in entries for click in entry.clicks}
    return sorted(clicks & {*_CLICKS_SHOWN, max(clicks)}) if clicks else []


def _curve(entry: Entry, clicks: Sequence[int]) -> str:
    values = (entry.summary.iou_per_click or {}).get(entry.summary.select, ())
    by_click = dict(zip(entry.clicks, values, strict=False))
    return " / ".join(f"{by_click[click]:.3f}" if click in by_click else NOTHING for click in clicks)


def _noc(entry: Entry) -> str:
    nocs = (entry.summary.noc or {}).values()
    if not nocs:
        return NOTHING
    clicks = " / ".join(f"{noc.clicks:.1f}" if noc.n_reached else NOTHING for noc in nocs)
    return f"{clicks} ({' / '.join(str(noc.n_failures) for noc in nocs)} failed)"


def _coverage(entry: Entry) -> str:
    return NOTHING if entry.summary.coverage is None else f"{entry.summary.coverage:.3f}"


def _differing(board: Board, mode: str, models: Sequence[str]) -> list[str]:
    """Return the models for which the choice of mask makes a difference somewhere."""
    different = {e.cell.model for e in board.of(mode).values() if e.scored and _spread(e) > _SAME_NUMBER}
    return [model for model in models if model in different]


def _spread(entry: Entry) -> float:
    values = [entry.summary.iou[choice] for choice in SELECTS]
    return max(values) - min(values)


def _choices(entry: Entry) -> str:
    return " / ".join(f"{entry.summary.iou[choice]:.3f}" for choice in SELECTS)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
