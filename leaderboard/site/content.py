"""The contents of the site's pages: plain values for JSON, from results. Pure, sorted, rounded; nothing is drawn."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from promptseg.leaderboard.aggregate import Entry, fact
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import SELECTS, Cell, MaskChoice
from promptseg.stats.correlation import rank_correlation
from promptseg.stats.paired import Pair
from promptseg.verdicts import summary as scores
from promptseg.verdicts.compare import Runs
from promptseg.verdicts.gates import BaselineVerdict
from promptseg.verdicts.score import CellScore
from promptseg.verdicts.thresholds import Threshold

_BINS = 20
_LIMITS = (0.05, 0.1, 0.2, 0.5)  # of differences, before 1
_DIGITS = 4
_PLAIN = re.compile(r"[a-z0-9_-]{1,120}")


def page_name(cell: Cell) -> str:
    """Return the name of a cell's files, without ending: its id if that is a plain name, else one made from it."""
    if _PLAIN.fullmatch(cell.id):
        return cell.id
    digest = hashlib.sha256("\0".join((cell.model, cell.task, cell.mode)).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^a-z0-9_-]+', '_', cell.id.lower())[:80]}-{digest}"


def number(value: float | None) -> float | None:
    """Return a number with the few digits that pages show; None for NaN, which JSON does not have."""
    return None if value is None or math.isnan(value) else round(value, _DIGITS)


def percent(part: float) -> float:
    """Return the size of an object, as a part of its image, in percent: with few significant digits."""
    return float(f"{100 * part:.{_DIGITS}g}")


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows with the same keys as one list for each key: as JSON that is a fraction of the length."""
    lines = list(rows)
    return {key: [row[key] for row in lines] for key in (lines[0] if lines else ())}


# --- the board ----------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """A cell against its threshold: ``reached``, ``missed`` or ``none``, and why in words."""

    outcome: str
    words: str


def verdict(entry: Entry, result: CellResult, threshold: Threshold | None) -> Verdict:
    """Compare a stored result with its threshold, as the test of the cell does."""
    select = threshold.select if threshold else entry.summary.select
    score = CellScore(
        cell=entry.cell,
        summary=entry.summary,
        threshold=threshold,
        asserted=scores.summarise(result.rows, select) if select != entry.summary.select else entry.summary,
        seed=result.provenance.seed or 0,
        max_errors=entry.summary.n_errors,  # results do not say how many failed cases their run tolerated
        n_images=result.n_images or entry.summary.n,
        whole=not entry.partial,
        fingerprint=result.fingerprint,
        provenance=result.provenance,
    )
    if not entry.scored:
        return Verdict("none", "no case was scored")
    if threshold is None or score.unasserted:
        return Verdict("none", score.unasserted)
    mean, floor = score.asserted.mean_iou, threshold.floor
    relation = "at least" if score.reaches_threshold else "below"
    words = f"{select} mask {mean:.3f}, {relation} {floor:.3f} ({threshold.source})"
    return Verdict("reached" if score.reaches_threshold else "missed", words)


def board_row(entry: Entry, verdict: Verdict) -> dict[str, Any]:
    """Return a cell's row on the board."""
    summary = entry.summary
    low, high = summary.ci95 or (math.nan, math.nan)
    return {
        "model": entry.cell.model,
        "floor": entry.is_floor,
        "task": entry.cell.task,
        "modality": entry.modality,
        "mode": entry.cell.mode,
        "mask": summary.select,
        "iou": number(summary.mean_iou),
        "low": number(low),
        "high": number(high),
        "n": summary.n,
        "failed": summary.n_errors,
        "sample": entry.partial,
        "seen": entry.seen if entry.seen in ("known", "likely") else "",
        "verdict": verdict.outcome,
        "why": verdict.words,
        "page": page_name(entry.cell),
    }


# --- a cell -------------------------------------------------------------------------------------------------


