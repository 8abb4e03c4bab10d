"""From results to what the leaderboard says: pure, sorted, and nothing compared that does not belong together."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from promptseg.leaderboard.contamination import Overlap, overlap
from promptseg.results.provenance import Provenance, SourceFacts
from promptseg.results.rows import CellResult
from promptseg.specs import Cell
from promptseg.verdicts.summary import Summary, case_values, scored, select_of, summarise

MODES = (  # the reference protocol's order; prompt modes of plugins follow by name
    "point_largest",
    "point_each",
    "box_largest",
    "box_each",
    "box_all",
    "clicks_first",
    "clicks_confident",
    "clicks_oracle",
    "noc",
    "everything",
    "everything_64",
    "everything_128",
)
FLOOR = "floor"
UNKNOWN = "unknown"
NOTHING = "-"  # there is none, which is not the same as unknown
_SHORT = 12  # hex digits that tell two commits or checksums apart


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of the board.

    Attributes:
        cell: model, task and prompt mode.
        summary: the numbers, under the mask that the mode says counts (in an iterative mode the guide), else under the
            confident one.
        values: IoU of each case that was scored, under the mask that counts.
        subjects: of these cases; where not known the case itself.
        clicks: the numbers of clicks that ``summary.iou_per_click`` speaks of; none for a static mode.
        partial: whether only a sample of the data set's images was looked at.
        provenance: where the result comes from.
        changes: what is no longer as it was when the result was made, in words: it is out of date.
        notes: what sets this cell apart from the cells it stands beside, and that it is out of date.
    """

    cell: Cell
    summary: Summary
    values: Mapping[str, float]
    subjects: Mapping[str, str]
    clicks: tuple[int, ...]
    partial: bool
    provenance: Provenance
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> frozenset[str]:
        """Ids of the cases that were scored."""
        return frozenset(self.values)

    @property
    def is_floor(self) -> bool:
        """Whether the model is one that never looks at the image."""
        return self.provenance.model.family == FLOOR

    @property
    def measurement(self) -> tuple[str, ...]:
        """What must be equal for two scores to be of the same thing, beside task, prompt mode and cases."""
        made = self.provenance
        return _protocol(self), fact(made.seed), fact(made.dataset.fingerprint), fact(made.task.labels)

    @property
    def scored(self) -> bool:
        """Whether there is a number to show."""
        return self.summary.n > 0 and math.isfinite(self.summary.mean_iou)

    @property
    def modality(self) -> str:
        """Of the data set."""
        return fact(self.provenance.dataset.modality)

    @property
    def seen(self) -> Overlap:
        """Whether the model has seen the data set in training."""
        dataset = self.provenance.dataset
        return overlap(
            self.provenance.model.training_data,
            str(dataset.name),
            study=dataset.study or "",
            shares=dataset.overlaps,
        )


@dataclass(frozen=True, kw_only=True)
class Board:
    """All that the leaderboard shows.

    Attributes:
        entries: sorted by prompt mode, model (floors first) and task.
        models: a row of facts for each model, several where its cells do not agree.
        datasets: likewise for each data set.
        conditions: each condition with its values and the number of cells that have it.
        unreadable: result files that had to be left out.
        conflicts: cells of which two results should be the same and are not, in words.
        versions: cells of which other versions are not shown, in words.
        unchecked: models with cells that could not be compared with what is installed.
    """

    entries: tuple[Entry, ...]
    models: tuple[Mapping[str, str], ...] = ()
    datasets: tuple[Mapping[str, str], ...] = ()
    conditions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def modes(self) -> list[str]:
        """Return the prompt modes, in order."""
        return list(dict.fromkeys(e.cell.mode for e in self.entries))

    def models_of(self, mode: str | None = None) -> list[str]:
        """Return the models that have a cell (of the mode), in order."""
        found = {e.cell.model for e in self.entries if mode in (None, e.cell.mode)}
        return sorted(found, key=lambda name: (not self.is_floor(name), name))

    def is_floor(self, model: str) -> bool:
        """Whether a model is one that never looks at the image."""
        return model in self._floors

    @functools.cached_property
    def _floors(self) -> frozenset[str]:
        return frozenset(e.cell.model for e in self.entries if e.is_floor)

    def of(self, mode: str) -> dict[tuple[str, str], Entry]:
        """Return the cells of a mode by (model, task)."""
        return {(e.cell.model, e.cell.task): e for e in self.entries if e.cell.mode == mode}


