"""The numbers in the figures: pure functions of results and of the study's published numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from promptseg.leaderboard import paper
from promptseg.leaderboard.aggregate import fact, sees_target
from promptseg.leaderboard.paper import GUIDES, STATIC
from promptseg.results.rows import CellResult
from promptseg.specs import Cell, MaskChoice
from promptseg.stats.correlation import rank_correlation
from promptseg.verdicts.summary import case_values, scored

Results = Mapping[Cell, CellResult]
STUDIED = tuple(method.model for method in paper.METHODS)
"""The models with numbers in the study: SAM, then its rivals."""
SIZED_MODES = ("point_each", "box_each")  # modes 2 and 4, which Figures 3 and 8 show
_SAME_NUMBER = 5e-4  # below the third decimal


def by_cell(results: Iterable[CellResult]) -> dict[Cell, CellResult]:
    """Return the results by cell, without those of models that are given the target, which are on no board either."""
    return {result.cell: result for result in results if not sees_target(result)}


def models_of(results: Results) -> list[str]:
    """Return the evaluated models, the study's first."""
    evaluated = {cell.model for cell in results}
    return [*(m for m in STUDIED if m in evaluated), *sorted(evaluated.difference(STUDIED))]


def counted(model: str) -> MaskChoice:
    """Return the choice of mask that counts: the study's, candidate 0, for its models, else the board's."""
    return "first" if model in paper.MODELS else "confident"


def case_ious(result: CellResult | None, select: MaskChoice, click: int | None = None) -> dict[str, float]:
    """Return each scored case's IoU: after a click or, if that is None, the mean over all. Empty without a result."""
    rows = scored(result.rows) if result else []
    return case_values([row for row in rows if click is None or row.click == click], select)


def any_sample(results: Results, cells: Iterable[Cell]) -> bool:
    """Whether one of the cells was evaluated on a sample of its data set's images."""
    return any(cell in results and results[cell].is_sample for cell in cells)


# --- lanes: Figures 2 and 4 ---------------------------------------------------------------------------------


class Mark(NamedTuple):
    """A mean IoU (or a difference of two) by the mask that counts and, if it is known, by oracle."""

    value: float
    oracle: float | None


@dataclass(frozen=True, kw_only=True)
class TaskMarks:
    """The marks of one task.

    Attributes:
        task: its name.
        n: the numbers of measured cases; several where the lanes have different ones.
        measured: lane (a prompt mode, or a rival) -> mark.
        published: the same for the study's numbers.
        sample: whether a measured mark is of a sample of the data set's images.
    """

    task: str
    n: frozenset[int] = frozenset()
    measured: Mapping[str, Mark] = field(default_factory=dict)
    published: Mapping[str, Mark] = field(default_factory=dict)
    sample: bool = False

    def best(self) -> dict[str, Mark]:
        """Return the mark of each lane that ranks the task: measured if there is one, else published."""
        return {**self.published, **self.measured}


def modes(results: Results, model: str) -> tuple[TaskMarks, ...]:
    """Return a model's tasks in the five static modes (Fig. 2), by mode 4 in descending order."""
    rows = [_modes(results, model, task) for task in _tasks(results, [model])]
    return tuple(sorted(filter(_has_marks, rows), key=_by_mode_4))


def _modes(results: Results, model: str, task: str) -> TaskMarks:
    measured, published, n = {}, {}, set()
    for mode in STATIC:
        cell = Cell(model, task, mode)
        ious = case_ious(results.get(cell), counted(model))
        if ious:
            measured[mode] = Mark(fmean(ious.values()), fmean(case_ious(results[cell], "oracle").values()))
            n.add(len(ious))
        value = paper.published(cell, "first")
        if value is not None:
            published[mode] = Mark(value, paper.published(cell, "oracle"))
    sample = any_sample(results, (Cell(model, task, mode) for mode in measured))
    return TaskMarks(task=task, n=frozenset(n), measured=measured, published=published, sample=sample)


def _by_mode_4(row: TaskMarks) -> tuple[float, str]:
    mark = row.best().get("box_each")
    return -mark.value if mark else math.inf, row.task


def differences(results: Results, model: str, rivals: Sequence[str]) -> tuple[TaskMarks, ...]:
    """Return a model's IoU after one click less that of each rival, as a mean over the cases that both have (Fig. 4).

    Tasks are sorted by their largest difference, in descending order. ``oracle`` is the IoU of the model's best mask
    less that of the rival's mask that counts.
    """
    rows = [_differences(results, model, rivals, task) for task in _tasks(results, [model, *rivals])]
    return tuple(sorted(filter(_has_marks, rows), key=_by_largest))


