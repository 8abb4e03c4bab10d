"""The cells of finished tests, as ``--seg-json``, JUnit files and GitHub get them: pure, without pytest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

if TYPE_CHECKING:  # types alone: CellEntry comes with numpy, for which no session without cells should wait
    from promptseg.verdicts.score import CellEntry

    class FinishedCell(CellEntry, total=False):
        """A cell whose test has ended; without ``fingerprint`` where it got no score.

        ``reason`` says why the test was skipped or failed, and is None for one that passed. ``scored`` says whether
        there is a mean IoU: a cell that was skipped and is scored was not asserted. ``missing`` is there where files
        or a package were.
        """

        outcome: Outcome
        reason: str | None
        scored: bool
        missing: Missing

    class Missing(TypedDict):
        """What a cell lacked: a name (empty for what is no model or data set), why, and what to do for NAME."""

        name: str
        why: str
        remedy: str


Outcome = Literal["skipped", "passed", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""From the mildest to the worst; of several tests of one cell the worst counts."""


def name(cell: CellEntry) -> str:
    """Return a cell's name as in the id of its test."""
    return f"{cell['model']}-{cell['task']}-{cell['mode']}"


def is_scored(cell: CellEntry) -> bool:
    """Whether the cell has a score, however many of its cases failed."""
    return "fingerprint" in cell


def has_mean(cell: CellEntry) -> bool:
    """Whether the cell has a mean IoU: at least one case was scored."""
    return cell.get("mean_iou") is not None


def word(cell: FinishedCell) -> str:
    """Return the terminal's word for how a cell ended: ``scored`` if it has a score and nothing was asserted of it."""
    return "scored" if cell["outcome"] == "skipped" and has_mean(cell) else cell["outcome"]


def score_of(properties: Iterable[tuple[str, object]]) -> float | None:
    """Return the mean IoU among the plain properties of a test of one cell; None for other tests."""
    pairs = list(properties)
    means = [value for key, value in pairs if key == "seg_mean_iou"]
    if len(means) != 1 or [key for key, _ in pairs].count("seg_model") != 1:
        return None
    return means[0] if isinstance(means[0], float) else None


def replaces(cell: FinishedCell, known: FinishedCell | None) -> bool:
    """Whether a later test of a cell replaces what is ``known`` of it: with an outcome that is no milder."""
    return known is None or OUTCOMES.index(cell["outcome"]) >= OUTCOMES.index(known["outcome"])


def complete(cell: FinishedCell) -> FinishedCell:
    """Return a cell with the keys that all cells of ``--seg-json`` have, empty where it was never scored."""
    unscored: FinishedCell = {
        "n": 0,
        "select": None,
        "mean_iou": None,
        "iou": {"first": None, "confident": None, "oracle": None},
        "ci95": None,
        "threshold": None,
        "baseline": None,
        "until_sure": None,
    }
    return {**unscored, **cell, "scored": has_mean(cell)}


def properties(cell: CellEntry) -> Iterator[tuple[str, object]]:
    """Yield what a JUnit file holds of a cell: plain names that begin with ``seg_``, and values."""
    low, high = cell.get("ci95") or (None, None)
    baseline: Mapping[str, Any] = cell.get("baseline") or {}
    facts = {
        **{key: cell.get(key) for key in ("model", "task", "mode", "n", "n_errors", "select", "mean_iou")},
        "scored": has_mean(cell) or None,
        **{f"iou_{choice}": value for choice, value in cell.get("iou", {}).items()},
        "ci95_low": low,
        "ci95_high": high,
        **{key: cell.get(key) for key in ("threshold", "tolerance", "seed", "fingerprint")},
        "baseline": baseline.get("reference"),
        "baseline_verdict": baseline.get("verdict"),
        "baseline_delta": baseline.get("delta"),
    }
    yield from ((f"seg_{key}", value) for key, value in facts.items() if value is not None)
