"""Compare the models of a prompt mode over one task, a modality or all tasks: means, ranks, floors, ceilings. Pure.

A mean counts each task the same. Models are compared over the tasks that all of them have, on the same cases, measured
in the same way; the others are listed with the tasks that they do have, and no rank.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.leaderboard.aggregate import Board, Entry, fact
from promptseg.leaderboard.contamination import Overlap
from promptseg.stats import ranks
from promptseg.stats.bootstrap import resampled_sums
from promptseg.stats.means import mean

Array = npt.NDArray[np.float64]
_WORST_FIRST: tuple[Overlap, ...] = ("known", "likely", "unknown", "none")


@dataclass(frozen=True, kw_only=True)
class RankedModel:
    """A model in a standing: compared with the others, a floor, or listed apart.

    Attributes:
        model: its name.
        compared: whether it has all tasks of the standing, on the same cases and measured in the same way as the
            others. If not, the numbers are over the tasks that it has, without interval, ranks and floor.
        n_tasks: number of tasks.
        same_cases: whether all of its cells are over the cases of their columns, in the same way.
        mean_iou: mean over tasks, under the mask that counts.
        to_oracle: mean under the best of the candidates less ``mean_iou``.
        overlap: worst overlap of training and test data among its cells.
        notes: all notes of its cells, each once.
        ci95: 95 % percentile bootstrap interval of the mean, over the subjects of each data set; None where a data set
            has a single subject.
        ranks: first and last possible rank; None for floors, without another model, and for too few subjects.
        above_floor: mean less that of the best floor; None for floors, and where no floor was compared.
        above_floor_significant: whether the lead over the best floor is significant.
    """

    model: str
    compared: bool
    n_tasks: int
    same_cases: bool
    mean_iou: float
    to_oracle: float
    overlap: Overlap
    notes: tuple[str, ...]
    ci95: tuple[float, float] | None = None
    ranks: tuple[int, int] | None = None
    above_floor: float | None = None
    above_floor_significant: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The models of a prompt mode, compared over some tasks.

    Attributes:
        tasks: the tasks that are averaged.
        other_tasks: further tasks of the same scope, which not all of the compared models have.
        single_subject: data sets with a single subject, which allow neither intervals nor ranks.
        samples: those of ``tasks`` of which only a part of the images was evaluated.
        places: floors first, then compared models by their mean, best first, then the others by name.
    """

    tasks: tuple[str, ...]
    other_tasks: tuple[str, ...]
    single_subject: tuple[str, ...]
    samples: tuple[str, ...]
    places: tuple[RankedModel, ...]

    def of(self, model: str) -> RankedModel | None:
        """Return a model of the standing by its name, None if it has no score."""
        return next((place for place in self.places if place.model == model), None)

    @property
    def models(self) -> list[str]:
        """The models, in order."""
        return [place.model for place in self.places]


@dataclass(frozen=True, kw_only=True)
class ModeStandings:
    """All standings of a prompt mode."""

    overall: Standing
    modalities: Mapping[str, Standing]
    tasks: Mapping[str, Standing]


def of_mode(board: Board, mode: str) -> ModeStandings:
    """Compare the models of a prompt mode; tasks and modalities without a scored cell are left out."""
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in board.of(mode).values():
        if entry.scored:
            by_task[entry.cell.task].append(entry)
    columns = [_Column(by_task[task]) for task in sorted(by_task)]
    by_modality: dict[str, list[_Column]] = defaultdict(list)
    for column in columns:
        by_modality[column.reference.modality].append(column)
    tasks = {column.task: _standing([column]) for column in columns}

    def over(some: Sequence[_Column]) -> Standing:
        return tasks[some[0].task] if len(some) == 1 else _standing(some)

    return ModeStandings(
        overall=over(columns), modalities={name: over(by_modality[name]) for name in sorted(by_modality)}, tasks=tasks
    )


def reference(entries: Iterable[Entry]) -> Entry | None:
    """Return the entry whose cases stand for a column: whole data sets first, then the most and the commonest cases."""
    scored = [e for e in entries if e.scored]
    common = Counter((e.cases, e.measurement) for e in scored)
    return min(scored, key=lambda e: (e.partial, -len(e.values), -common[e.cases, e.measurement], e.cell), default=None)


