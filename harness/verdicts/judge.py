"""The verdict on a cell: a pure function of its result and of the settings of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell, MaskChoice, Stratum
from promptseg.verdicts import gates, stopping
from promptseg.verdicts import summary as scores
from promptseg.verdicts.baselines import MAX_DROP, BaselineResults
from promptseg.verdicts.score import CellScore
from promptseg.verdicts.thresholds import Threshold


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the verdicts on a run's cells of one data set depend on beside their results.

    Attributes:
        order: ids of all images of the data set, in seeded order.
        selects: the choice of mask that counts in each cell.
        bounds: limits of each cell.
        seed: of prompts and order.
        thresholds: what cells must reach; a cell may have none.
        baseline: results that cells must not be worse than, None where the run has no baseline.
        n_cases: number of images that belong to a task, of the tasks of those cells that `counts_cases` names.
        until_sure: level at which a cell stops early, None where cells do not.
        max_drop: mean drop that is tolerated against the baseline.
        strata: kinds of strata that get gates of their own.
    """

    order: Sequence[str]
    selects: Mapping[Cell, MaskChoice]
    bounds: stopping.Bounds
    seed: int = 0
    thresholds: Mapping[Cell, Threshold] = field(default_factory=dict)
    baseline: BaselineResults | None = None
    n_cases: Mapping[str, int] = field(default_factory=dict)
    until_sure: float | None = None
    max_drop: float = MAX_DROP
    strata: tuple[Stratum, ...] = ()


def judge(result: CellResult, run: RunSettings) -> CellScore:
    """Return the score of a cell with the verdicts on it: early stopping, threshold and baseline.

    Cases beyond those that the run asks for, or needs, do not count.
    """
    cell, select, threshold = result.cell, run.selects[result.cell], run.thresholds.get(result.cell)
    is_examined = result.n_examined == len(run.order)
    stop = None
    if not is_examined:
        cases = examined_cases(result, run.order)
        stop = stopping.stop(run.order, stop_criteria(cell, run), run.bounds, cases)
    counted = set(stop.case_ids) if stop else first_cases(result, run.order, run.bounds.limit)
    rows = tuple(row for row in result.rows if row.case_id in counted)
    summary = scores.summarise(rows, select)
    other = threshold is not None and threshold.select != select
    return CellScore(
        cell=cell,
        summary=summary,
        threshold=threshold,
        asserted=scores.summarise(rows, threshold.select) if threshold and other else summary,
        seed=run.seed,
        max_errors=run.bounds.max_errors,
        n_images=len(run.order),
        whole=is_examined and len(rows) == len(result.rows),
        fingerprint=result.fingerprint,
        provenance=result.provenance,
        relative=_against_baseline(dataclasses.replace(result, rows=rows), run),
        stop=stop,
    )


def _against_baseline(result: CellResult, run: RunSettings) -> gates.BaselineVerdict | None:
    if run.baseline is None:
        return None
    settings = gates.GateSettings(
        reference=run.baseline.reference,
        select=run.selects[result.cell],
        max_drop=run.max_drop,
        strata=run.strata,
        max_errors=run.bounds.max_errors,
    )
    if result.cell in run.baseline.problems:
        return gates.refused(result.cell, settings, run.baseline.problems[result.cell])
    return gates.against(run.baseline.results.get(result.cell), result, settings)


def stop_criteria(cell: Cell, run: RunSettings) -> list[stopping.StopCriterion]:
    """Return what must be settled before a cell may stop: nothing, so that it does not, where the run asks for all."""
    level = run.until_sure
    if level is None:
        return []
    n_images, criteria = len(run.order), []
    threshold = run.thresholds.get(cell)
    if threshold is not None and (
        not threshold.depends_on_n or threshold.applies_to(run.n_cases[cell.task], whole=True)
    ):
        criteria.append(stopping.of_threshold(threshold, n_images, level))
    before = run.baseline.results.get(cell) if run.baseline else None
    if before is not None:
        criteria.append(stopping.of_baseline(before, run.selects[cell], run.max_drop, n_images, level))
    return criteria


def counts_cases(cell: Cell, run: RunSettings) -> bool:
    """Whether `stop_criteria` of a cell depend on the number of its task's cases, as its threshold does."""
    threshold = run.thresholds.get(cell)
    return run.until_sure is not None and threshold is not None and threshold.depends_on_n


def examined_cases(result: CellResult, order: Sequence[str]) -> dict[str, tuple[ResultRow, ...]]:
    """Return the rows of each examined case, in seeded order; none for cases that do not belong to the task."""
    cases: dict[str, tuple[ResultRow, ...]] = dict.fromkeys(order[: result.n_examined], ())
    for row in result.rows:
        cases[row.case_id] = (*cases.get(row.case_id, ()), row)
    return cases


def first_cases(result: CellResult, order: Sequence[str], limit: int | None) -> set[str]:
    """Return the ids of the cases that a run with this limit counts: the first of the seeded order that have rows."""
    present = {row.case_id for row in result.rows}
    return set([case_id for case_id in order if case_id in present][:limit])
