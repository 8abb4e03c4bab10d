"""The models of a prompt mode compared over one task, a modality or all tasks: means, ranks, floors, ceilings. Pure.

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
_SUREST: tuple[Overlap, ...] = ("known", "likely", "unknown", "none")


@dataclass(frozen=True, kw_only=True)
class RankedModel:
    """A model among those of a standing.

    Attributes:
        model: its name.
        compared: whether it has all tasks of the standing, on the cases and in the way of the others. If not, what
            follows is over the tasks that it has, and there is no rank nor floor.
        n_tasks: number of tasks.
        same_cases: whether all of its cells are over the cases of their columns, in the same way.
        mean_iou: mean over tasks, under the mask that counts.
        ci95: 95 % percentile bootstrap interval of it, over the subjects of each data set; None for a data set of one.
        ranks: first and last possible rank; None of floors, where there is no other model, and for few subjects.
        above_floor: mean less that of the best floor; None of floors and where no floor was compared.
        surely_above: whether that is surely more than nothing.
        to_oracle: mean under the best of the candidates less ``mean_iou``.
        seen: of the cell whose data the model is most surely trained on.
        notes: of its cells.
    """

    model: str
    compared: bool
    n_tasks: int
    same_cases: bool
    mean_iou: float
    ci95: tuple[float, float] | None
    ranks: tuple[int, int] | None
    above_floor: float | None
    surely_above: bool
    to_oracle: float
    seen: Overlap
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Models compared.

    Attributes:
        tasks: those that are averaged.
        other_tasks: further tasks of the same scope, which not all of the compared models have.
        of_one: data sets of a single subject among them, which leave neither interval nor ranks.
        samples: those of ``tasks`` of which only a part of the data was looked at.
        places: floors first, then compared models by their mean, best first, then the others by name.
    """

    tasks: tuple[str, ...]
    other_tasks: tuple[str, ...]
    of_one: tuple[str, ...]
    samples: tuple[str, ...]
    places: tuple[RankedModel, ...]

    def of(self, model: str) -> RankedModel | None:
        """Return the place of a model, None where it has no score."""
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
    """Return the entry whose cases a column speaks of: whole data sets first, then the most and the commonest cases."""
    scored = [e for e in entries if e.scored]
    common = Counter((e.cases, e.measurement) for e in scored)
    return min(scored, key=lambda e: (e.partial, -len(e.values), -common[e.cases, e.measurement], e.cell), default=None)


class _Column:
    """The scored cells of a task in a prompt mode, at least one."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        found = reference(entries)
        assert found is not None  # noqa: S101 - of scored cells there is one
        self.reference = found
        self.task = found.cell.task
        self.entries = {e.cell.model: e for e in entries}
        self.comparable = frozenset(
            e.cell.model for e in entries if (e.cases, e.measurement) == (found.cases, found.measurement)
        )

    @property
    def dataset(self) -> str:
        return fact(self.reference.provenance, "dataset", "name")

    @functools.cached_property
    def cases(self) -> list[str]:
        return sorted(self.reference.cases)

    @functools.cached_property
    def subjects(self) -> list[str]:
        return [self.reference.subjects[case] for case in self.cases]

    def residuals(self, models: Sequence[str]) -> Array:
        """Return (cases, models): what each case's IoU is off the model's mean."""
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
        of_one=tuple(sorted({c.dataset for c in chosen if len(set(c.subjects)) < 2})),
        samples=tuple(c.task for c in chosen if c.reference.partial),
        places=tuple(
            sorted(places, key=lambda p: (not everyone[p.model], not p.compared, _order(p, everyone), p.model))
        ),
    )


def _order(place: RankedModel, is_floor: Mapping[str, bool]) -> float:
    return -place.mean_iou if place.compared and not is_floor[place.model] else 0.0


def _common(columns: Sequence[_Column]) -> list[_Column]:
    """Return the columns to compare over: those that make the most of models times tasks, floors not counted.

    Tried are the tasks that each model has, and those that two models have in common.
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
        tried, key=lambda tasks: (-len(tasks) * sum(tasks <= of for of in has.values()), -len(tasks), [*sorted(tasks)])
    )
    return [column for column in columns if column.task in best]


