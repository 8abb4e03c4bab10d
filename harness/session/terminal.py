"""The lines that a run ends with on the terminal: pure, without pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from promptseg.session.finished import Outcome, is_scored
from promptseg.text import counted

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell

_SHOWN_OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped")
_VERDICTS = ("pass", "warn", "fail", "refused", "missing")
_SHOWN_STOPS = 20
_ASK_BY = "-k, -m, --seg-models, --seg-tasks or --seg-modes"


class Line(NamedTuple):
    """A line of the terminal, and whether it is shown as a warning."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run has to say at its end.

    Attributes:
        cells: of the finished tests, sorted.
        speeds: the figures of the speed tests, a line each.
        files: what was written where, or could not be, a line each.
        annotations: workflow commands for GitHub Actions, a line each.
        until_sure: whether cells were allowed to stop early.
        n_left_out: number of cells that nothing selected.
        notices: what a person should know of the stored results, a sentence each.
        problems: broken plugins, a sentence each.
    """

    cells: Sequence[FinishedCell]
    speeds: Sequence[str] = ()
    files: Sequence[str] = ()
    annotations: Sequence[str] = ()
    until_sure: bool = False
    n_left_out: int = 0
    notices: Sequence[str] = ()
    problems: Sequence[str] = ()


def lines(run: RunSummary) -> list[Line]:
    """Return all lines, in order: counts, figures, files, verdicts, and then what may have gone unnoticed."""
    left_out = f"{counted(run.n_left_out, 'cell')} not selected: ask by {_ASK_BY}"
    return [
        *(_counts(run.cells) if run.cells or not run.speeds else ()),
        *(Line(f"speed: {figures}") for figures in run.speeds),
        *map(Line, run.files),
        *_baseline(run.cells),
        *_unchecked(run.cells),
        *map(Line, run.annotations),
        *(_stops(run.cells) if run.until_sure else ()),
        *([Line(left_out)] if run.n_left_out else ()),
        *(Line(f"note: {notice}", is_warning=True) for notice in run.notices),
        *(Line(f"broken plugin: {problem}", is_warning=True) for problem in run.problems),
    ]


def _counts(cells: Sequence[FinishedCell]) -> Iterator[Line]:
    outcomes = Counter(cell["outcome"] for cell in cells)
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in _SHOWN_OUTCOMES if outcomes[outcome])
    yield Line(f"cells: {sum(map(is_scored, cells))} scored; {counts or 'none ran'}")


def _baseline(cells: Sequence[FinishedCell]) -> Iterator[Line]:
    """Yield how the cells compare with the baseline; nothing where there is none."""
    compared = [(cell, baseline) for cell in cells if (baseline := cell.get("baseline"))]
    if not compared:
        return
    counts = Counter[str](baseline["verdict"] for _, baseline in compared)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _VERDICTS if counts[verdict])
    yield Line(f"baseline {compared[0][1]['reference']}: {verdicts}")
    drops = [drop for _, baseline in compared if (drop := baseline.get("detectable_drop")) is not None]
    if drops:
        yield Line(f"minimum detectable drops: {min(drops):.4f} to {max(drops):.4f} IoU")
    else:
        yield Line("minimum detectable drops: unknown (too few subjects, no change, or too much of it)")
    samples = sum(bool(baseline.get("of_sample")) for _, baseline in compared)
    if samples:
        only = f"compared on a sample, since the baseline has no other cases: {counted(samples, 'cell')}"
        yield Line(only, is_warning=True)
    for cell, baseline in compared:
        if baseline["verdict"] == "warn":
            yield Line(f"warning: {_named(cell)}: {baseline['reason']}", is_warning=True)


def _unchecked(cells: Sequence[FinishedCell]) -> Iterator[Line]:
    """Yield that no cell could have failed, where that is so: pytest exits with 0 all the same."""
    if cells and all(cell["outcome"] == "skipped" for cell in cells):
        yield Line(
            "no cell was checked against a threshold or baseline, so this run cannot fail (-rs shows why)",
            is_warning=True,
        )


def _stops(cells: Sequence[FinishedCell]) -> Iterator[Line]:
    """Yield which cells stopped before their data set ended, and how many ``--seg-limit`` ended first."""
    stopped = [(cell, stop) for cell in cells if (stop := cell.get("until_sure"))]
    if stopped:
        yield Line(f"partial, stopped as soon as the verdict was settled: {counted(len(stopped), 'cell')}")
    for cell, stop in stopped[:_SHOWN_STOPS]:
        yield Line(f"{_named(cell)}: {stop['reason']}")
    if len(stopped) > _SHOWN_STOPS:
        yield Line(f"and {len(stopped) - _SHOWN_STOPS} more (--seg-json has them all)")
    checked = [cell for cell in cells if cell["outcome"] != "skipped"]
    ended = sum(bool(cell.get("partial")) and not cell.get("until_sure") for cell in checked)
    if ended:
        judged = "ended by --seg-limit before the verdict was settled, and judged by the cases so far"
        yield Line(f"partial, {judged}: {counted(ended, 'cell')}")


def _named(cell: FinishedCell) -> str:
    return f"{cell['model']} on {cell['task']}, {cell['mode']}"
