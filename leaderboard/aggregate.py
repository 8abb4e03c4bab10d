"""From results to what the leaderboard says: pure, sorted, and nothing compared that does not belong together."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptseg.leaderboard.contamination import Overlap, overlap
from promptseg.results.store import CellResult
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
    provenance: Mapping[str, Any]
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> frozenset[str]:
        """Ids of the cases that were scored."""
        return frozenset(self.values)

    @property
    def is_floor(self) -> bool:
        """Whether the model is one that never looks at the image."""
        return fact(self.provenance, "model", "family") == FLOOR

    @property
    def measurement(self) -> tuple[str, ...]:
        """What must be equal for two scores to be of the same thing, beside task, prompt mode and cases."""
        about = self.provenance
        labels, data = fact(about, "task", "labels"), fact(about, "dataset", "fingerprint")
        return _protocol(self), fact(about, "seed"), data, labels

    @property
    def scored(self) -> bool:
        """Whether there is a number to show."""
        return self.summary.n > 0 and math.isfinite(self.summary.mean_iou)

    @property
    def modality(self) -> str:
        """Of the data set."""
        return fact(self.provenance, "dataset", "modality")

    @property
    def seen(self) -> Overlap:
        """Whether the model has seen the data set in training."""
        data = _part(self.provenance, "dataset")
        return overlap(
            _names(_part(self.provenance, "model").get("training_data")),
            str(data.get("name")),
            study=str(data.get("study") or ""),
            shares=_names(data.get("overlaps")) or (),
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
    return bool(_part(result.provenance, "model").get("sees_target"))


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


def fact(provenance: Mapping[str, Any], *keys: str) -> str:
    """Return a value of a result's provenance in words, ``unknown`` where it was not written down."""
    value: Any = provenance
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return UNKNOWN if value is None or value == "" else str(value)


def _part(provenance: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = provenance.get(key)
    return found if isinstance(found, Mapping) else {}


def _names(value: object) -> list[str] | None:
    """Return a list of names as a result holds it, None where it holds none."""
    return [str(name) for name in value] if isinstance(value, list | tuple) else None


def short(text: str) -> str:
    """Return a commit or checksum cut to as many digits as a reader needs; other text as it is."""
    is_hash = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return text[:_SHORT] if is_hash else text


def _hashes(provenance: Mapping[str, Any]) -> str:
    found = _part(provenance, "model").get("sha256")
    if not isinstance(found, Mapping) or not found:
        return NOTHING
    return ", ".join(f"{role} {short(str(value))}" for role, value in sorted(found.items()))


def _source(provenance: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return repository and revision; without one the files lay on somebody's machine, or there are none."""
    found = fact(provenance, kind, "repo")
    if found == UNKNOWN:
        local = fact(provenance, kind, "host") == "local"
        prepared = "prepared from files" if _part(_part(provenance, kind), "prepared") else "built in"
        return {"source": "local folder" if local else prepared, "revision": NOTHING}
    return {"source": found, "revision": short(fact(provenance, kind, "revision"))}


def _model_facts(entry: Entry) -> dict[str, str]:
    about = entry.provenance
    return {
        "model": entry.cell.model,
        "family": fact(about, "model", "family"),
        "licence": fact(about, "model", "licence"),
        **_source(about, "model"),
        "sha256": _hashes(about),
        "trained on": fact(about, "model", "training_data"),
        "provider": fact(about, "model", "provider"),
    }


def _dataset_facts(entry: Entry) -> dict[str, str]:
    about = entry.provenance
    return {
        "data set": fact(about, "dataset", "name"),
        "modality": entry.modality,
        "images": fact(about, "n_images"),
        "licence": fact(about, "dataset", "licence"),
        **_source(about, "dataset"),
        "fingerprint": short(fact(about, "dataset", "fingerprint")),
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
    dates = sorted({fact(e.provenance, "date") for e in entries})
    outdated = sum(bool(e.changes) for e in entries)
    return {
        "cells": str(len(entries)),
        "evaluated": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "out of date": str(outdated) if outdated else NOTHING,
    }


# --- conditions, and the cells that differ in them ----------------------------------------------------------


def _protocol(entry: Entry) -> str:
    return fact(entry.provenance, "protocol").replace(", ", " ")


def _adapter(entry: Entry) -> str:
    return " ".join(fact(entry.provenance, "model", key) for key in ("provider", "load", "options"))


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
    _Aspect("seed", lambda e: fact(e.provenance, "seed")),
    _Aspect("dtype", lambda e: fact(e.provenance, "dtype")),
    _Aspect("fast paths", lambda e: "none" if "fast" not in e.provenance else fact(e.provenance, "fast")),
    _Aspect("device", lambda e: fact(e.provenance, "device")),
    _Aspect("weights", lambda e: _hashes(e.provenance), lambda e: e.cell.model, "most cells of the model"),
    _Aspect("adapter", _adapter, lambda e: e.cell.model, "most cells of the model"),
    _Aspect(
        "data",
        lambda e: short(fact(e.provenance, "dataset", "fingerprint")),
        lambda e: fact(e.provenance, "dataset", "name"),
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
    about = entry.provenance
    versions = about.get("versions")
    packages = sorted(versions) if isinstance(versions, Mapping) else []
    return {
        "protocol": _protocol(entry),
        "seed": fact(about, "seed"),
        "dtype": fact(about, "dtype"),
        "device": f"{fact(about, 'device')} ({fact(about, 'device_name')})",
        "date": fact(about, "date"),
        "git commit": _commit(fact(about, "git_commit")),
        **{package: fact(about, "versions", package) for package in packages},
    }


def _commit(text: str) -> str:
    """Return a short commit; the + of a changed work tree stays."""
    return short(text.removesuffix("+")) + ("+" if text.endswith("+") else "")
