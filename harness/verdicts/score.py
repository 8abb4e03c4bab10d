"""What a test sees of one cell: its score, held against its threshold and its baseline, in numbers and in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from promptseg.results.provenance import Provenance
from promptseg.specs import Cell, MaskChoice
from promptseg.verdicts import summary as scores
from promptseg.verdicts.gates import BaselineVerdict
from promptseg.verdicts.stopping import Finding, Stop
from promptseg.verdicts.thresholds import Threshold

_SHOWN_ERRORS = 5


class CellEntry(TypedDict, total=False):
    """The entry of a cell in ``--seg-json``, as `CellScore.as_json` writes it.

    A cell that was never scored has its names alone: ``model``, ``task`` and ``mode``.
    """

    model: str
    task: str
    mode: str
    n: int
    n_errors: int
    n_images: int
    select: MaskChoice | None
    mean_iou: float | None
    iou: Mapping[str, float | None]
    ci95: Sequence[float] | None
    threshold: float | None
    threshold_select: MaskChoice | None
    tolerance: float | None
    threshold_source: str | None
    baseline: Mapping[str, Any] | None
    partial: bool
    until_sure: Mapping[str, Any] | None
    seed: int
    fingerprint: str
    iou_per_click: Mapping[str, Sequence[float]]
    noc: Mapping[str, Mapping[str, float | None]]
    coverage: float | None
    calibration: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class CellScore:
    """The score of one cell, as tests see it.

    Attributes:
        cell: model, task and prompt mode.
        summary: the numbers; ``summary.select`` is the choice of mask that was asked for.
        threshold: what the cell must reach, None where nothing was set for it.
        asserted: the numbers under the choice of mask that the threshold speaks of.
        seed: of prompts and sample.
        max_errors: number of cases that may fail.
        n_images: number of images in the data set.
        whole: whether all of them were looked at and every case among them counts, which a sample is not.
        fingerprint: of the stored result.
        provenance: where the result comes from.
        relative: the cell against its baseline, None where no baseline was asked for.
        stop: where the cell stopped because its verdict was settled (``--seg-until-sure``), None where it did not.
    """

    cell: Cell
    summary: scores.Summary
    threshold: Threshold | None
    asserted: scores.Summary
    seed: int
    max_errors: int
    n_images: int
    whole: bool
    fingerprint: str
    provenance: Provenance
    relative: BaselineVerdict | None = None
    stop: Stop | None = None

    @property
    def mean_iou(self) -> float:
        """Mean IoU under the choice of mask that was asked for."""
        return self.summary.mean_iou

    @property
    def too_many_errors(self) -> bool:
        """Whether more cases failed than ``--seg-max-errors`` tolerates, or none was scored."""
        return self.summary.n_errors > self.max_errors or self.summary.n == 0

    @property
    def reaches_threshold(self) -> bool:
        """Whether the mean IoU is at least the threshold less its tolerance; True where none speaks of this score."""
        if self.threshold is None or self._without_threshold:
            return True
        if self._settled is not None:
            return self._settled.decision.above
        return self.threshold.is_reached_by(self.asserted.mean_iou)

    @property
    def keeps_baseline(self) -> bool:
        """Whether the cell is no worse than in the baseline; True where there is none to compare with."""
        return self.relative is None or not self.relative.fails

    @property
    def unasserted(self) -> str:
        """Why nothing can be asserted; empty where a threshold speaks of this score, or a baseline has the cell."""
        if self.relative is None or not self._without_threshold:
            return self._without_threshold
        if self.relative.outcome != "missing":
            return ""
        return f"{self._without_threshold}, not in baseline {self.relative.terms.reference}"

    @property
    def _without_threshold(self) -> str:
        """The score, and why it cannot be held against a threshold; empty where it can."""
        scored = f"scored {self.mean_iou:.3f}"
        if self.threshold is None:
            return f"{scored}, no threshold"
        if self._settled is None and not self.threshold.speaks_of(self.summary.n, whole=self.whole):
            speaks_of = f"the threshold ({self.threshold.source}) speaks of {self.threshold.cases}"
            return f"{scored} on {self.summary.n} cases, {speaks_of}"
        return ""

    @property
    def _settled(self) -> Finding | None:
        """What was found about the threshold where the cell stopped early."""
        return self.stop.finding("threshold") if self.stop else None

    def explain(self) -> str:
        """Return what a failing test says; it can be read alone."""
        cell, summary = self.cell, self.asserted
        lines = [f"{cell.model} on {cell.task}, {cell.mode}: {self._verdict()}"]
        lines.append(f"n={summary.n} (data set: {self.n_images} images), seed {self.seed}, mask: {summary.select}")
        if self.stop:
            lines.append(f"partial: {self.stop.explain()}")
        if summary.worst:
            worst = ", ".join(f"{case_id} {value:.3f}" for case_id, value in summary.worst)
            lines.append(f"worst cases: {worst}")
        shown = [f"case {case_id!r} failed: {reason}" for case_id, reason in summary.errors[:_SHOWN_ERRORS]]
        if summary.n_errors > _SHOWN_ERRORS:
            shown.append(f"and {summary.n_errors - _SHOWN_ERRORS} more")
        relative = [self.relative.explain()] if self.relative and self.relative.fails else []
        return "\n".join([*relative, *lines, *shown] if self.reaches_threshold else [*lines, *shown, *relative])

    def _verdict(self) -> str:
        summary, threshold = self.summary, self.threshold
        if summary.n == 0 and summary.n_errors == 0:
            return "no case of the data set belongs to the task; check its label ids"
        if self.too_many_errors:
            return f"failed cases: {summary.n_errors}, tolerated: {self.max_errors} (--seg-max-errors)"
        if threshold is None or self._without_threshold:
            return self._without_threshold
        relation = ">=" if self.reaches_threshold else "<"
        return (
            f"mean IoU {self.asserted.mean_iou:.3f} {relation} {threshold.floor:.3f} "
            f"(threshold {threshold.value:.3f} - tolerance {threshold.tolerance:.3f}, {threshold.source})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the cell's entry in ``--seg-json``."""
        summary, threshold = self.summary, self.threshold
        entry: dict[str, Any] = {
            **dataclasses.asdict(self.cell),
            "n": summary.n,
            "n_errors": summary.n_errors,
            "n_images": self.n_images,
            "select": summary.select,
            "mean_iou": _number(summary.mean_iou),
            "iou": {choice: _number(value) for choice, value in summary.iou.items()},
            "ci95": list(summary.ci95) if summary.ci95 else None,
            "threshold": threshold.value if threshold else None,
            "threshold_select": threshold.select if threshold else None,
            "tolerance": threshold.tolerance if threshold else None,
            "threshold_source": threshold.source if threshold else None,
            "baseline": self.relative.as_json() if self.relative else None,
            "partial": not self.whole,
            "until_sure": self.stop.as_json() if self.stop else None,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
        }
        if summary.iou_per_click is not None:
            entry["iou_per_click"] = {choice: list(values) for choice, values in summary.iou_per_click.items()}
        if summary.noc is not None:
            entry["noc"] = {name: _numbers(noc) for name, noc in summary.noc.items()}
        if summary.coverage is not None:
            entry["coverage"] = _number(summary.coverage)
        if summary.calibration is not None:
            entry["calibration"] = _numbers(summary.calibration)
        return entry


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numbers(found: scores.Noc | scores.Calibration) -> dict[str, float | None]:
    return {name: _number(value) for name, value in dataclasses.asdict(found).items()}
