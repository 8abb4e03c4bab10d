"""The lines that a run ends with on the terminal: pure, without pytest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptseg.errors import remedy_for
from promptseg.session import finished, score_table
from promptseg.session.lines import Line, wrapped
from promptseg.text import counted, printable

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell

_SHOWN_WORDS = ("passed", "failed", "scored", "skipped")
_SHOWN_FAILURES = 20
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
_VERDICTS = ("pass", "warn", "fail", "refused", "missing")
_SHOWN_STOPS = 20
_ASK_BY = "-k, -m, --seg-models, --seg-tasks or --seg-modes"


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
        n_impossible: number of cells left out because their model does not take the prompts of their mode.
        failures: by cell name, the message of its failed test.
        notes: by model, why it is no competitor, such as ``floor``.
        width: of the terminal, in columns.
        notices: what a person should know of the stored results, a sentence each.
        problems: broken plugins, a sentence each.
    """

    cells: Sequence[FinishedCell]
    speeds: Sequence[str] = ()
    files: Sequence[str] = ()
    annotations: Sequence[str] = ()
    until_sure: bool = False
    n_left_out: int = 0
    n_impossible: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    width: int = 80
    notices: Sequence[str] = ()
    problems: Sequence[str] = ()


def lines(run: RunSummary) -> list[Line]:
    """Return all lines, in order: scores, failures, what is missing, files, verdicts, what may have gone unnoticed."""
    left_out = f"{counted(run.n_left_out, 'cell')} not selected: ask by {_ASK_BY}"
    return [
        *score_table.lines(run.cells, notes=run.notes, width=run.width),
        *_failures(run),
        *_missing(run.cells, run.width),
        *(_counts(run.cells) if run.cells or not run.speeds else ()),
        *(Line(f"speed: {figures}") for figures in run.speeds),
        *map(Line, run.files),
        *_baseline(run.cells),
        *_unchecked(run.cells),
        *map(Line, run.annotations),
        *(_stops(run.cells) if run.until_sure else ()),
        *([Line(left_out)] if run.n_left_out else ()),
        *impossible(run.n_impossible, run.width),
        *(Line(f"note: {notice}", is_warning=True) for notice in run.notices),
        *(Line(f"broken plugin: {problem}", is_warning=True) for problem in run.problems),
    ]


def _counts(cells: Sequence[FinishedCell]) -> Iterator[Line]:
    words = Counter(map(finished.word, cells))
    counts = ", ".join(f"{words[word]} {word}" for word in _SHOWN_WORDS if words[word])
    yield Line(f"cells: {counts or 'none ran'}")


def impossible(count: int, width: int) -> list[Line]:
    """Return how many cells were left out because they can never run; nothing where there are none."""
    if not count:
        return []
    text = f"{counted(count, 'cell')} left out: their models do not take the prompts of their modes (named by model \
and mode, such a cell is skipped with the reason)"
    return [*map(Line, wrapped(text, width))]


def _failures(run: RunSummary) -> Iterator[Line]:
    """Yield a line for each failed cell with the first sentence of its reason; all of it stands above."""
    failed = [cell for cell in run.cells if cell["outcome"] == "failed"]
    if not failed:
        return
    yield Line(f"failed: {counted(len(failed), 'cell')}", is_warning=True)
    for cell in failed[:_SHOWN_FAILURES]:
        name = finished.name(cell)
        reason = run.failures.get(name, cell["reason"] or "")
        for known in (_named(cell), name):  # as `CellScore.explain` and the fixtures begin
            reason = reason.removeprefix(f"{known}: ")
        text = f"  {name}: {first_sentence(reason)}"
        yield Line(text if len(text) <= run.width else f"{text[: run.width - 3]}...")
    if len(failed) > _SHOWN_FAILURES:
        yield Line(f"  and {len(failed) - _SHOWN_FAILURES} more (--seg-json has them all)")
    yield Line("")


def first_sentence(text: str) -> str:
    """Return the first sentence of a message, or its first line if that is shorter, without its full stop."""
    lines = printable(text).strip().splitlines()
    return _SENTENCE.split(lines[0], maxsplit=1)[0].removesuffix(".") if lines else ""


def _missing(cells: Iterable[FinishedCell], width: int) -> Iterator[Line]:
    """Yield what cells lacked: every name once, those of one reason together with what to do about it."""
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    n_cells: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        if missing := cell.get("missing"):
            key = missing["why"], missing["remedy"]
            groups[key].add(missing["name"])
            n_cells[key] += 1
    if not groups:
        return
    yield Line(f"not evaluated, since files are missing: {counted(n_cells.total(), 'cell')}", is_warning=True)
    for key in sorted(groups, key=lambda key: (-n_cells[key], key)):
        why, remedy = key
        names = sorted(filter(None, groups[key]))
        if len(names) == 1:
            remedy = remedy_for(names[0], remedy)
        head = f"{counted(n_cells[key], 'cell')}, {why}" + (":" if names else "")
        yield from map(Line, wrapped(printable(head), width, indent=2))
        yield from map(Line, wrapped(", ".join(names), width, indent=4))
        yield from map(Line, wrapped(printable(remedy), width, indent=4))
    yield Line("")


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
    if cells and not any(finished.is_scored(cell) or cell["outcome"] != "skipped" for cell in cells):
        yield Line("nothing was evaluated: none of the cells that were asked for could run", is_warning=True)
    elif cells and all(cell["outcome"] == "skipped" for cell in cells):
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