def _compared(columns: Sequence[_Column], models: Sequence[str]) -> list[RankedModel]:
    """Return the places of models that all columns have, on the same cases."""
    if not models:
        return []
    cells = {model: [c.entries[model] for c in columns] for model in models}
    means = {model: mean(e.summary.mean_iou for e in cells[model]) for model in models}
    ranked = [model for model in models if not cells[model][0].is_floor]
    floor = max((m for m in models if m not in ranked), key=lambda m: (means[m], m), default=None)
    pools = _pools(columns, models)
    intervals = _intervals([means[m] for m in models], pools)
    if len(columns) == 1:  # a cell's own interval, which need not be approximated
        intervals = [cells[m][0].summary.ci95 for m in models]
    sure = _sure(means, [*ranked, *([floor] if floor else [])], models, pools)
    found = ranks.ranges(sure[: len(ranked), : len(ranked)]) if sure is not None and len(ranked) > 1 else None
    places = []
    for model, ci95 in zip(models, intervals, strict=True):
        row = ranked.index(model) if model in ranked else None
        places.append(
            RankedModel(
                model=model,
                compared=True,
                ci95=ci95,
                ranks=found[row] if found and row is not None else None,
                above_floor=means[model] - means[floor] if floor and row is not None else None,
                surely_above=bool(sure is not None and floor and row is not None and sure[row, -1]),
                same_cases=True,
                **_facts(cells[model]),
            )
        )
    return places


def _sure(
    means: Mapping[str, float], family: Sequence[str], models: Sequence[str], pools: Mapping[str, Array]
) -> npt.NDArray[np.bool_] | None:
    """Return which of a family of models is significantly better than which; None where that cannot be said."""
    chosen = [models.index(model) for model in family]
    return ranks.significantly_better(
        np.array([means[m] for m in family]), [pool[:, chosen] for pool in pools.values()]
    )


def _apart(model: str, columns: Sequence[_Column]) -> RankedModel:
    """Return the place of a model that is not compared, over the tasks that it has."""
    found = [c for c in columns if model in c.entries]
    cells = [c.entries[model] for c in found]
    return RankedModel(
        model=model,
        compared=False,
        ci95=None,
        ranks=None,
        above_floor=None,
        surely_above=False,
        same_cases=all(model in c.comparable for c in found),
        **_facts(cells),
    )


def _facts(cells: Sequence[Entry]) -> dict[str, Any]:
    mean_iou = mean(e.summary.mean_iou for e in cells)
    return {
        "mean_iou": mean_iou,
        "n_tasks": len(cells),
        "to_oracle": mean(e.summary.iou["oracle"] for e in cells) - mean_iou,
        "seen": min((e.seen for e in cells), key=_SUREST.index),
        "notes": tuple(dict.fromkeys(note for e in cells for note in e.notes)),
    }


# --- subjects -----------------------------------------------------------------------------------------------


def _pools(columns: Sequence[_Column], models: Sequence[str]) -> dict[str, Array]:
    """Return for each data set (subjects, models): what a subject adds to the means over tasks beyond its share.

    The tasks of a data set have their subjects in common, so these are drawn together for all of them. Of a task with
    N cases among T tasks a subject adds the sum of its cases' residuals / (N T): the mean over a draw of subjects is
    off by the sum over the draw, up to terms that vanish with the number of subjects (and none where all subjects have
    as many cases).
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
    """Return the 95 % percentile bootstrap interval of each mean; data sets are drawn from independently."""
    if any(len(pool) < 2 for pool in pools.values()):
        return [None] * len(means)
    drawn = np.array(means) + sum(resampled_sums(pool, _seed(name)) for name, pool in pools.items())
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _seed(dataset: str) -> int:
    return int.from_bytes(hashlib.sha256(dataset.encode()).digest()[:8])
