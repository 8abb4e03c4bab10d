"""Choose the cases that Figures 3, 7 and 9 show, and read their images and masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from promptseg import text
from promptseg.leaderboard.aggregate import fact
from promptseg.leaderboard.case_views import CaseView
from promptseg.leaderboard.figures import numbers, pictures
from promptseg.leaderboard.figures.inputs import Drawn, FigureInputs, Missing
from promptseg.leaderboard.figures.numbers import SIZED_MODES, counted
from promptseg.results.rows import CellResult
from promptseg.specs import Cell

PERCENTILES = (25, 50, 75)
AMBIGUOUS_MODE = "point_largest"
GRIDS = ("everything", "everything_64", "everything_128")
MOST_ROWS = 5  # of a page
_NAMED = 3  # cells in a message


class _Reader:
    """Opens cases, and collects the problems with those that cannot be drawn."""

    def __init__(self, inputs: FigureInputs) -> None:
        self._inputs = inputs
        self._problems: dict[str, list[str]] = defaultdict(list)

    def views(self, result: CellResult, case_ids: Sequence[str]) -> list[CaseView]:
        """Return the cases; none of them if one cannot be drawn with image, target and masks."""
        views = list(self._inputs.views(result).views(case_ids))
        problem = next((problem for view in views for problem in view.problems), None)
        if problem is not None:
            self._problems[problem].append(result.cell.id)
            return []
        return views

    def missing(self, name: str) -> Iterator[Missing]:
        """Yield each problem with the cells that have it."""
        for problem, cells in self._problems.items():
            more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
            yield Missing(name, f"{problem.rstrip('.')} ({', '.join(cells[:_NAMED])}{more})")


def percentiles(inputs: FigureInputs) -> Iterator[Drawn | Missing]:
    """Yield Fig. 3 of each model and task: cases at percentiles of the IoU in mode 4, or in mode 2 if that is missing.

    If both modes were evaluated, the cases are chosen among those that were scored in both.
    """
    reader = _Reader(inputs)
    for model in inputs.models:
        for task in sorted({cell.task for cell in inputs.results if cell.model == model}):
            cells = [Cell(model, task, mode) for mode in reversed(SIZED_MODES)]
            figure = _percentiles(reader, model, task, [inputs.results[c] for c in cells if c in inputs.results])
            if figure is not None:
                yield figure
    yield from reader.missing("fig3")


def _percentiles(reader: _Reader, model: str, task: str, results: Sequence[CellResult]) -> Drawn | None:
    """Return Fig. 3 of a model's results on a task; None where there are none, or a case cannot be drawn."""
    ious = _common(results)
    case_ids = numbers.percentile_cases(ious, PERCENTILES)
    views = {result.cell.mode: reader.views(result, case_ids) for result in results}
    if not views or not all(views.values()):
        return None
    cases = [
        pictures.PercentileCase(percentile, {mode: of_mode[i] for mode, of_mode in views.items()})
        for i, percentile in enumerate(PERCENTILES)
    ]
    sample = " (sample)" if any(result.is_sample for result in results) else ""
    n = f"{text.counted(len(ious), 'case')}{sample}"
    return Drawn(f"fig3_{model}_{task}", pictures.percentiles(model, task, n, counted(model), cases))


def _common(results: Sequence[CellResult]) -> dict[str, float]:
    """Return the IoU in the first result, by the mask that counts, of the cases that all results scored."""
    ious = [numbers.case_ious(result, counted(result.cell.model)) for result in results]
    return {case: iou for case, iou in ious[0].items() if all(case in other for other in ious)} if ious else {}


def candidates(inputs: FigureInputs) -> Iterator[Drawn | Missing]:
    """Yield Fig. 7 of each model: the case of each task whose candidates differ most, the widest spans first."""
    reader = _Reader(inputs)
    for model in inputs.models:
        views: dict[str, CaseView] = {}
        for result, case_id in _ambiguous(inputs, model):
            if len(views) < MOST_ROWS:
                for view in reader.views(result, [case_id]):
                    views[result.cell.task] = view
        if views:
            yield Drawn(f"fig7_{model}", pictures.candidates(model, views))
    yield from reader.missing("fig7")


def _ambiguous(inputs: FigureInputs, model: str) -> list[tuple[CellResult, str]]:
    """Return the most ambiguous case of each task, the widest span first."""
    results = [r for cell, r in sorted(inputs.results.items()) if (cell.model, cell.mode) == (model, AMBIGUOUS_MODE)]
    spans = [(result, *case) for result in results if (case := numbers.most_ambiguous(result)) is not None]
    return [(result, case_id) for result, case_id, _ in sorted(spans, key=lambda item: -item[2])]


def everything(inputs: FigureInputs) -> Iterator[Drawn | Missing]:
    """Yield Fig. 9 of each model: the case with the median best IoU of each data set, for each grid of points."""
    reader = _Reader(inputs)
    for model in inputs.models:
        views: dict[str, dict[str, CaseView]] = {}
        for task, results in _grids(inputs, model).items():
            if len(views) < MOST_ROWS:
                of_task = _everything_case(reader, results)
                views.update({task: of_task} if of_task else {})
        if views:
            yield Drawn(f"fig9_{model}", pictures.everything(model, views))
    yield from reader.missing("fig9")


def _grids(inputs: FigureInputs, model: str) -> dict[str, list[CellResult]]:
    """Return the results of each grid, on one task of each data set, as all tasks of an image have the same masks."""
    by_task: dict[str, list[CellResult]] = defaultdict(list)
    for mode in GRIDS:
        for cell, result in sorted(inputs.results.items()):
            if (cell.model, cell.mode) == (model, mode):
                by_task[cell.task].append(result)
    by_dataset: dict[str, str] = {}
    for task, results in sorted(by_task.items()):
        by_dataset.setdefault(fact(results[0].provenance.dataset.name), task)
    return {task: by_task[task] for task in by_dataset.values()}


def _everything_case(reader: _Reader, results: Sequence[CellResult]) -> dict[str, CaseView]:
    """Return the median case of the first grid, in each grid that it was evaluated with."""
    chosen = numbers.percentile_cases(numbers.case_ious(results[0], "oracle"), (50,))
    holding = [result for result in results if numbers.case_ious(result, "oracle").keys() & set(chosen)]
    return {result.cell.mode: view for result in holding for view in reader.views(result, chosen)}