class _Column:
    """The scored cells of a task in a prompt mode, at least one."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        chosen = reference(entries)
        assert chosen is not None  # noqa: S101 - there is a scored cell
        self.reference = chosen
        self.task = chosen.cell.task
        self.entries = {e.cell.model: e for e in entries}
        self.comparable = frozenset(
            e.cell.model for e in entries if (e.cases, e.measurement) == (chosen.cases, chosen.measurement)
        )

    @property
    def dataset(self) -> str:
        return fact(self.reference.provenance.dataset.name)

    @functools.cached_property
    def cases(self) -> list[str]:
        return sorted(self.reference.cases)

    @functools.cached_property
    def subjects(self) -> list[str]:
        return [self.reference.subjects[case] for case in self.cases]

    def residuals(self, models: Sequence[str]) -> Array:
        """Return (cases, models): each case's IoU less the model's mean."""
        values = np.array([[self.entries[m].values[case] for m in models] for case in self.cases])
        return np.asarray(values - values.mean(axis=0))


# --- one standing -------------------------------------------------------------------------------------------


def _standing(columns: Sequence[_Column]) -> Standing:
    """Compare models over some columns."""
    chosen = _common(columns)
    models = sorted(frozenset.intersection(*(c.comparable for c in chosen))) if chosen else []
    everyone = {model: entry.is_floor for c in columns for model, entry in c.entries.items()}
    places = [*_compared(chosen, models), *(_apart(m, columns) for m in everyone if m not in models)]
    tasks = [c.task for c in chosen]
    return Standing(
        tasks=tuple(tasks),
        other_tasks=tuple(c.task for c in columns if c.task not in tasks),
        single_subject=tuple(sorted({c.dataset for c in chosen if len(set(c.subjects)) < 2})),
        samples=tuple(c.task for c in chosen if c.reference.partial),
        places=tuple(
            sorted(places, key=lambda p: (not everyone[p.model], not p.compared, _order(p, everyone), p.model))
        ),
    )


def _order(place: RankedModel, is_floor: Mapping[str, bool]) -> float:
    return -place.mean_iou if place.compared and not is_floor[place.model] else 0.0


def _common(columns: Sequence[_Column]) -> list[_Column]:
    """Return the columns to compare over: those with the largest product of models and tasks, floors not counted.

    Candidates are the tasks of each model, and those that two models have in common.
    """
    has: dict[str, set[str]] = defaultdict(set)
    for column in columns:
        for model in column.comparable:
            if not column.entries[model].is_floor:
                has[model].add(column.task)
    sets = {frozenset(tasks) for tasks in has.values()}
    tried = {a & b for a, b in itertools.product(sets, repeat=2)} - {frozenset()}
    if not tried:  # floors alone
        return list(columns)
    best = min(
        tried,
        key=lambda tasks: (-len(tasks) * sum(tasks <= own for own in has.values()), -len(tasks), [*sorted(tasks)]),
    )
    return [column for column in columns if column.task in best]


def _compared(columns: Sequence[_Column], models: Sequence[str]) -> list[RankedModel]:
    """Return the models that all columns have, on the same cases: floors, and models ranked and set against them."""
    if not models:
        return []
    cells = {model: [c.entries[model] for c in columns] for model in models}
    means = {model: mean(e.summary.mean_iou for e in cells[model]) for model in models}
    floors = [model for model in models if cells[model][0].is_floor]
    ranked = [model for model in models if model not in floors]
    best_floor = max(floors, key=lambda m: (means[m], m), default=None)
    pools = _pools(columns, models)
    intervals = dict(zip(models, _intervals([means[m] for m in models], pools), strict=True))
    if len(columns) == 1:  # a cell's own interval, which need not be approximated
        intervals = {model: cells[model][0].summary.ci95 for model in models}
    better = _better(means, ranked if best_floor is None else [*ranked, best_floor], models, pools)
    possible = _ranks(ranked, better)
    leads = {} if best_floor is None else _leads(ranked, best_floor, means, better)

    def place(model: str, **numbers: Any) -> RankedModel:
        facts = _facts(cells[model])
        return RankedModel(model=model, compared=True, same_cases=True, ci95=intervals[model], **facts, **numbers)

    return [*map(place, floors), *(place(m, ranks=possible.get(m), **leads.get(m, {})) for m in ranked)]


def _better(
    means: Mapping[str, float], family: Sequence[str], models: Sequence[str], pools: Mapping[str, Array]
) -> npt.NDArray[np.bool_] | None:
    """Return which of a family of models is significantly better than which; None where the data cannot say."""
    chosen = [models.index(model) for model in family]
    return ranks.significantly_better(
        np.array([means[m] for m in family]), [pool[:, chosen] for pool in pools.values()]
    )


def _ranks(ranked: Sequence[str], better: npt.NDArray[np.bool_] | None) -> dict[str, tuple[int, int]]:
    """Return the first and last possible rank of each model, the first of the family; empty where nothing is known."""
    if better is None or len(ranked) < 2:
        return {}
    return dict(zip(ranked, ranks.ranges(better[: len(ranked), : len(ranked)]), strict=True))


def _leads(
    ranked: Sequence[str], floor: str, means: Mapping[str, float], better: npt.NDArray[np.bool_] | None
) -> dict[str, dict[str, Any]]:
    """Return how far each model is above a floor, the last of the family, and whether that is significant."""
    significant = [False] * len(ranked) if better is None else better[: len(ranked), -1].tolist()
    return {
        model: {"above_floor": means[model] - means[floor], "above_floor_significant": is_significant}
        for model, is_significant in zip(ranked, significant, strict=True)
    }


def _apart(model: str, columns: Sequence[_Column]) -> RankedModel:
    """Return a model that is not compared, over the tasks that it has."""
    own = [c for c in columns if model in c.entries]
    same = all(model in c.comparable for c in own)
    return RankedModel(model=model, compared=False, same_cases=same, **_facts([c.entries[model] for c in own]))


def _facts(cells: Sequence[Entry]) -> dict[str, Any]:
    """Return what does not depend on other models."""
    mean_iou = mean(e.summary.mean_iou for e in cells)
    return {
        "mean_iou": mean_iou,
        "n_tasks": len(cells),
        "to_oracle": mean(e.summary.iou["oracle"] for e in cells) - mean_iou,
        "overlap": min((e.seen for e in cells), key=_WORST_FIRST.index),
        "notes": tuple(dict.fromkeys(note for e in cells for note in e.notes)),
    }


# --- subjects -----------------------------------------------------------------------------------------------


def _pools(columns: Sequence[_Column], models: Sequence[str]) -> dict[str, Array]:
    """Return for each data set (subjects, models): how much a subject moves the means over tasks.

    The tasks of a data set share their subjects, so a subject is drawn for all of them together. In a task with N cases
    among T tasks a subject contributes the sum of its cases' residuals / (N T). The mean over a draw of subjects then
    differs from the mean over all by the sum over the draw, exactly where all subjects have as many cases, else up to
    terms that vanish as the number of subjects grows.
    """
    by_dataset: dict[str, list[_Column]] = defaultdict(list)
    for column in columns:
        by_dataset[column.dataset].append(column)
    return {name: _pool(by_dataset[name], models, len(columns)) for name in sorted(by_dataset)}


def _pool(columns: Sequence[_Column], models: Sequence[str], n_tasks: int) -> Array:
    rows = {s: i for i, s in enumerate(sorted({subject for c in columns for subject in c.subjects}))}
    pool = np.zeros((len(rows), len(models)))
    for column in columns:
        share = column.residuals(models) / (len(column.cases) * n_tasks)
        np.add.at(pool, [rows[subject] for subject in column.subjects], share)
    return pool


def _intervals(means: Sequence[float], pools: Mapping[str, Array]) -> list[tuple[float, float] | None]:
    """Return the 95 % percentile bootstrap interval of each mean; subjects are drawn in each data set independently."""
    if any(len(pool) < 2 for pool in pools.values()):
        return [None] * len(means)
    drawn = np.array(means) + sum(resampled_sums(pool, _seed(name)) for name, pool in pools.items())
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _seed(dataset: str) -> int:
    return int.from_bytes(hashlib.sha256(dataset.encode()).digest()[:8])
