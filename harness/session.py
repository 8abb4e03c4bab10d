"""One run: from cells to scores. Groups cells by (model, data set), reuses stored results, evaluates the rest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg import evaluate, gates, provenance, scores, store
from promptseg.baselines import Baseline
from promptseg.errors import BrokenPluginError, PromptsegError, ResultsError, UnsupportedPromptError
from promptseg.gates import Relative
from promptseg.masks import MaskStore
from promptseg.options import Options
from promptseg.progress import Progress
from promptseg.references import code_hash, resolve
from promptseg.registry import Registry
from promptseg.results import SCHEMA_VERSION, CellResult, ResultStore
from promptseg.samples import Samples
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import Cell, DatasetSpec, ModelSpec, Origin, PromptMode, Select, TaskSpec
from promptseg.thresholds import Threshold

PROTOCOL = "paper"
PROTOCOL_VERSION = 1
_BATCH_SIZE = {"cuda": 8}  # images encoded together where the user does not say; 1 elsewhere
_SHOWN_ERRORS = 5
# What turns images and predictions into scores. Its source is part of every fingerprint.
_SCORING = (
    "promptseg.evaluate",
    "promptseg.images",
    "promptseg.metrics",
    "promptseg.parquet_samples",
    "promptseg.prompts",
    "promptseg.samples",
)


@dataclass(frozen=True, kw_only=True)
class Score:
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
    provenance: Mapping[str, Any]
    relative: Relative | None = None

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
        if not self.threshold.speaks_of(self.summary.n, whole=self.whole):
            speaks_of = f"the threshold ({self.threshold.source}) speaks of {self.threshold.cases}"
            return f"{scored} on {self.summary.n} cases, {speaks_of}"
        return ""

    def explain(self) -> str:
        """Return what a failing test says; it can be read alone."""
        cell, summary = self.cell, self.asserted
        lines = [f"{cell.model} on {cell.task}, {cell.mode}: {self._verdict()}"]
        lines.append(f"n={summary.n} (data set: {self.n_images} images), seed {self.seed}, mask: {summary.select}")
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


@dataclass(frozen=True)
class _Part:
    """A cell with its specs."""

    cell: Cell
    dataset: DatasetSpec
    task: TaskSpec
    mode: PromptMode


@dataclass(frozen=True)
class _Group:
    """A model on a data set, ready to be evaluated: everything that is known before the model is loaded."""

    model: ModelSpec
    dataset: DatasetSpec
    files: store.LocalModel
    samples: Samples
    order: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


class Evaluation:
    """Answers `score` for every cell of a run; the first cell of a group pays for the group.

    Args:
        options: of the run.
        registry: names to specs.
        thresholds: what cells must reach.
        baseline: what cells must not be worse than, None for no such gates.
        progress: shown while a group is evaluated.
        root: the folder whose git commit results carry.
        processes: how many share this machine's cores (xdist workers).
    """

    def __init__(
        self,
        options: Options,
        registry: Registry,
        thresholds: Mapping[Cell, Threshold],
        baseline: Baseline | None,
        progress: Progress,
        root: Path,
        processes: int = 1,
    ) -> None:
        self._options = options
        self._registry = registry
        self._thresholds = thresholds
        self._baseline = baseline
        self._progress = progress
        self._root = root
        self._processes = processes
        self.notices: list[str] = []
        self._store = ResultStore(options.results, self.notices.append)
        self._masks = MaskStore(options.results, self.notices.append)
        self._planned: dict[tuple[str, str], set[Cell]] = defaultdict(set)
        self._scored: dict[Cell, Score] = {}
        self._failed: dict[tuple[str, str], PromptsegError] = {}
        self._loaded: tuple[str, Segmenter] | None = None
        self._opened: dict[str, tuple[store.LocalData, Samples]] = {}

    def plan(self, cells: Iterable[Cell]) -> None:
        """Tell which cells will be asked for, so that a group is evaluated in one pass over its images."""
        for cell in cells:
            self._planned[self._key(cell)].add(cell)

    def _key(self, cell: Cell) -> tuple[str, str]:
        return cell.model, self._registry.tasks[cell.task].dataset.name

    def score(self, cell: Cell) -> Score:
        """Return the score of a cell, from stored results where these answer it.

        Raises:
            PromptsegError: of any kind; what keeps a group from being evaluated is raised for each of its cells.
        """
        part = self._part(cell)
        key = self._key(cell)
        if key in self._failed:
            raise self._failed[key]
        if cell not in self._scored:
            try:
                self._score_group(key, [part, *self._others(key, cell)])
            except Exception as error:  # a plugin may raise anything; each cell of the group reports it
                self._failed[key] = _as_promptseg_error(key, error)
                raise self._failed[key] from error
        return self._scored[cell]

    def _part(self, cell: Cell) -> _Part:
        """Return the specs. Raises for names that are unknown, broken or do not go together."""
        model = self._registry.model(cell.model)
        dataset, task = self._registry.task(cell.task)
        mode = self._registry.mode(cell.mode)
        if mode.needs not in model.accepts:
            raise UnsupportedPromptError(_unsupported(model, mode))
        return _Part(cell, dataset, task, mode)

    def _others(self, key: tuple[str, str], cell: Cell) -> list[_Part]:
        """Return the planned cells of the group that are still open and can be evaluated."""
        parts = []
        for other in sorted(self._planned[key] - {cell} - set(self._scored)):
            try:
                parts.append(self._part(other))
            except PromptsegError:
                continue  # raised again when the test of that cell asks
        return parts

    def _score_group(self, key: tuple[str, str], parts: list[_Part]) -> None:
        group = self._open(key, parts[0].dataset)
        fingerprints = {part.cell: _fingerprint(group.identity, part) for part in parts}
        results = {} if self._options.rerun else self._stored(group, fingerprints)
        missing = [part for part in parts if part.cell not in results]
        if missing:
            results |= self._evaluate(group, missing, fingerprints)
        for part in parts:
            self._scored[part.cell] = self._scored_cell(group, part, results[part.cell])

    def _open(self, key: tuple[str, str], dataset: DatasetSpec) -> _Group:
        """Bring files and data, and write down what the results depend on."""
        options, model = self._options, self._registry.model(key[0])
        device = provenance.resolve_device(options.device)
        files = store.fetch_model(model)
        data, samples = self._samples(dataset)
        self._note_unpinned((model, files.revision), (dataset, data.revision))
        identity = {
            "schema": SCHEMA_VERSION,
            "protocol": [PROTOCOL, PROTOCOL_VERSION],
            "model": {
                "name": model.name,
                "code": code_hash(model.load),
                "options": dict(model.options),
                "accepts": sorted(model.accepts),
                "sha256": dict(files.sha256),
            },
            "dataset": {
                "name": dataset.name,
                "code": code_hash(dataset.load),
                "options": dict(dataset.options),
                "labels": sorted(label for task in dataset.tasks for label in task.labels),
                "fingerprint": samples.fingerprint,
            },
            "scoring": [code_hash(module) for module in _SCORING],
            "seed": options.seed,
            "device": device.split(":")[0],
            "dtype": options.dtype,
        }
        about = {
            "device_name": provenance.device_name(device),
            "model": {**_about_model(model, files), "provider": self._registry.models[model.name].provider},
            "dataset": _about_dataset(dataset, data),
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(self._root),
            "n_images": len(samples.ids()),
        }
        order = tuple(evaluate.seeded_order(samples.ids(), dataset.name, options.seed))
        return _Group(model, dataset, files, samples, order, identity, about)

    def _note_unpinned(self, *used: tuple[ModelSpec | DatasetSpec, str | None]) -> None:
        for spec, revision in used:
            lines = store.revision_to_pin(spec, revision)
            self.notices += [f"{spec.name} is not pinned; used: {line}" for line in lines]

    def _samples(self, dataset: DatasetSpec) -> tuple[store.LocalData, Samples]:
        """Open a data set once for all models."""
        if dataset.name not in self._opened:
            self._opened[dataset.name] = store.open_samples(dataset, self._progress.group)
        return self._opened[dataset.name]

    def _stored(self, group: _Group, fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult]:
        """Return the stored results that need nothing more."""
        found = {cell: self._store.load(cell, fingerprint) for cell, fingerprint in fingerprints.items()}
        return {cell: result for cell, result in found.items() if result and self._is_enough(group, result)}

    def _is_enough(self, group: _Group, result: CellResult) -> bool:
        if any(row.error for row in result.rows):
            return False  # failed cases are tried again
        if self._options.save_masks:
            sample = _sample(result, group.order, self._options.limit)
            if not sample <= self._masks.cases(result.cell, result.fingerprint):
                return False
        if result.n_examined == len(group.order):
            return True
        limit = self._options.limit
        return limit is not None and len({row.case_id for row in result.rows}) >= limit

    def _evaluate(self, group: _Group, parts: list[_Part], fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult]:
        options = self._options
        jobs = {part.cell: self._job(group, part, fingerprints[part.cell]) for part in parts}
        device = group.identity["device"]
        title = f"{group.model.name} on {group.dataset.name} ({len(parts)} cells)"
        with self._progress.group(title, len(group.order)) as advance:
            clock = evaluate.evaluate(
                self._segmenter(group),
                group.samples,
                list(jobs.values()),
                order=group.order,
                seed=options.seed,
                limit=options.limit,
                batch_size=options.batch_size or _BATCH_SIZE.get(device, 1),
                advance=advance,
            )
        about = {**group.identity, **group.about, "date": provenance.today(), "seconds": dataclasses.asdict(clock)}
        results = {part.cell: _result(group, part, jobs[part.cell], fingerprints[part.cell], about) for part in parts}
        if options.save_masks:
            for cell in results:
                self._masks.save(cell, fingerprints[cell])
        return {cell: self._store.save(result) for cell, result in results.items()}

    def _job(self, group: _Group, part: _Part, fingerprint: str) -> evaluate.Job:
        """Return the cell's job with the cases that earlier runs finished."""
        job = evaluate.Job(part.task, part.mode, self._store.journal(part.cell, fingerprint))
        if not self._options.rerun:
            stored = self._store.load(part.cell, fingerprint)
            if stored is not None:
                job.cases.update(_finished_cases(stored, group.order))
            job.cases.update(self._store.finished_cases(part.cell, fingerprint))
        if self._options.save_masks:
            job.masks = self._masks.journal(part.cell, fingerprint)
            saved = self._masks.cases(part.cell, fingerprint)
            job.cases = {case_id: rows for case_id, rows in job.cases.items() if case_id in saved or not rows}
        return job

    def _segmenter(self, group: _Group) -> Segmenter:
        """Load the model, or take it from the group before."""
        if self._loaded is None or self._loaded[0] != group.model.name:
            self._loaded = None  # frees the memory first
            device = provenance.resolve_device(self._options.device)
            if self._processes > 1 and device == "cpu":
                _share_cores(self._processes)
            runtime = Runtime(device=device, dtype=self._options.dtype)
            model: Segmenter = resolve(group.model.load)(group.model, group.files.files, runtime)
            self._loaded = (group.model.name, model)
        return self._loaded[1]

    def _scored_cell(self, group: _Group, part: _Part, result: CellResult) -> Score:
        threshold = self._thresholds.get(part.cell)
        select: Select = part.mode.select or self._options.select
        sample = _sample(result, group.order, self._options.limit)
        rows = [row for row in result.rows if row.case_id in sample]
        summary = scores.summarise(rows, select)
        other = threshold is not None and threshold.select != select
        return Score(
            cell=part.cell,
            summary=summary,
            threshold=threshold,
            asserted=scores.summarise(rows, threshold.select) if threshold and other else summary,
            seed=self._options.seed,
            max_errors=self._options.max_errors,
            n_images=len(group.order),
            whole=result.n_examined == len(group.order) and len(rows) == len(result.rows),
            fingerprint=result.fingerprint,
            provenance=result.provenance,
            relative=self._relative(dataclasses.replace(result, rows=tuple(rows)), select),
        )

    def _relative(self, result: CellResult, select: Select) -> Relative | None:
        """Hold the cases of this run against the baseline."""
        if self._baseline is None:
            return None
        options = self._options
        terms = gates.Terms(
            reference=self._baseline.reference,
            select=select,
            max_drop=options.max_drop,
            strata=options.strata,
            max_errors=options.max_errors,
        )
        try:
            return gates.against(self._baseline.result(result.cell), result, terms)
        except ResultsError as error:
            return gates.refused(result.cell, terms, str(error))


