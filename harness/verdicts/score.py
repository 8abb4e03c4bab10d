"""The score of one cell as tests see it, compared with its threshold and its baseline, in numbers and in words."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TypedDict

from promptseg.results.provenance import Provenance
from promptseg.specs import Cell, MaskChoice
from promptseg.text import one_line
from promptseg.verdicts import summary as scores
from promptseg.verdicts.gates import BaselineEntry, BaselineVerdict
from promptseg.verdicts.stopping import Finding, Stop, StopEntry
from promptseg.verdicts.thresholds import Threshold

_SHOWN_ERRORS = 5


class CellEntry(TypedDict, total=False):
    """A scored cell in ``--seg-json``, as `CellScore.as_json` returns it and a test publishes it.

    Numbers that there are none of (no case was scored, no threshold applies) are None. ``iou`` and ``iou_per_click``
    have a key for each choice of mask, ``noc`` one for each target IoU. A cell that was not scored has only its names
    (``model``, ``task``, ``mode``) until the report adds ``outcome`` (``"passed"``, ``"failed"``, ``"skipped"``) and
    ``reason`` (None where it passed) to every cell.
    """

    model: str
    task: str
    mode: str
    n: int
    n_errors: int
    n_images: int
    select: MaskChoice | None
    mean_iou: float | None
    iou: dict[str, float | None]
    ci95: list[float] | None
    threshold: float | None
    threshold_select: MaskChoice | None
    tolerance: float | None
    threshold_source: str | None
    baseline: BaselineEntry | None
    partial: bool
    until_sure: StopEntry | None
    seed: int
    fingerprint: str
    iou_per_click: dict[str, list[float]]
    noc: dict[str, dict[str, float | None]]
    coverage: float | None
    calibration: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class CellScore:
    """The score of one cell, as tests see it.

    Attributes:
        cell: model, task and prompt mode.
        summary: the numbers; ``summary.select`` is the choice of mask that was asked for.
        threshold: what the cell must reach, None where nothing was set for it.
        asserted: the numbers under the choice of mask that the threshold applies to.
        seed: of prompts and sample.
        max_errors: number of cases that may fail.
        n_images: number of images in the data set.
        whole: whether all of them were examined and every case among them counts; False for a sample.
        fingerprint: of the stored result.
        provenance: where the result comes from.
        relative: the cell compared with its baseline, None where no baseline was asked for.
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
        """Whether the mean IoU is at least the threshold less its tolerance; True where none applies to this score."""
        if self.threshold is None or self._without_threshold is not None:
            return True
        if self._settled is not None:
            return self._settled.decision.above
        return self.threshold.is_reached_by(self.asserted.mean_iou)

    @property
    def keeps_baseline(self) -> bool:
        """Whether the cell is no worse than in the baseline; True where there is none to compare with."""
        return self.relative is None or not self.relative.fails

    @property
    def unasserted(self) -> str | None:
        """Why nothing can be asserted; None where a threshold applies to this score, or a baseline has the cell."""
        reason = self._without_threshold
        if reason is None or self.relative is None:
            return reason
        if self.relative.outcome != "missing":
            return None
        return f"{reason}, not in baseline {self.relative.settings.reference}"

    @property
    def _without_threshold(self) -> str | None:
        """The score, and why no threshold applies to it; None where one does."""
        scored = f"scored {self.mean_iou:.3f}"
        if self.threshold is None:
            return f"{scored}, no threshold"
        if self._settled is None and not self.threshold.applies_to(self.summary.n, whole=self.whole):
            applies_to = f"the threshold ({self.threshold.source}) applies to {self.threshold.cases}"
            return f"{scored} on {self.summary.n} cases, {applies_to}"
        return None

    @property
    def _settled(self) -> Finding | None:
        """How the threshold was settled where the cell stopped early."""
        return self.stop.finding("threshold") if self.stop else None

    def explain(self) -> str:
        """Return the message of a failing test; it can be read alone."""
        cell, summary = self.cell, self.asserted
        lines = [f"{cell.model} on {cell.task}, {cell.mode}: {self._verdict()}"]
        lines.append(f"n={summary.n} (data set: {self.n_images} images), seed {self.seed}, mask: {summary.select}")
        if self.stop:
            lines.append(f"partial: {self.stop.explain()}")
        if summary.worst:
            worst = ", ".join(f"{one_line(case_id)} {value:.3f}" for case_id, value in summary.worst)
            lines.append(f"worst cases: {worst}")
        shown = [f"case {case_id!r} failed: {one_line(reason)}" for case_id, reason in summary.errors[:_SHOWN_ERRORS]]
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
        unasserted = self._without_threshold
        if threshold is None or unasserted is not None:
            return unasserted or ""
        relation = ">=" if self.reaches_threshold else "<"
        return (
            f"mean IoU {self.asserted.mean_iou:.3f} {relation} {threshold.floor:.3f} "
            f"(threshold {threshold.value:.3f} - tolerance {threshold.tolerance:.3f}, {threshold.source})"
        )

    def as_json(self) -> CellEntry:
        """Return the cell's entry in ``--seg-json``."""
        summary, threshold = self.summary, self.threshold
        entry: CellEntry = {
            "model": self.cell.model,
            "task": self.cell.task,
            "mode": self.cell.mode,
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


def _numbers(summary: scores.Noc | scores.Calibration) -> dict[str, float | None]:
    return {name: _number(value) for name, value in dataclasses.asdict(summary).items()}