def _differences(results: Results, model: str, rivals: Sequence[str], task: str) -> TaskMarks:
    measured, published, n = {}, {}, set()
    ours, best = (_first_click(results, model, task, select) for select in (counted(model), "oracle"))
    for rival in rivals:
        theirs = _first_click(results, rival, task, counted(rival))
        common = sorted(ours.keys() & theirs.keys())
        if common:
            n.add(len(common))
            measured[rival] = Mark(*(fmean(iou[case] - theirs[case] for case in common) for iou in (ours, best)))
        values = [_published_click(name, task, counted(name)) for name in (model, rival)]
        if values[0] is not None and values[1] is not None:
            oracle = _published_click(model, task, "oracle")
            published[rival] = Mark(values[0] - values[1], None if oracle is None else oracle - values[1])
    shown = (model, *measured) if measured else ()
    sample = any_sample(results, (Cell(name, task, mode) for name in shown for mode in GUIDES))
    return TaskMarks(task=task, n=frozenset(n), measured=measured, published=published, sample=sample)


def _first_click(results: Results, model: str, task: str, select: MaskChoice) -> dict[str, float]:
    """Return the IoU of each case after one click, which does not depend on the mask that guides the next."""
    ious = (case_ious(results.get(Cell(model, task, mode)), select, 1) for mode in GUIDES)
    return next(filter(None, ious), {})


def _published_click(model: str, task: str, select: MaskChoice) -> float | None:
    curve = _published_curve(model, task, select)
    return curve[0] if curve else None


def _published_curve(model: str, task: str, select: MaskChoice) -> tuple[float, ...]:
    """Return the study's curve for a model that is run as the study ran it (D26), else nothing."""
    return (paper.curve(Cell(model, task, f"clicks_{select}"), select) if model in STUDIED else None) or ()


def _by_largest(row: TaskMarks) -> tuple[float, str]:
    return -max(mark.value for mark in row.best().values()), row.task


def _has_marks(row: TaskMarks) -> bool:
    return bool(row.measured or row.published)


def _tasks(results: Results, models: Sequence[str]) -> list[str]:
    """Return the tasks on which one of the models was evaluated, and the study's."""
    return sorted({cell.task for cell in results if cell.model in models} | set(paper.tasks()))


# --- curves over clicks: Figure 5 ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Series:
    """The mean IoU after each click of a model by the mask that guides.

    Attributes:
        model: its name.
        select: the guide.
        published: whether these are the study's numbers.
        curves: task -> mean IoU after click 1, 2, ...
        n: task -> number of cases; empty for published numbers.
        samples: the tasks that were evaluated on a sample of their data set's images.
    """

    model: str
    select: MaskChoice
    published: bool
    curves: Mapping[str, tuple[float, ...]]
    n: Mapping[str, int] = field(default_factory=dict)
    samples: frozenset[str] = frozenset()

    def mean(self, tasks: Sequence[str]) -> tuple[float, ...]:
        """Return the mean over tasks after each click, each task counting the same; empty if a task has no curve."""
        curves = [self.curves.get(task, ()) for task in tasks]
        return tuple(map(fmean, zip(*curves, strict=False)))


def series(results: Results, models: Sequence[str]) -> tuple[Series, ...]:
    """Return all series of some models, without those that equal an earlier one of their model."""
    kept: list[Series] = []
    for model, make in product(models, (_measured_series, _published_series)):
        of_model: list[Series] = []
        for select in GUIDES.values():
            one = make(results, model, select)
            if one.curves and not any(_agree(one, other) for other in of_model):
                of_model.append(one)
        kept += of_model
    return tuple(kept)


def _measured_series(results: Results, model: str, select: MaskChoice) -> Series:
    cells = [cell for cell in results if (cell.model, cell.mode) == (model, f"clicks_{select}")]
    per_task = {cell.task: _clicks(results[cell], select) for cell in sorted(cells)}
    curves = {task: tuple(fmean(ious.values()) for ious in clicks) for task, clicks in per_task.items() if clicks}
    return Series(
        model=model,
        select=select,
        published=False,
        curves=curves,
        n={task: len(per_task[task][0]) for task in curves},
        samples=frozenset(cell.task for cell in cells if results[cell].is_sample),
    )


def _clicks(result: CellResult, select: MaskChoice) -> list[dict[str, float]]:
    numbers = sorted({row.click for row in scored(result.rows)})
    return [case_ious(result, select, click) for click in numbers]


def _published_series(_: Results, model: str, select: MaskChoice) -> Series:
    curves = {task: _published_curve(model, task, select) for task in paper.tasks()}
    return Series(model=model, select=select, published=True, curves={task: c for task, c in curves.items() if c})