def _unsupported(model: ModelSpec, mode: PromptMode) -> str:
    if mode.needs == "everything":
        return f"{model.name} does not segment everything; {mode.name} needs stability and predicted IoU of its masks"
    takes = " and ".join(sorted(model.accepts & {"points", "boxes"}))
    return f"{model.name} takes {takes}; {mode.name} gives {mode.needs}"


def _share_cores(processes: int) -> None:
    """Give torch its share of the cores: processes that each use them all slow one another down severalfold."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _as_promptseg_error(key: tuple[str, str], error: Exception) -> PromptsegError:
    if isinstance(error, PromptsegError):
        return error
    return BrokenPluginError(f"{key[0]} on {key[1]} failed with {type(error).__name__}: {error}")


def _fingerprint(identity: Mapping[str, Any], part: _Part) -> str:
    """Return what changes when, and only when, something changes that a result may depend on."""
    mode = {
        "name": part.mode.name,
        "simulate": part.mode.simulate,
        "code": code_hash(part.mode.simulate),
        "steps": part.mode.steps,
        "guide": part.mode.guide,
        "grid": part.mode.grid,
    }
    whole = {**identity, "task": {"name": part.task.name, "labels": sorted(part.task.labels)}, "mode": mode}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _about_origin(origin: Origin | None, revision: str | None) -> dict[str, Any]:
    """Return where files come from; the path of a folder on somebody's machine is left out."""
    if origin is None:
        return {"host": None, "repo": None, "revision": revision}
    return {"host": origin.host, "repo": origin.repo if origin.host != "local" else None, "revision": revision}


