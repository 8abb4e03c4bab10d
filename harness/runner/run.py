"""One run: from cells to scores. Cells of one (model, data set) are evaluated together, reusing stored results."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from promptseg.errors import BrokenPluginError, IntegrityError, PromptsegError, ResultsError, UnsupportedPromptError
from promptseg.evaluation.jobs import seeded_order
from promptseg.evaluation.kinds import Kind, count_cases, kind_of
from promptseg.files.datasets import LocalData
from promptseg.files.models import fetch_model
from promptseg.files.revisions import revision_to_pin
from promptseg.progress import OpenBar, hidden
from promptseg.registry.entries import Registry
from promptseg.results import provenance, running
from promptseg.results.masks import MaskStore
from promptseg.results.rows import CellResult
from promptseg.results.store import ResultStore
from promptseg.runner import conformance, groups, precision_guard, speed
from promptseg.runner.devices import ALONE, WorkerSlot
from promptseg.runner.engine import Engine
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.local import LocalEngine
from promptseg.runner.options import Options
from promptseg.runner.reuse import Reuse
from promptseg.samples import Samples
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import PROMPT_KINDS, Cell, DatasetSpec, ModelSpec, PromptMode
from promptseg.verdicts import judge
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.judge import RunSettings
from promptseg.verdicts.score import CellScore
from promptseg.verdicts.stopping import Bounds
from promptseg.verdicts.thresholds import Threshold


def open_run(
    options: Options,
    registry: Registry,
    cells: Iterable[Cell],
    *,
    thresholds: Mapping[Cell, Threshold] | None = None,
    baseline: Baseline | None = None,
    open_bar: OpenBar = hidden,
    process: WorkerSlot = ALONE,
) -> Run:
    """Return a run of some cells.

    Args:
        options: of the run; results carry the git commit of ``options.root``.
        registry: names to specs.
        cells: those that will be asked for, so that a group is evaluated in one pass over its images. Others may be
            asked for too.
        thresholds: what cells must reach; a cell may have none.
        baseline: what cells must not be worse than, None for no such gates.
        open_bar: shows progress while a group is evaluated.
        process: which one this is of those that share the machine (xdist workers).
    """
    run = Run(options, registry, thresholds or {}, baseline, open_bar, process)
    run.plan(cells)
    return run


class Run:
    """Returns the score of every cell of a run; the first cell of a group waits for the evaluation of the group.

    Use `open_run`, which describes the arguments.

    Attributes:
        notices: sentences that the user should read; whoever shows them clears the list.
    """

    def __init__(
        self,
        options: Options,
        registry: Registry,
        thresholds: Mapping[Cell, Threshold],
        baseline: Baseline | None,
        open_bar: OpenBar,
        process: WorkerSlot,
    ) -> None:
        self._options = options
        self.registry = registry
        self._thresholds = thresholds
        self._baseline = baseline
        self._open_bar = open_bar
        self.notices: list[str] = []
        self._store = ResultStore(options.results, self.notices.append)
        self._masks = MaskStore(options.results, self.notices.append)
        self._reuse = Reuse(self._store, self._masks, options)
        self._planned: dict[tuple[str, str], set[Cell]] = defaultdict(set)
        self._scored: dict[Cell, CellScore] = {}
        self._asked: set[Cell] = set()
        self._failed: dict[tuple[str, str], PromptsegError] = {}
        self._unusable: dict[Cell, ResultsError] = {}
        self._reported: dict[str, Cell] = {}
        self._local = LocalEngine(options, process, self.notices.append)
        self._cluster: Engine | None = None
        self._opened: dict[str, tuple[LocalData, Samples]] = {}
        self._n_cases: dict[str, int] = {}
        self._conforming: set[str] = set()

    def plan(self, cells: Iterable[Cell]) -> None:
        """Add cells that will be asked for."""
        for cell in cells:
            self._planned[self._key(cell)].add(cell)

    def close(self) -> None:
        """Release the model, and the workers of a cluster."""
        for engine in (self._cluster, self._local):
            if engine is not None:
                engine.close()
        self._cluster = None

    @property
    def _engine(self) -> Engine:
        """The engine that evaluates. A cluster is joined once for the run."""
        if self._options.engine == "local":
            return self._local
        if self._cluster is None:
            from promptseg.runner.ray_engine import Cluster

            self._cluster = Cluster(self._options, self.notices.append)
        return self._cluster

    def runtime(self) -> Runtime:
        """Return what this process loads models for. Raises `ConfigError` for a device that is not here."""
        return self._local.runtime()

    def load(self, name: str) -> Segmenter:
        """Return a model, ready to run. Raises `PromptsegError` for one that is broken, or whose files are missing."""
        model = self.registry.model(name)
        return self._local.load(model, fetch_model(model), self.runtime())

    @contextlib.contextmanager
    def measuring(self, model: str) -> Iterator[None]:
        """Let a model's calls be timed in the block: without what is done once for all of them, and with a mark."""
        with (
            running.marked(self._options.results, model, speed.IMAGES_FROM, ["test_speed"]),
            self._local.calls.running(),
        ):
            yield

    def _key(self, cell: Cell) -> tuple[str, str]:
        return cell.model, self.registry.tasks[cell.task].dataset.name

    # --- scores and failures --------------------------------------------------------------------------------

    def score(self, cell: Cell) -> CellScore:
        """Return the score of a cell, from stored results where they are enough.

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
            raise self._once(cell, self._failed[key])
        if cell not in self._scored:
            self._unusable.pop(cell, None)
            try:
                self._scored |= self._scores(key, [part, *self._others(key, cell)])
            except Exception as error:  # a plugin may raise anything; each cell of the group reports it
                self._failed[key] = _as_promptseg_error(key, error)
                raise self._once(cell, self._failed[key]) from error
        if cell in self._unusable:
            raise self._unusable[cell]
        return self._scored[cell]

    def _once(self, cell: Cell, error: PromptsegError) -> PromptsegError:
        """Return an error of a model's files in full for the first cell that meets it; others refer to that cell."""
        first = self._reported.setdefault(str(error), cell)
        if first == cell or not isinstance(error, IntegrityError):
            return error
        return IntegrityError(f"cannot be evaluated, for the reason that {first.id} gives")

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
        """Return the planned cells of the group that have no score yet and can be evaluated."""
        parts = []
        for other in sorted(self._planned[key] - {cell} - set(self._scored)):
            try:
                parts.append(self._part(other))
            except PromptsegError:
                continue  # raised again when the test of that cell asks
        return parts

    # --- one group ------------------------------------------------------------------------------------------

    def _scores(self, key: tuple[str, str], parts: list[PlannedCell]) -> dict[Cell, CellScore]:
        """Return the scores of cells of one model on one data set, each kind of work after the other."""
        scores: dict[Cell, CellScore] = {}
        for kind in {kind_of(part.mode).name: kind_of(part.mode) for part in parts}.values():
            of_kind = [part for part in parts if part.mode.kind == kind.name]
            scores |= self._scores_of_kind(self._open(key, of_kind[0].dataset, kind), of_kind)
        return scores

    def _scores_of_kind(self, group: ModelOnDataset, parts: list[PlannedCell]) -> dict[Cell, CellScore]:
        """Return the scores of cells of one group; what is stored and not enough is evaluated further.

        A cell whose stored result cannot be read is left out, and fails alone.
        """
        fingerprints = {part.cell: groups.fingerprint(group.identity, part) for part in parts}
        stored, unusable = self._reuse.results(fingerprints, frozenset(group.order))
        self._unusable |= unusable
        parts = [part for part in parts if part.cell not in unusable]
        settings = self._settings(group, parts, stored)
        scores = self._reuse.scores(stored.values(), settings)
        missing = [part for part in parts if part.cell not in scores]
        if missing:
            results = self._evaluate(group, missing, fingerprints, settings)
            scores |= {result.cell: judge.judge(result, settings) for result in results}
        return scores

    def _open(self, key: tuple[str, str], dataset: DatasetSpec, kind: Kind) -> ModelOnDataset:
        """Fetch files and data, and record what the results depend on."""
        options, model = self._options, self.registry.model(key[0])
        device = self._engine.device(options.device)
        files = fetch_model(model)
        data, samples = self._samples(dataset)
        self._note_unpinned((model, files.revision), (dataset, data.revision))
        identity = groups.identity(kind, model, dataset, files, samples, options, device)
        about = {
            **groups.about(self.registry.models[model.name], dataset, files, data),
            "git_commit": provenance.git_commit(options.root),
            "n_images": len(kind.cases(samples)),
        }
        order = tuple(seeded_order(kind.cases(samples), dataset.name, options.order_seed))
        return ModelOnDataset(kind, model, dataset, files, samples, order, identity, about)

    def _note_unpinned(self, *used: tuple[ModelSpec | DatasetSpec, str | None]) -> None:
        for spec, revision in used:
            lines = revision_to_pin(spec, revision)
            self.notices += [f"{spec.name} is not pinned; used: {line}" for line in lines]

    def _samples(self, dataset: DatasetSpec) -> tuple[LocalData, Samples]:
        """Open a data set once for all models."""
        if dataset.name not in self._opened:
            self._opened[dataset.name] = self._local.open_samples(dataset, self._open_bar)
        return self._opened[dataset.name]

    def _settings(
        self, group: ModelOnDataset, parts: Iterable[PlannedCell], stored: Mapping[Cell, CellResult]
    ) -> RunSettings:
        """Return what the verdicts on the cells depend on.

        Counting a task's cases reads all masks of a data set, so it is done only where a verdict may depend on it.
        """
        options, cells = self._options, {part.cell: part for part in parts}
        settings = RunSettings(
            order=group.order,
            selects={cell: part.mode.select or options.select for cell, part in cells.items()},
            bounds=Bounds(limit=options.limit, max_errors=options.max_errors),
            seed=options.seed,
            thresholds=self._thresholds,
            baseline=self._baseline.of_cells(cells) if self._baseline else None,
            until_sure=options.until_sure,
            max_drop=options.max_drop,
            strata=options.strata,
        )
        examined = {cell for cell, result in stored.items() if result.n_examined == len(group.order)}
        for cell, part in cells.items():
            if part.task.name not in self._n_cases and cell not in examined and judge.counts_cases(cell, settings):
                self._n_cases[part.task.name] = count_cases(group.kind, group.samples, part.task, part.mode)
        return dataclasses.replace(settings, n_cases=dict(self._n_cases))

    def _evaluate(
        self,
        group: ModelOnDataset,
        parts: list[PlannedCell],
        fingerprints: Mapping[Cell, str],
        settings: RunSettings,
    ) -> list[CellResult]:
        """Evaluate the cases that are missing and store the results."""
        jobs = {part.cell: self._reuse.job(part, fingerprints[part.cell], settings) for part in parts}
        title = f"{group.model.name} on {group.dataset.name} ({len(parts)} cells)"
        sink = self._reuse.sink(jobs, fingerprints)
        cells = [f"{part.cell.task}-{part.cell.mode}" for part in parts]
        with running.marked(self._options.results, group.model.name, group.dataset.name, cells):
            guarded = self._guarded(group, parts, fingerprints)
            self._check_conformance(group, parts)
            with self._open_bar(title, len(group.order)) as advance:
                evaluated, ran = self._engine.evaluate(group, parts, list(jobs.values()), sink, advance)
        seconds = dataclasses.asdict(evaluated.timings)
        common = {**group.identity, **group.about, **ran, "date": provenance.today(), "seconds": seconds}
        results = []
        for part, cases in zip(parts, evaluated.cases, strict=True):
            about = {**common, **({"precision": guarded[part.cell]} if part.cell in guarded else {})}
            results.append(groups.result(group, part, cases, fingerprints[part.cell], about))
        if self._options.save_masks:
            for result in results:
                self._masks.save(result.cell, result.fingerprint)
        return [self._store.save(result) for result in results]

    def _check_conformance(self, group: ModelOnDataset, parts: list[PlannedCell]) -> None:
        """Ask a model that is new here in several kinds of company, before anything that it answers counts.

        Raises:
            ModelError: its answers depend on company.
        """
        options, engine = self._options, self._engine
        runtime = Runtime(device=engine.device(options.device), dtype=options.dtype, fast=options.fast)
        key = groups.conformance_key(group, runtime, engine.machine(runtime.device))
        if key in self._conforming or conformance.is_known(key):
            return
        cells = {part.cell: (part.task, part.mode) for part in parts if part.task == parts[0].task}
        probes = precision_guard.trial(group.samples, group.order, cells, options.seed, conformance.N_CASES)
        conformance.settle(key, group.model.name, engine.dissent(group, runtime, probes))
        self._conforming.add(key)

    def _guarded(
        self, group: ModelOnDataset, parts: list[PlannedCell], fingerprints: Mapping[Cell, str]
    ) -> Mapping[Cell, Mapping[str, Any]]:
        """Return what the precision guard adds to the provenance of each cell, nothing for float32 in eager mode.

        Raises:
            PrecisionError: the masks are not those of float32.
        """
        options, engine = self._options, self._engine
        runtime = Runtime(device=engine.device(options.device), dtype=options.dtype, fast=options.fast)
        if runtime == Runtime(device=runtime.device):
            return {}
        engine.check(group, runtime)
        machine = engine.machine(runtime.device)
        return precision_guard.guard(
            {part.cell: (part.task, part.mode) for part in parts},
            group.samples,
            group.order,
            lambda runtime, trial: engine.answers(group, runtime, trial),
            runtime=runtime,
            seed=options.seed,
            keys={part.cell: groups.precision_key(group, fingerprints[part.cell], machine) for part in parts},
            what=f"{group.model.name} on {group.dataset.name}",
            bound=options.precision_bound,
        )


def _unsupported(model: ModelSpec, mode: PromptMode) -> str:
    if mode.needs == "everything":
        return f"{model.name} does not segment everything; {mode.name} needs stability and predicted IoU of its masks"
    takes = " and ".join(sorted(model.accepts & set(PROMPT_KINDS)))
    return f"{model.name} takes {takes}; {mode.name} gives {mode.needs}"


def _as_promptseg_error(key: tuple[str, str], error: Exception) -> PromptsegError:
    if isinstance(error, PromptsegError):
        return error
    return BrokenPluginError(f"{key[0]} on {key[1]} failed with {type(error).__name__}: {error}")
