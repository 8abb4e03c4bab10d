"""Inputs of a figure, and its outcome: the figure, or why it could not be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from promptseg.leaderboard.figures import numbers
from promptseg.leaderboard.figures.numbers import STUDIED, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from promptseg.leaderboard.case_views import CellViews
    from promptseg.results.rows import CellResult


@dataclass(frozen=True, kw_only=True)
class FigureInputs:
    """The inputs of all figures.

    Attributes:
        results: all results at hand.
        views: opens the stored cases of a result, for figures that show images and masks.
        asked: the models that the user named, in that order; None for all.
    """

    results: Results
    views: Callable[[CellResult], CellViews]
    asked: Sequence[str] | None = None

    @property
    def models(self) -> list[str]:
        """The models to show: those the user named, or the study's and all that were evaluated."""
        if self.asked is not None:
            return list(self.asked)
        return list(dict.fromkeys((*STUDIED, *numbers.models_of(self.results))))


class Drawn(NamedTuple):
    """A figure and the name of its files."""

    name: str
    figure: Figure


class Missing(NamedTuple):
    """A figure that was not drawn, and why: in words without a full stop."""

    name: str
    why: str
