"""From results to what the site's pages say: plain values for JSON. Pure, sorted, rounded; nothing is drawn here."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from promptseg.leaderboard.aggregate import Entry, fact
from promptseg.results.store import CellResult, ResultRow
from promptseg.specs import SELECTS, Cell, MaskChoice
from promptseg.stats import paired
from promptseg.stats import summary as scores
from promptseg.stats.paired import Pair
from promptseg.verdicts.compare import Runs
from promptseg.verdicts.gates import BaselineVerdict
from promptseg.verdicts.score import CellScore
from promptseg.verdicts.thresholds import Threshold

_BINS = 20
_LIMITS = (0.05, 0.1, 0.2, 0.5)  # of differences, before 1
_DIGITS = 4
_PLAIN = re.compile(r"[a-z0-9_-]{1,120}")


def page_name(cell: Cell) -> str:
    """Return the name of a cell's files, without ending: its id where that is a plain name, else made one."""
    if _PLAIN.fullmatch(cell.id):
        return cell.id
    digest = hashlib.sha256("\0".join((cell.model, cell.task, cell.mode)).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^a-z0-9_-]+', '_', cell.id.lower())[:80]}-{digest}"


def number(value: float | None) -> float | None:
    """Return a number as pages carry it: with few digits; None for NaN, which JSON does not have."""
    return None if value is None or math.isnan(value) else round(value, _DIGITS)


def percent(part: float) -> float:
    """Return the size of an object, a part of its image, in percent: with few digits, of a tiny object too."""
    return float(f"{100 * part:.{_DIGITS}g}")


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows of equal keys as a list for each key, which is a fraction of their length as JSON."""
    found = list(rows)
    return {key: [row[key] for row in found] for key in (found[0] if found else ())}


# --- the board ----------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """A cell against its threshold: ``reached``, ``missed`` or ``none``, and why in words."""

    outcome: str
    words: str


def verdict(entry: Entry, result: CellResult, threshold: Threshold | None) -> Verdict:
    """Hold a stored result against its threshold, as the test that made it does."""
    speaks_of = threshold.select if threshold else entry.summary.select
    score = CellScore(
        cell=entry.cell,
        summary=entry.summary,
        threshold=threshold,
        asserted=scores.summarise(result.rows, speaks_of) if speaks_of != entry.summary.select else entry.summary,
        seed=int(result.provenance.get("seed") or 0),
        max_errors=entry.summary.n_errors,  # how many a run tolerated is not in its results
        n_images=result.n_images or entry.summary.n,
        whole=not entry.partial,
        fingerprint=result.fingerprint,
        provenance=result.provenance,
    )
    if not entry.scored:
        return Verdict("none", "no case was scored")
    if threshold is None or score.unasserted is not None:
        return Verdict("none", score.unasserted or "")
    mean, floor = score.asserted.mean_iou, threshold.floor
    relation = "at least" if score.reaches_threshold else "below"
    words = f"{speaks_of} mask {mean:.3f}, {relation} {floor:.3f} ({threshold.source})"
    return Verdict("reached" if score.reaches_threshold else "missed", words)


def board_row(entry: Entry, found: Verdict) -> dict[str, Any]:
    """Return a cell's line on the board."""
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
        "verdict": found.outcome,
        "why": found.words,
        "page": page_name(entry.cell),
    }


# --- a cell -------------------------------------------------------------------------------------------------


def case_columns(rows: Sequence[ResultRow], select: MaskChoice) -> dict[str, list[Any]]:
    """Return the cases of a result, sorted by id, a list for each column: IoU, size in percent of the image, error."""
    scored = paired.scored(rows)
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
        found: dict[str, Any] = {
            "id": case,
            "subject": row.subject_id,
            "size": None if failed else percent(row.area_fraction),
            "parts": None if failed else row.n_components,
            **{choice: number(values[choice].get(case)) for choice in shown},
            "last": None if failed else number(getattr(row, f"iou_{select}")),
            "error": errors.get(case),
        }
        return {key: value for key, value in found.items() if has.get(key, True)}

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
    """Return how differences are distributed, to both sides of a bin in whose middle nothing changed."""
    most = max(map(abs, values), default=0.0)
    limit = next((limit for limit in _LIMITS if most <= limit), 1.0)
    return _histogram(values, -limit, limit, _BINS + 1)


def _histogram(values: Sequence[float], low: float, high: float, bins: int) -> Histogram:
    counts, _ = np.histogram(np.array(values, dtype=float), bins=bins, range=(low, high))
    total = max(1, int(counts.sum()))
    return Histogram(low, high, counts.tolist(), (np.cumsum(counts) / total).round(_DIGITS).tolist())


def size_correlation(cases: Mapping[str, Sequence[Any]], select: MaskChoice) -> float | None:
    """Return the rank correlation of size and IoU over the scored cases, None where there is none."""
    pairs = [(s, v) for s, v in zip(cases["size"], cases[select], strict=True) if s is not None and v is not None]
    if len(pairs) < 2:
        return None
    sizes, values = np.array(pairs, dtype=float).T
    return number(scores.rank_correlation(sizes, values))


def facts(entry: Entry) -> dict[str, str]:
    """Return where a cell's number comes from, by name."""
    about = entry.provenance
    return {
        "data set": fact(about, "dataset", "name"),
        "licence of the images": fact(about, "dataset", "licence"),
        "images": fact(about, "n_images"),
        "model's family": fact(about, "model", "family"),
        "model's licence": fact(about, "model", "licence"),
        "protocol": fact(about, "protocol"),
        "seed": fact(about, "seed"),
        "dtype": fact(about, "dtype"),
        "device": fact(about, "device_name"),
        "evaluated on": fact(about, "date"),
    }


# --- two runs -----------------------------------------------------------------------------------------------


def compared_row(relative: BaselineVerdict, runs: Runs) -> dict[str, Any]:
    """Return a cell's line in the comparison of two runs."""
    found = relative.comparison
    low, high = (found.interval if found else None) or (math.nan, math.nan)
    return {
        "model": relative.cell.model,
        "task": relative.cell.task,
        "mode": relative.cell.mode,
        "n": found.n if found else 0,
        "before": number(found.before) if found else None,
        "after": number(found.after) if found else None,
        "delta": number(found.delta) if found else None,
        "low": number(low),
        "high": number(high),
        "p": float(f"{runs.p_holm[relative.cell]:.2g}") if found else None,
        "verdict": relative.outcome,
        "why": relative.reason,
        "page": page_name(relative.cell) if found else None,
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