def case_columns(rows: Sequence[ResultRow], select: MaskChoice) -> dict[str, list[Any]]:
    """Return the cases of a result, sorted by id, a list for each column: IoU, size in percent of the image, error."""
    scored = scores.scored(rows)
    values = {choice: scores.case_values(scored, choice) for choice in SELECTS}
    shown = [choice for choice in SELECTS if choice == select or values[choice] != values[select]]
    last = {row.case_id: row for row in sorted(rows, key=lambda row: (row.case_id, row.click))}
    errors = {row.case_id: row.error for row in rows if row.error}
    has = {
        "subject": any(row.subject_id not in (None, row.case_id) for row in rows),
        "last": any(row.click for row in rows),
        "error": bool(errors),
    }

    def line(case: str, row: ResultRow) -> dict[str, Any]:
        failed = case in errors
        columns_of: dict[str, Any] = {
            "id": case,
            "subject": row.subject_id,
            "size": None if failed else percent(row.area_fraction),
            "parts": None if failed else row.n_components,
            **{choice: number(values[choice].get(case)) for choice in shown},
            "last": None if failed else number(getattr(row, f"iou_{select}")),
            "error": errors.get(case),
        }
        return {key: value for key, value in columns_of.items() if has.get(key, True)}

    return columns(line(case, row) for case, row in last.items()) or {"id": [], "size": [], select: []}


class Histogram(NamedTuple):
    """Counts in equal bins from ``low`` to ``high``, and the part of all values up to each bin's end."""

    low: float
    high: float
    counts: list[int]
    cumulated: list[float]


def of_ious(values: Sequence[float]) -> Histogram:
    """Return how IoUs are distributed."""
    return _histogram(values, 0.0, 1.0, _BINS)


def of_differences(values: Sequence[float]) -> Histogram:
    """Return how differences are distributed, with zero in the middle of the middle bin."""
    most = max(map(abs, values), default=0.0)
    limit = next((limit for limit in _LIMITS if most <= limit), 1.0)
    return _histogram(values, -limit, limit, _BINS + 1)


def _histogram(values: Sequence[float], low: float, high: float, bins: int) -> Histogram:
    counts, _ = np.histogram(np.array(values, dtype=float), bins=bins, range=(low, high))
    total = max(1, int(counts.sum()))
    return Histogram(low, high, counts.tolist(), (np.cumsum(counts) / total).round(_DIGITS).tolist())


def size_correlation(cases: Mapping[str, Sequence[Any]], select: MaskChoice) -> float | None:
    """Return the rank correlation of size and IoU over the scored cases, None if it is not defined."""
    pairs = [(s, v) for s, v in zip(cases["size"], cases[select], strict=True) if s is not None and v is not None]
    if len(pairs) < 2:
        return None
    sizes, values = np.array(pairs, dtype=float).T
    return number(rank_correlation(sizes, values))


def facts(entry: Entry) -> dict[str, str]:
    """Return the facts behind a cell's number, by name."""
    made = entry.provenance
    return {
        "data set": fact(made.dataset.name),
        "licence of the images": fact(made.dataset.licence),
        "images": fact(made.n_images),
        "model's family": fact(made.model.family),
        "model's licence": fact(made.model.licence),
        "protocol": fact(made.protocol),
        "seed": fact(made.seed),
        "dtype": fact(made.dtype),
        "device": fact(made.device_name),
        "evaluated on": fact(made.date),
    }


# --- two runs -----------------------------------------------------------------------------------------------


def compared_row(relative: BaselineVerdict, runs: Runs) -> dict[str, Any]:
    """Return a cell's row in the comparison of two runs."""
    comparison = relative.comparison
    low, high = (comparison.interval if comparison else None) or (math.nan, math.nan)
    return {
        "model": relative.cell.model,
        "task": relative.cell.task,
        "mode": relative.cell.mode,
        "n": comparison.n if comparison else 0,
        "before": number(comparison.before) if comparison else None,
        "after": number(comparison.after) if comparison else None,
        "delta": number(comparison.delta) if comparison else None,
        "low": number(low),
        "high": number(high),
        "p": float(f"{runs.p_holm[relative.cell]:.2g}") if comparison else None,
        "verdict": relative.outcome,
        "why": relative.reason,
        "page": page_name(relative.cell) if comparison else None,
    }


def pair_columns(pairs: Iterable[Pair]) -> dict[str, list[Any]]:
    """Return the cases of two runs, sorted by id, a list for each column."""
    return columns(
        {
            "id": pair.case_id,
            "size": percent(pair.area_fraction),
            "before": number(pair.before),
            "after": number(pair.after),
            "delta": number(pair.delta),
        }
        for pair in pairs
    )
