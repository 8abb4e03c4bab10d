"""One run: from cells to scores. Groups cells by (model, data set), reuses stored results, evaluates the rest."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from promptseg.errors import BrokenPluginError, PromptsegError, ResultsError, UnsupportedPromptError
from promptseg.evaluation import jobs as evaluate_jobs
from promptseg.evaluation.kinds import Kind, count_cases, kind_of
from promptseg.files.datasets import LocalData
from promptseg.files.models import fetch_model
from promptseg.files.revisions import revision_to_pin
from promptseg.preparation import fetch
from promptseg.progress import Progress
from promptseg.registry.entries import Registry
from promptseg.results import provenance
from promptseg.results.masks import MaskStore, SavedMask
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.runner import groups, precision_guard
from promptseg.runner.devices import ALONE, WorkerSlot
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.local import Engine, LocalEngine
from promptseg.runner.options import Options
from promptseg.samples import Samples
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import PROMPT_KINDS, Cell, DatasetSpec, MaskChoice, ModelSpec, PromptMode
from promptseg.verdicts import gates, stopping
from promptseg.verdicts import summary as scores
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.gates import BaselineVerdict
from promptseg.verdicts.score import CellScore
from promptseg.verdicts.thresholds import Threshold


class Run:
    """Answers `score` for every cell of a run; the first cell of a group pays for the group.

    Args:
        options: of the run.
        registry: names to specs.
        thresholds: what cells must reach.
        baseline: what cells must not be worse than, None for no such gates.
        progress: shown while a group is evaluated.
        root: the folder whose git commit results carry.
        process: which one this is of those that share the machine (xdist workers).
    """

    def __init__(
        self,
        options: Options,
        registry: Registry,
        thresholds: Mapping[Cell, Threshold],
        baseline: Baseline | None,
        progress: Progress,
        root: Path,
        process: WorkerSlot = ALONE,
    ) -> None:
        self._options = options
        self.registry = registry
        self._thresholds = thresholds
        self._baseline = baseline
        self._progress = progress
        self._root = root
        self.notices: list[str] = []
        self._store = ResultStore(options.results, self.notices.append)
        self._masks = MaskStore(options.results, self.notices.append)
        self._planned: dict[tuple[str, str], set[Cell]] = defaultdict(set)
        self._scored: dict[Cell, CellScore] = {}
        self._asked: set[Cell] = set()
        self._failed: dict[tuple[str, str], PromptsegError] = {}
        self._unusable: dict[Cell, ResultsError] = {}
        self._local = LocalEngine(options, process, self.notices.append)
        self._joined: Engine | None = None
        self._opened: dict[str, tuple[LocalData, Samples]] = {}
        self._n_cases: dict[str, int] = {}

    def plan(self, cells: Iterable[Cell]) -> None:
        """Tell which cells will be asked for, so that a group is evaluated in one pass over its images."""
        for cell in cells:
            self._planned[self._key(cell)].add(cell)

    def close(self) -> None:
        """Let the workers of a cluster go."""
        for engine in (self._joined, self._local):
            if engine is not None:
                engine.close()
        self._joined = None

    @property
    def _engine(self) -> Engine:
        """Who evaluates. A cluster is joined once for the run."""
        if self._options.engine == "local":
            return self._local
        if self._joined is None:
            from promptseg.runner.ray_engine import Cluster

            self._joined = Cluster(self._options)
        return self._joined

    def _key(self, cell: Cell) -> tuple[str, str]:
        return cell.model, self.registry.tasks[cell.task].dataset.name

    def score(self, cell: Cell) -> CellScore:
        """Return the score of a cell, from stored results where these answer it.

        Raises:
            PromptsegError: of any kind; what keeps a group from being evaluated is raised for each of its cells. A cell
                that failed is tried again when it is asked for again.
        """
        part = self._part(cell)
        key = self._key(cell)
        if cell in self._asked:  # by a plugin that runs failed tests again, say
            self._forget_failure(cell)
        self._asked.add(cell)
        if key in self._failed:
            raise self._failed[key]
        if cell not in self._scored:
            self._unusable.pop(cell, None)
            try:
                self._score_group(key, [part, *self._others(key, cell)])
            except Exception as error:  # a plugin may raise anything; each cell of the group reports it
                self._failed[key] = _as_promptseg_error(key, error)
                raise self._failed[key] from error
        if cell in self._unusable:
            raise self._unusable[cell]
        return self._scored[cell]

    def _forget_failure(self, cell: Cell) -> None:
        """Let a cell that failed be tried again: what it lacked may be there by now."""
        self._failed.pop(self._key(cell), None)
        if cell in self._scored and self._scored[cell].too_many_errors:
            del self._scored[cell]

    def _part(self, cell: Cell) -> PlannedCell:
        """Return the specs. Raises for unknown or broken names, names that do not go together, and unusable results."""
        model = self.registry.model(cell.model)
        dataset, task = self.registry.task(cell.task)
        mode = self.registry.mode(cell.mode)
        if mode.needs not in model.accepts:
            raise UnsupportedPromptError(_unsupported(model, mode))
        self._store.check(cell)
        return PlannedCell(cell, dataset, task, mode)

    def _others(self, key: tuple[str, str], cell: Cell) -> list[PlannedCell]:
        """Return the planned cells of the group that are still open and can be evaluated."""
        parts = []
        for other in sorted(self._planned[key] - {cell} - set(self._scored)):
            try:
                parts.append(self._part(other))
            except PromptsegError:
                continue  # raised again when the test of that cell asks
        return parts

    def _score_group(self, key: tuple[str, str], parts: list[PlannedCell]) -> None:
        kinds = {kind_of(part.mode).name: kind_of(part.mode) for part in parts}
        for kind in kinds.values():
            of_kind = [part for part in parts if part.mode.kind == kind.name]
            self._score_kind(self._open(key, of_kind[0].dataset, kind), of_kind)

    def _score_kind(self, group: ModelOnDataset, parts: list[PlannedCell]) -> None:
        fingerprints = {part.cell: groups.fingerprint(group.identity, part) for part in parts}
        loaded = self._loaded(fingerprints)
        parts = [part for part in parts if part.cell in loaded]
        results = {} if self._options.rerun else self._stored(group, parts, loaded)
        missing = [part for part in parts if part.cell not in results]
        if missing:
            results |= self._evaluate(group, missing, fingerprints)
        for part in parts:
            self._scored[part.cell] = self._scored_cell(group, part, results[part.cell])

    def _open(self, key: tuple[str, str], dataset: DatasetSpec, kind: Kind) -> ModelOnDataset:
        """Bring files and data, and write down what the results depend on."""
        options, model = self._options, self.registry.model(key[0])
        device = self._engine.device(options.device)
        files = fetch_model(model)
        data, samples = self._samples(dataset)
        self._note_unpinned((model, files.revision), (dataset, data.revision))
        identity = groups.identity(kind, model, dataset, files, samples, options, device)
        about = {
            **groups.about(self.registry.models[model.name], dataset, files, data),
            "git_commit": provenance.git_commit(self._root),
            "n_images": len(kind.cases(samples)),
        }
        order = tuple(evaluate_jobs.seeded_order(kind.cases(samples), dataset.name, options.order_seed))
        return ModelOnDataset(kind, model, dataset, files, samples, order, identity, about)

    def _note_unpinned(self, *used: tuple[ModelSpec | DatasetSpec, str | None]) -> None:
        for spec, revision in used:
            lines = revision_to_pin(spec, revision)
            self.notices += [f"{spec.name} is not pinned; used: {line}" for line in lines]

    def _samples(self, dataset: DatasetSpec) -> tuple[LocalData, Samples]:
        """Open a data set once for all models."""
        if dataset.name not in self._opened:
            self._opened[dataset.name] = fetch.open_samples(dataset, self._progress.group)
        return self._opened[dataset.name]

    def _loaded(self, fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult | None]:
        """Return the stored results; a cell whose result cannot be read is left out, and fails alone."""
        loaded = {}
        for cell, fingerprint in fingerprints.items():
            try:
                loaded[cell] = self._store.load(cell, fingerprint)
            except ResultsError as error:
                self._unusable[cell] = error
        return loaded

    def _stored(
        self, group: ModelOnDataset, parts: Iterable[PlannedCell], loaded: Mapping[Cell, CellResult | None]
    ) -> dict[Cell, CellResult]:
        """Return the stored results that need nothing more."""
        pairs = [(part, loaded[part.cell]) for part in parts]
        enough = {part.cell: result for part, result in pairs if result and self._is_enough(group, part, result)}
        for result in enough.values():
            self._store.drop_journals(result)
        return enough

    def _is_enough(self, group: ModelOnDataset, part: PlannedCell, result: CellResult) -> bool:
        if any(row.error for row in result.rows):
            return False  # failed cases are tried again
        if self._options.save_masks:
            sample = groups.sample(result, group.order, self._options.limit)
            if not sample <= self._masks.cases(result.cell, result.fingerprint):
                return False
        if result.n_examined == len(group.order) or self._stop(group, part, result):
            return True
        limit = self._options.limit
        return limit is not None and len({row.case_id for row in result.rows}) >= limit

    def _evaluate(
        self, group: ModelOnDataset, parts: list[PlannedCell], fingerprints: Mapping[Cell, str]
    ) -> dict[Cell, CellResult]:
        options = self._options
        jobs = {part.cell: self._job(group, part, fingerprints[part.cell]) for part in parts}
        guarded = self._guarded(group, parts, fingerprints)
        title = f"{group.model.name} on {group.dataset.name} ({len(parts)} cells)"
        sink = self._sink(jobs, fingerprints)
        with self._progress.group(title, len(group.order)) as advance:
            evaluated, ran = self._engine.evaluate(group, parts, list(jobs.values()), sink, advance)
        seconds = dataclasses.asdict(evaluated.timings)
        about = {**group.identity, **group.about, **ran, "date": provenance.today(), "seconds": seconds}
        results = {}
        for part, cases in zip(parts, evaluated.cases, strict=True):
            told = {**about, **({"precision": guarded[part.cell]} if part.cell in guarded else {})}
            results[part.cell] = groups.result(group, part, cases, fingerprints[part.cell], told)
        if options.save_masks:
            for cell in results:
                self._masks.save(cell, fingerprints[cell])
        return {cell: self._store.save(result) for cell, result in results.items()}

    def _job(self, group: ModelOnDataset, part: PlannedCell, fingerprint: str) -> evaluate_jobs.CellJob:
        """Return the cell's job with the cases that earlier runs finished."""
        done: dict[str, tuple[ResultRow, ...]] = {}
        if not self._options.rerun:
            stored = self._store.load(part.cell, fingerprint)
            done |= groups.finished_cases(stored, group.order) if stored else {}
            done |= self._store.finished_cases(part.cell, fingerprint)
        if self._options.save_masks:
            saved = self._masks.cases(part.cell, fingerprint)
            done = {case_id: rows for case_id, rows in done.items() if case_id in saved or not rows}
        job = evaluate_jobs.CellJob(part.task, part.mode, done, keeps_masks=self._options.save_masks)
        questions = self._questions(group, part)
        if not questions:
            return job
        watch = stopping.Watch(partial(stopping.stop, group.order, questions, self._bounds))
        return dataclasses.replace(job, is_settled=watch)

    def _sink(self, jobs: Mapping[Cell, evaluate_jobs.CellJob], fingerprints: Mapping[Cell, str]) -> evaluate_jobs.Sink:
        """Return what keeps each case on disk: its masks before its rows, which say that it is finished."""
        rows_of = {job: self._store.journal(cell, fingerprints[cell]) for cell, job in jobs.items()}
        masks_of = {job: self._masks.journal(cell, fingerprints[cell]) for cell, job in jobs.items()}

        def keep(
            job: evaluate_jobs.CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]
        ) -> None:
            if masks:
                masks_of[job].append(case_id, masks)
            rows_of[job].append(case_id, rows)

        return keep

    def _guarded(
        self, group: ModelOnDataset, parts: list[PlannedCell], fingerprints: Mapping[Cell, str]
    ) -> Mapping[Cell, Mapping[str, Any]]:
        """Hold a reduced dtype or a fast path against float32; return what each result tells of it, nothing if neither.

        Raises:
            PrecisionError: they do not agree.
        """
        options = self._options
        device = self._engine.device(options.device)
        runtime = Runtime(device=device, dtype=options.dtype, fast=options.fast)
        reference = Runtime(device=device)
        if runtime == reference:
            return {}
        self._engine.check(group, runtime)
        machine = self._engine.machine(device)

        def answers_in(
            runtime: Runtime,
        ) -> Callable[[precision_guard.ProbeSet], list[precision_guard.ProbeAnswer | Exception]]:
            return lambda trial: self._engine.answers(group, runtime, trial)

        return precision_guard.guard(
            {part.cell: (part.task, part.mode) for part in parts},
            lambda cells: precision_guard.trial(group.samples, group.order, cells, options.seed),
            answers_in(reference),
            answers_in(runtime),
            keys={part.cell: groups.precision_key(group, fingerprints[part.cell], machine) for part in parts},
            what=f"{group.model.name} on {group.dataset.name} with {', '.join([runtime.dtype, *sorted(runtime.fast)])}",
            bound=options.precision_bound,
        )

    @property
    def _bounds(self) -> stopping.Bounds:
        return stopping.Bounds(limit=self._options.limit, max_errors=self._options.max_errors)

    def _stop(self, group: ModelOnDataset, part: PlannedCell, result: CellResult) -> stopping.Stop | None:
        """Return where a stored result stopped; None for one that did not, or that speaks of the whole data set."""
        if result.n_examined == len(group.order):
            return None
        cases = groups.examined_cases(result, group.order)
        return stopping.stop(group.order, self._questions(group, part), self._bounds, cases)

    def _questions(self, group: ModelOnDataset, part: PlannedCell) -> list[stopping.StopCriterion]:
        """Return what the verdict on a cell depends on, if the run asks to stop once that is settled."""
        options, level = self._options, self._options.until_sure
        if level is None:
            return []
        n_images, questions = len(group.order), []
        threshold = self._thresholds.get(part.cell)
        if threshold is not None and self._can_be_held(threshold, group, part):
            questions.append(stopping.of_threshold(threshold, n_images, level))
        before = self._before(part.cell)
        if before is not None:
            questions.append(stopping.of_baseline(before, self._select(part), options.max_drop, n_images, level))
        return questions

    def _can_be_held(self, threshold: Threshold, group: ModelOnDataset, part: PlannedCell) -> bool:
        """Whether a threshold speaks of the whole data set; masks are counted only where it names a number of cases."""
        if threshold.n is None and threshold.at_most is None:
            return True
        if part.task.name not in self._n_cases:
            self._n_cases[part.task.name] = count_cases(kind_of(part.mode), group.samples, part.task, part.mode)
        return threshold.speaks_of(self._n_cases[part.task.name], whole=True)

    def _before(self, cell: Cell) -> CellResult | None:
        """Return the baseline's result of a cell, None where there is none or it cannot be read."""
        if self._baseline is None:
            return None
        with suppress(ResultsError):  # told when the cell is held against it
            return self._baseline.result(cell)
        return None

    def _select(self, part: PlannedCell) -> MaskChoice:
        return part.mode.select or self._options.select

    def runtime(self) -> Runtime:
        """Return what this process loads models for. Raises `ConfigError` for a device that is not here."""
        return self._local.runtime()

    def load(self, name: str) -> Segmenter:
        """Return a model, ready to run. Raises `PromptsegError` for one that is broken, or whose files are missing."""
        model = self.registry.model(name)
        return self._local.load(model, fetch_model(model), self.runtime())

    def _scored_cell(self, group: ModelOnDataset, part: PlannedCell, result: CellResult) -> CellScore:
        threshold = self._thresholds.get(part.cell)
        select = self._select(part)
        stop = self._stop(group, part, result)
        sample = set(stop.case_ids) if stop else groups.sample(result, group.order, self._options.limit)
        rows = [row for row in result.rows if row.case_id in sample]
        summary = scores.summarise(rows, select)
        other = threshold is not None and threshold.select != select
        return CellScore(
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
            stop=stop,
        )

    def _relative(self, result: CellResult, select: MaskChoice) -> BaselineVerdict | None:
        """Hold the cases of this run against the baseline."""
        if self._baseline is None:
            return None
        options = self._options
        terms = gates.GateSettings(
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
    takes = " and ".join(sorted(model.accepts & set(PROMPT_KINDS)))
    return f"{model.name} takes {takes}; {mode.name} gives {mode.needs}"


def _as_promptseg_error(key: tuple[str, str], error: Exception) -> PromptsegError:
    if isinstance(error, PromptsegError):
        return error
    return BrokenPluginError(f"{key[0]} on {key[1]} failed with {type(error).__name__}: {error}")
