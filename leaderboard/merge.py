"""Merge the results of several folders, so that each cell shows one. Pure; the order of the results does not matter.

Results with the same fingerprint are of the same evaluation: where their scores agree they are united, with the cases
of all; where they differ, the cell has a conflict, which is reported. Results with other fingerprints are other
versions, of which one is shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptseg.results.rows import CellResult, ResultRow, merged
from promptseg.specs import SELECTS, Cell, MaskChoice
from promptseg.verdicts import comparable

FLOAT_NOISE = 1e-6
"""The largest difference of two IoUs of one evaluation that is no conflict."""

Changes = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """A result and the folder that it is stored in, as a reader would name it."""

    folder: str
    result: CellResult


@dataclass(frozen=True, kw_only=True)
class Merged:
    """One result for each cell.

    Attributes:
        results: sorted by cell.
        changes: what is out of date about each of them, None where that is unknown.
        conflicts: cells with two results that have the same fingerprint and other scores, in words.
        versions: the results with other fingerprints that are not shown, in words.
    """

    results: tuple[CellResult, ...]
    changes: Mapping[Cell, tuple[str, ...] | None]
    conflicts: Mapping[Cell, tuple[str, ...]]
    versions: tuple[str, ...]


def merge(results: Iterable[FolderResult], changes: Callable[[CellResult], tuple[str, ...] | None]) -> Merged:
    """Merge results; ``changes`` returns what is out of date about one, None if that is unknown."""
    by_cell: dict[Cell, dict[str, list[FolderResult]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        by_cell[each.result.cell][each.result.fingerprint].append(each)
    kept: list[CellResult] = []
    outdated_of: dict[Cell, tuple[str, ...] | None] = {}
    conflicts: dict[Cell, tuple[str, ...]] = {}
    versions: list[str] = []
    for cell in sorted(by_cell):
        united = []
        for _, same in sorted(by_cell[cell].items()):
            one, conflict = _united(same)
            united.append(one)
            if conflict:
                conflicts[cell] = (*conflicts.get(cell, ()), *conflict)
        outdated = {one.result.fingerprint: changes(one.result) for one in united}
        shown = min(united, key=lambda one: _preference(one, outdated[one.result.fingerprint]))
        others = [one for one in united if one is not shown]
        versions += [_version(shown, other, outdated) for other in sorted(others, key=_order)]
        kept.append(shown.result)
        outdated_of[cell] = outdated[shown.result.fingerprint]
    return Merged(results=tuple(kept), changes=outdated_of, conflicts=conflicts, versions=tuple(versions))


# --- one fingerprint ----------------------------------------------------------------------------------------


def _united(same: Sequence[FolderResult]) -> tuple[FolderResult, list[str]]:
    """Return one result for all with one fingerprint, and a line for each that is in conflict with it."""
    first, *others = sorted(same, key=_order)
    conflicts = []
    for other in others:
        difference = _difference(first.result, other.result)
        if difference:
            cell = first.result.cell.id
            conflicts.append(f"{cell}: {difference} in {other.folder} than in {first.folder}, which is shown")
        else:
            first = dataclasses.replace(first, result=merged(other.result, first.result))
    return first, conflicts


def _order(stored: FolderResult) -> tuple[bool, int, str, str, str]:
    """Sort results: whole ones first, then those with more cases; the rest of the key makes the order unique."""
    result = stored.result
    rows = json.dumps([dataclasses.asdict(row) for row in result.rows], sort_keys=True)
    digest = hashlib.sha256(rows.encode()).hexdigest()
    return result.is_sample, -_cases(result), result.fingerprint, digest, stored.folder


def _cases(result: CellResult) -> int:
    return len({row.case_id for row in result.rows if not row.error})


def _difference(first: CellResult, other: CellResult) -> str:
    """Return how the scores of common cases differ, in words; empty where they agree."""
    known = {row.key: row for row in first.rows if not row.error}
    pairs = [(known[row.key], row) for row in other.rows if not row.error and row.key in known]
    apart = {row.case_id: gap for was, row in pairs if (gap := _gap(was, row)) > FLOAT_NOISE}
    if not apart:
        return ""
    count = f"{len(apart)} of {len({row.case_id for _, row in pairs})} cases"
    return f"{count} score otherwise, by up to {max(apart.values()):.3g} IoU,"


def _gap(a: ResultRow, b: ResultRow) -> float:
    return max(abs(_iou(a, select) - _iou(b, select)) for select in SELECTS)


def _iou(row: ResultRow, select: MaskChoice) -> float:
    return float(getattr(row, f"iou_{select}") or 0.0)


# --- several fingerprints -----------------------------------------------------------------------------------


def _preference(stored: FolderResult, changes: tuple[str, ...] | None) -> tuple[bool, bool, int, int, str]:
    """Sort versions: those of the installed code first, then whole ones, the most cases, the newest."""
    result = stored.result
    return bool(changes), result.is_sample, -_cases(result), -_day(result), result.fingerprint


def _day(result: CellResult) -> int:
    """Return the date as a number, 0 if it was not recorded."""
    digits = (result.provenance.date or "").replace("-", "")
    return int(digits) if digits.isdecimal() else 0


def _version(shown: FolderResult, other: FolderResult, outdated: Changes) -> str:
    ours, theirs = (_preference(one, outdated[one.result.fingerprint]) for one in (shown, other))
    reasons = ("is out of date", "is a sample", "has fewer cases", "is older", "comes later by fingerprint")
    reason = next(reason for reason, a, b in zip(reasons, ours, theirs, strict=True) if a != b)
    unlike = ", ".join(comparable.unlike(shown.result, other.result)) or "fingerprint"
    return f"{shown.result.cell.id}: that of {shown.folder} is shown; that of {other.folder} {reason} (other: {unlike})"