def _agree(a: Series, b: Series) -> bool:
    return a.curves.keys() == b.curves.keys() and all(
        len(a.curves[task]) == len(b.curves[task])
        and all(abs(x - y) <= _SAME_NUMBER for x, y in zip(a.curves[task], b.curves[task], strict=True))
        for task in a.curves
    )


def shared_tasks(series: Sequence[Series]) -> list[str]:
    """Return the tasks that all measured series have (all published ones, if none is measured), to compare means."""
    compared = [one for one in series if not one.published] or series
    return sorted(set.intersection(*(set(one.curves) for one in compared))) if compared else []


# --- sizes: Figure 8 ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SizedTask:
    """The sizes of a task's objects and how well they are segmented.

    Attributes:
        task, modality: of the objects.
        sizes: object pixels / image pixels of each case.
        measured: mode -> mean IoU.
        published: mode -> the study's mean IoU.
        sample: whether the task was evaluated on a sample of its data set's images.
    """

    task: str
    modality: str
    sizes: tuple[float, ...]
    measured: Mapping[str, float]
    published: Mapping[str, float]
    sample: bool = False

    @property
    def mean_size(self) -> float:
        """Mean over cases."""
        return fmean(self.sizes)


def sized_tasks(results: Results, model: str) -> tuple[SizedTask, ...]:
    """Return the tasks on which a model was evaluated in modes 2 and 4 (Fig. 8), smallest objects (median) first."""
    by_task: dict[str, dict[str, CellResult]] = defaultdict(dict)
    for cell, result in sorted(results.items()):
        if cell.model == model and cell.mode in SIZED_MODES and scored(result.rows):
            by_task[cell.task][cell.mode] = result
    tasks = [_sized(task, modes_of_task) for task, modes_of_task in by_task.items()]
    return tuple(sorted(tasks, key=lambda t: (median(t.sizes), t.task)))


def _sized(task: str, by_mode: Mapping[str, CellResult]) -> SizedTask:
    sizes = {row.case_id: row.area_fraction for result in by_mode.values() for row in scored(result.rows)}
    values = {mode: paper.published(result.cell, "first") for mode, result in by_mode.items()}
    return SizedTask(
        task=task,
        modality=fact(next(iter(by_mode.values())).provenance.dataset.modality),
        sizes=tuple(size for _, size in sorted(sizes.items())),
        measured={m: fmean(case_ious(r, counted(r.cell.model)).values()) for m, r in by_mode.items()},
        published={mode: value for mode, value in values.items() if value is not None},
        sample=any(result.is_sample for result in by_mode.values()),
    )


class Fit(NamedTuple):
    """A straight line through IoU over log10(size): ``iou = slope * log10(size) + intercept``.

    ``pearson`` and ``spearman`` are the correlations of IoU with log10(size), ``n`` the number of points.
    """

    slope: float
    intercept: float
    pearson: float
    spearman: float
    n: int


def fit(sizes: Sequence[float], ious: Sequence[float]) -> Fit | None:
    """Return the least-squares line of IoU over log10(size); None for fewer than three points or equal sizes.

    Correlations are NaN where all IoUs are equal.
    """
    x, y = np.log10(np.asarray(sizes, dtype=np.float64)), np.asarray(ious, dtype=np.float64)
    if len(x) < 3 or not np.ptp(x):
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = math.sqrt(float(dx @ dx) * float(dy @ dy))
    return Fit(
        slope=slope,
        intercept=float(y.mean() - slope * x.mean()),
        pearson=float(dx @ dy) / spread if spread else math.nan,
        spearman=rank_correlation(x, y),
        n=len(x),
    )


# --- cases to show: Figures 3, 7 and 9 ----------------------------------------------------------------------


def percentile_cases(ious: Mapping[str, float], percentiles: Sequence[int]) -> list[str]:
    """Return the cases at some percentiles of IoU, by nearest rank: each is a case, not a value between two."""
    ranked = sorted(ious, key=lambda case: (ious[case], case))
    return [ranked[max(math.ceil(p / 100 * len(ranked)), 1) - 1] for p in percentiles] if ranked else []


def most_ambiguous(result: CellResult) -> tuple[str, float] | None:
    """Return the case with the widest span of its candidates' IoUs, and the span; None if no case has several."""
    spans = [
        (max(row.candidate_iou) - min(row.candidate_iou), row.case_id)
        for row in scored(result.rows)
        if row.candidate_iou is not None and len(row.candidate_iou) > 1 and row.predicted_iou is not None
    ]
    if not spans:
        return None
    span, case_id = min(spans, key=lambda item: (-item[0], item[1]))
    return case_id, span