def _about_model(model: ModelSpec, files: store.LocalModel) -> dict[str, Any]:
    return {
        "family": model.family,
        "load": model.load,
        "licence": model.licence,
        **_about_origin(model.origin, files.revision),
        "training_data": model.training_data,
        "url": model.url,
        "sees_target": model.sees_target,
    }


def _about_dataset(dataset: DatasetSpec, data: store.LocalData) -> dict[str, Any]:
    return {
        "modality": dataset.modality,
        "licence": dataset.licence,
        **_about_origin(dataset.origin, data.revision),
        "url": dataset.url,
        "study": dataset.study,
        "overlaps": dataset.overlaps,
        "prepared": data.prepared,
    }


def _finished_cases(result: CellResult, order: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Return rows by case of a stored result, empty for examined cases outside the task, without failed ones."""
    cases: dict[str, tuple[Any, ...]] = dict.fromkeys(order[: result.n_examined], ())
    for row in result.rows:
        cases[row.case_id] = (*cases.get(row.case_id, ()), row)
    return {case_id: rows for case_id, rows in cases.items() if not any(row.error for row in rows)}


def _result(group: _Group, part: _Part, job: evaluate.Job, fingerprint: str, about: Mapping[str, Any]) -> CellResult:
    examined = next((i for i, case_id in enumerate(group.order) if case_id not in job.cases), len(group.order))
    rows = [row for case_id in sorted(job.cases) for row in job.cases[case_id]]
    mode = {key: getattr(part.mode, key) for key in ("needs", "steps", "guide", "grid", "select")}
    task = {"labels": part.task.labels, "target": part.task.target, "n_masks": part.task.n_masks}
    return CellResult(
        cell=part.cell,
        fingerprint=fingerprint,
        rows=tuple(rows),
        n_examined=examined,
        provenance={
            **about,
            "model": {**about["model"], **group.identity["model"]},
            "dataset": {**about["dataset"], **group.identity["dataset"]},
            "task": task,
            "mode": mode,
        },
    )


def _sample(result: CellResult, order: tuple[str, ...], limit: int | None) -> set[str]:
    """Return the case ids that a run of this limit speaks of: the first of the seeded order."""
    present = {row.case_id for row in result.rows}
    return set([case_id for case_id in order if case_id in present][:limit])