def build(
    results: Iterable[CellResult],
    changes: Mapping[Cell, tuple[str, ...] | None] | None = None,
    *,
    unreadable: Sequence[str] = (),
    conflicts: Mapping[Cell, Sequence[str]] | None = None,
    versions: Sequence[str] = (),
) -> Board:
    """Return the board of some results, one for each cell; models that are shown the target are left out.

    Args:
        results: in any order.
        changes: what is out of date about a cell's result (`promptseg.leaderboard.staleness.changes`), None
            where that cannot be told; empty where nobody looked.
        unreadable: see `Board`.
        conflicts: see `Board`, by cell.
        versions: see `Board`.
    """
    told, disputed = changes or {}, conflicts or {}
    shown = [_entry(result, told.get(result.cell) or ()) for result in results if not sees_target(result)]
    entries = _noted(sorted(shown, key=_place), disputed)
    return Board(
        entries=tuple(entries),
        models=_with_cells(entries),
        datasets=_with_tasks(entries),
        conditions=_conditions(entries),
        unreadable=tuple(unreadable),
        conflicts=tuple(line for cell in sorted(disputed) for line in disputed[cell]),
        versions=tuple(versions),
        unchecked=tuple(sorted({e.cell.model for e in entries if told.get(e.cell, ()) is None})),
    )


def sees_target(result: CellResult) -> bool:
    """Whether a result is of a model that is shown the target, which has no place among others."""
    return result.provenance.model.sees_target


def _entry(result: CellResult, changes: tuple[str, ...]) -> Entry:
    rows = scored(result.rows)
    select = select_of(result)
    return Entry(
        cell=result.cell,
        summary=summarise(result.rows, select),
        values=case_values(rows, select),
        subjects={row.case_id: row.subject_id or row.case_id for row in rows},
        clicks=tuple(sorted({row.click for row in rows} - {0})),
        partial=result.is_sample,
        provenance=result.provenance,
        changes=changes,
    )


def _place(entry: Entry) -> tuple[int, str, bool, str, str]:
    cell = entry.cell
    order = MODES.index(cell.mode) if cell.mode in MODES else len(MODES)
    return order, cell.mode, not entry.is_floor, cell.model, cell.task


# --- what a result says of itself ---------------------------------------------------------------------------


def fact(value: object) -> str:
    """Return a fact of a result's provenance in words, ``unknown`` where it was not recorded."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return UNKNOWN if value is None or value == "" else str(value)


def short(text: str) -> str:
    """Return a commit or checksum cut to as many digits as a reader needs; other text as it is."""
    is_hash = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return text[:_SHORT] if is_hash else text


def _hashes(entry: Entry) -> str:
    sums = entry.provenance.model.sha256 or {}
    return ", ".join(f"{role} {short(value)}" for role, value in sorted(sums.items())) or NOTHING


def _source(made_from: SourceFacts, *, prepared: bool = False) -> dict[str, str]:
    """Return repository and revision; without one the files were on somebody's machine, or there are none."""
    if made_from.repo:
        return {"source": made_from.repo, "revision": short(fact(made_from.revision))}
    built_in = "prepared from files" if prepared else "built in"
    return {"source": "local folder" if made_from.host == "local" else built_in, "revision": NOTHING}


def _model_facts(entry: Entry) -> dict[str, str]:
    model = entry.provenance.model
    return {
        "model": entry.cell.model,
        "family": fact(model.family),
        "licence": fact(model.licence),
        **_source(model),
        "sha256": _hashes(entry),
        "trained on": fact(model.training_data),
        "provider": fact(model.provider),
    }


def _dataset_facts(entry: Entry) -> dict[str, str]:
    dataset = entry.provenance.dataset
    return {
        "data set": fact(dataset.name),
        "modality": entry.modality,
        "images": fact(entry.provenance.n_images),
        "licence": fact(dataset.licence),
        **_source(dataset, prepared=bool(dataset.prepared)),
        "fingerprint": short(fact(dataset.fingerprint)),
    }


def _with_tasks(entries: Iterable[Entry]) -> tuple[dict[str, str], ...]:
    """Return the facts of each data set and the tasks on it that the board has."""
    tasks: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    for entry in entries:
        tasks[tuple(_dataset_facts(entry).items())].add(entry.cell.task)
    return tuple({**dict(row), "tasks": ", ".join(sorted(found))} for row, found in sorted(tasks.items()))


