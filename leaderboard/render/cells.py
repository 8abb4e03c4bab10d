"""The texts in a table's cells: means, intervals, ranks, leads over the floor, and marks of the notes below it."""

from __future__ import annotations

from collections.abc import Iterable

from promptseg.leaderboard.aggregate import NOTHING, Board
from promptseg.leaderboard.contamination import Overlap
from promptseg.leaderboard.standings import RankedModel, Standing
from promptseg.text import escape

OVERLAP_MARKS: dict[Overlap, str] = {"known": "†", "likely": "‡", "unknown": "", "none": ""}
_TO = "\N{NON-BREAKING HYPHEN}"  # an interval stays on one line of a narrow cell


class Notes:
    """The notes of one section, numbered in the order in which they are first used."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, notes: Iterable[str]) -> str:
        """Return the marks to set behind a number."""
        numbers = sorted(self._numbers.setdefault(note, len(self._numbers) + 1) for note in notes)
        return f"[{','.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        """Return the notes as a list under the table."""
        return [f"- [{number}] {escape(note)}" for note, number in self._numbers.items()] + [""] * bool(self._numbers)


def model_name(board: Board, model: str) -> str:
    """Return a model's name, with the remark that it is a floor."""
    return f"{escape(model)} (floor)" if board.is_floor(model) else escape(model)


def n_tasks(standing: Standing, unit: str = "") -> str:
    """Return how many tasks a mean is over, out of how many, and how many of them are samples."""
    count, total = len(standing.tasks), _total(standing)
    text = f"{count if count == total else f'{count} of {total}'}{unit}"
    if not standing.samples:
        return text
    return f"{text} (sample)" if len(standing.samples) == count else f"{text} ({len(standing.samples)} sampled)"


def _total(standing: Standing) -> int:
    return len(standing.tasks) + len(standing.other_tasks)


def mean_and_rank(standing: Standing, model: str, notes: Notes, *, interval: bool = False) -> str:
    """Return a model's mean over tasks with its rank and the marks of its notes, ``-`` where it has none."""
    place = standing.of(model)
    if place is None:
        return NOTHING
    rank = f", rank {possible_ranks(place)}" if place.ranks else ""
    return averaged(standing, place, interval=interval) + rank + notes.marks(place.notes)


def averaged(standing: Standing, place: RankedModel, *, interval: bool = True) -> str:
    """Return a mean, its interval, and why it is not compared with the others, if it is not."""
    text = f"{place.mean_iou:.3f}{OVERLAP_MARKS[place.overlap]}"
    if interval and place.ci95:
        text += f" {interval_text(place.ci95)}"
    remarks = ", ".join(_remarks(standing, place))
    return f"{text} ({remarks})" if remarks else text


def _remarks(standing: Standing, place: RankedModel) -> list[str]:
    """Return why a model is not compared; nothing where it is."""
    if place.compared:
        return []
    remarks = [] if place.n_tasks == _total(standing) else [f"{place.n_tasks} of {_total(standing)} tasks"]
    return remarks if place.same_cases else [*remarks, "other cases"]


def interval_text(ci95: tuple[float, float]) -> str:
    """Return an interval in brackets."""
    return f"({ci95[0]:.3f}{_TO}{ci95[1]:.3f})"


def possible_ranks(place: RankedModel) -> str:
    """Return a model's rank or range of ranks, ``-`` where it has none."""
    if place.ranks is None:
        return NOTHING
    first, last = place.ranks
    return str(first) if first == last else f"{first}{_TO}{last}"


def above_floor(place: RankedModel) -> str:
    """Return a model's lead over the best floor, with ``?`` where it may be chance, ``-`` where it has none."""
    if place.above_floor is None:
        return NOTHING
    return f"{place.above_floor:+.3f}{'?' if place.above_floor > 0 and not place.above_floor_significant else ''}"
