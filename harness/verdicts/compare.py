"""Compare two runs cell by cell and case by case: the numbers of ``promptseg compare``, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptseg.errors import ResultsError
from promptseg.specs import Cell, Stratum
from promptseg.stats import paired
from promptseg.text import escape, table
from promptseg.verdicts import gates
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.gates import BaselineVerdict, GateSettings, Outcome
from promptseg.verdicts.summary import DEFAULT_SELECT, select_of

SCHEMA = 1
_WORST = 10
_HEADER = ("cell", "n", "before", "after", "difference", "interval", "p", "p (Holm)", "smallest drop found", "verdict")
_SAMPLE = (
    "Sample: one of the runs examined only a part of the data set's images (`--seg-limit`, or stopped early).\n"
    "The verdict applies to the cases that both have, and to no others.\n"
)
_ORDER: tuple[Outcome, ...] = ("fail", "refused", "warn", "pass")


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Two runs compared.

    Attributes:
        before, after: the runs as the user named them.
        cells: those that both have, sorted; each is judged as by a gate against ``before``.
        p_holm: p-value of each cell that could be compared, adjusted for their number.
        only_before, only_after: cells that one of them has.
        samples: those of ``cells`` for which one of the runs examined only a part of the data set.
        allow_missing: whether the later run may lack cells.
    """

    before: str
    after: str
    cells: tuple[BaselineVerdict, ...]
    p_holm: Mapping[Cell, float]
    only_before: tuple[Cell, ...]
    only_after: tuple[Cell, ...]
    samples: frozenset[Cell] = frozenset()
    allow_missing: bool = False

    @property
    def fails(self) -> bool:
        """Whether a cell got worse, cannot be compared, or is missing though none may be."""
        return any(cell.fails for cell in self.cells) or bool(self.missing)

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells that the later run should have."""
        return () if self.allow_missing else self.only_before


def compare(
    before: Baseline, after: Baseline, *, max_drop: float, strata: Sequence[Stratum] = (), allow_missing: bool = False
) -> Runs:
    """Compare two runs under the choice of mask that the mode names, else under the confident one.

    A cell whose result cannot be used in one of them is refused, which fails the comparison.

    Raises:
        ResultsError: no cell is in both.
    """
    was, now = before.read(), after.read()
    old, new, problems = was.results, now.results, {**was.problems, **now.problems}
    if not (old.keys() & new.keys() or problems):
        raise ResultsError(f"{before.reference} and {after.reference} have no cell in common: nothing to compare.")
    cells = []
    for cell in sorted({*old.keys() & new.keys(), *problems}):
        settings = GateSettings(
            reference=before.reference,
            select=select_of(new[cell]) if cell in new else DEFAULT_SELECT,
            max_drop=max_drop,
            strata=tuple(strata),
        )
        cells.append(
            gates.refused(cell, settings, problems[cell])
            if cell in problems
            else gates.against(old[cell], new[cell], settings)
        )
    return Runs(
        before=before.reference,
        after=after.reference,
        cells=tuple(cells),
        p_holm=_adjusted(cells),
        only_before=tuple(sorted(old.keys() - new.keys() - problems.keys())),
        only_after=tuple(sorted(new.keys() - old.keys() - problems.keys())),
        samples=frozenset(c.cell for c in cells if any(run[c.cell].is_sample for run in (old, new) if c.cell in run)),
        allow_missing=allow_missing,
    )


def _adjusted(cells: Iterable[BaselineVerdict]) -> dict[Cell, float]:
    p_values = {cell.cell: cell.comparison.p for cell in cells if cell.comparison}
    return dict(zip(p_values, paired.holm(list(p_values.values())), strict=True))


def as_json(runs: Runs) -> dict[str, Any]:
    """Return the comparison for ``--json``."""
    return {
        "schema": SCHEMA,
        "before": runs.before,
        "after": runs.after,
        "fails": runs.fails,
        "cells": [_cell_json(runs, cell) for cell in runs.cells],
        "only_before": [dataclasses.asdict(cell) for cell in runs.only_before],
        "only_after": [dataclasses.asdict(cell) for cell in runs.only_after],
    }


def _cell_json(runs: Runs, relative: BaselineVerdict) -> dict[str, Any]:
    cell = relative.cell
    more = {"sample": cell in runs.samples, "p_holm": runs.p_holm.get(cell)}
    return {**dataclasses.asdict(cell), **relative.as_json(), **more}


def render(runs: Runs) -> str:
    """Return the comparison as Markdown; equal runs give equal text."""
    counts = {outcome: sum(c.outcome == outcome for c in runs.cells) for outcome in _ORDER}
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    parts = [f"# {escape(runs.after)} against {escape(runs.before)}\n", f"{len(runs.cells)} cells: {outcomes}.\n"]
    if runs.missing:
        parts.append(f"Missing, which fails: {', '.join(escape(cell.id) for cell in runs.missing)}\n")
    parts.append(table(_HEADER, [_row(runs, cell) for cell in _sorted(runs.cells)]))
    if runs.samples:
        parts.append(_SAMPLE)
    parts += [*_explained(runs.cells), *_worst(runs.cells)]
    for title, cells in (("before", () if runs.missing else runs.only_before), ("after", runs.only_after)):
        if cells:
            parts.append(f"Only {title}: {', '.join(escape(cell.id) for cell in cells)}\n")
    return "\n".join(parts)


def _sorted(cells: Iterable[BaselineVerdict]) -> list[BaselineVerdict]:
    return sorted(cells, key=lambda c: (_ORDER.index(c.outcome), c.cell))


def _row(runs: Runs, relative: BaselineVerdict) -> list[str]:
    comparison, p_holm = relative.comparison, runs.p_holm.get(relative.cell)
    if comparison is None or p_holm is None:
        return [escape(relative.cell.id), *[""] * (len(_HEADER) - 2), relative.outcome]
    interval = " to ".join(f"{end:+.4f}" for end in comparison.interval or ())
    detectable = f"{comparison.detectable:.4f}" if comparison.detectable is not None else ""
    means = f"{comparison.before:.4f}", f"{comparison.after:.4f}", f"{comparison.delta:+.4f}"
    tests = interval, f"{comparison.p:.2g}", f"{p_holm:.2g}", detectable
    n = f"{comparison.n}{' (sample)' if relative.cell in runs.samples else ''}"
    return [escape(relative.cell.id), n, *means, *tests, relative.outcome]


def _explained(cells: Iterable[BaselineVerdict]) -> Iterator[str]:
    """Yield a section with the whole message of every cell that did not pass."""
    not_passed = [cell for cell in _sorted(cells) if cell.outcome != "pass"]
    if not_passed:
        yield "## What did not pass\n"
    for relative in not_passed:
        yield "\n".join(f"- {line}" if i == 0 else f"  - {line}" for i, line in enumerate(_lines(relative))) + "\n"


def _lines(relative: BaselineVerdict) -> list[str]:
    return [escape(line) for line in f"{relative.outcome}: {relative.explain()}".splitlines()]


def _worst(cells: Iterable[BaselineVerdict]) -> Iterator[str]:
    """Yield a section with the cases that lost most."""
    pairs = [(pair, c.cell) for c in cells if c.comparison for pair in c.comparison.worst]
    if not pairs:
        return
    yield "## Cases that lost most\n"
    rows = [
        [escape(cell.id), escape(pair.case_id), f"{pair.before:.4f}", f"{pair.after:.4f}", f"{pair.delta:+.4f}"]
        for pair, cell in sorted(pairs, key=lambda item: (item[0].delta, item[1], item[0].case_id))[:_WORST]
    ]
    yield table(("cell", "case", "before", "after", "difference"), rows)