def _with_cells(entries: Iterable[Entry]) -> tuple[dict[str, str], ...]:
    """Return the facts of each model, and of its cells how many they are, of when, and how many out of date."""
    cells: dict[tuple[tuple[str, str], ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        cells[tuple(_model_facts(entry).items())].append(entry)
    return tuple({**dict(row), **_cells_of(found)} for row, found in sorted(cells.items(), key=lambda item: item[0]))


def _cells_of(entries: Sequence[Entry]) -> dict[str, str]:
    dates = sorted({fact(e.provenance.date) for e in entries})
    outdated = sum(bool(e.changes) for e in entries)
    return {
        "cells": str(len(entries)),
        "evaluated": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "out of date": str(outdated) if outdated else NOTHING,
    }


# --- conditions, and the cells that differ in them ----------------------------------------------------------


def _protocol(entry: Entry) -> str:
    return fact(entry.provenance.protocol).replace(", ", " ")


def _adapter(entry: Entry) -> str:
    model = entry.provenance.model
    return " ".join(map(fact, (model.provider, model.load, model.options)))


@dataclass(frozen=True)
class _Aspect:
    """Something that should be equal within a scope: the whole board, a model or a data set."""

    name: str
    value: Callable[[Entry], str]
    scope: Callable[[Entry], str] = lambda _: ""
    among: str = "most cells"

    def note(self, value: str, usual: str) -> str:
        return f"{self.name} {value} ({self.among}: {usual})"


_ASPECTS = (
    _Aspect("protocol", _protocol),
    _Aspect("seed", lambda e: fact(e.provenance.seed)),
    _Aspect("dtype", lambda e: fact(e.provenance.dtype)),
    _Aspect("fast paths", lambda e: fact(e.provenance.fast)),
    _Aspect("device", lambda e: fact(e.provenance.device)),
    _Aspect("weights", _hashes, lambda e: e.cell.model, "most cells of the model"),
    _Aspect("adapter", _adapter, lambda e: e.cell.model, "most cells of the model"),
    _Aspect(
        "data",
        lambda e: short(fact(e.provenance.dataset.fingerprint)),
        lambda e: fact(e.provenance.dataset.name),
        "most cells of the data set",
    ),
)


def _noted(entries: Sequence[Entry], disputed: Iterable[Cell]) -> list[Entry]:
    """Return the entries with a note for each aspect in which one differs from most others in its scope."""
    notes = {e.cell: _outdated(e) for e in entries}
    for cell in disputed:
        notes.setdefault(cell, []).append("in conflict: another result of the same evaluation has other scores")
    for aspect in _ASPECTS:
        usual = _majorities(entries, aspect)
        for entry in entries:
            value, common = aspect.value(entry), usual[aspect.scope(entry)]
            if value != common:
                notes[entry.cell].append(aspect.note(value, common))
    return [dataclasses.replace(e, notes=tuple(notes[e.cell])) for e in entries]


def _outdated(entry: Entry) -> list[str]:
    return [f"out of date: another {', '.join(entry.changes)} now"] if entry.changes else []


def _majorities(entries: Iterable[Entry], aspect: _Aspect) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        counts[aspect.scope(entry)][aspect.value(entry)] += 1
    return {scope: min(found, key=lambda value: (-found[value], value)) for scope, found in counts.items()}


def _conditions(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Return name -> value -> number of cells, in a fixed order."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        for name, value in _conditions_of(entry).items():
            counts[name][value] += 1
    return {name: dict(sorted(found.items())) for name, found in counts.items()}


def _conditions_of(entry: Entry) -> dict[str, str]:
    made = entry.provenance
    return {
        "protocol": _protocol(entry),
        "seed": fact(made.seed),
        "dtype": fact(made.dtype),
        "device": f"{fact(made.device)} ({fact(made.device_name)})",
        "date": fact(made.date),
        "git commit": _commit(fact(made.git_commit)),
        **{package: fact(version) for package, version in sorted(made.versions.items())},
    }


def _commit(text: str) -> str:
    """Return a short commit; the + of a changed work tree stays."""
    return short(text.removesuffix("+")) + ("+" if text.endswith("+") else "")
