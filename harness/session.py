"""One run: from cells to scores. Groups cells by (model, data set), reuses stored results, evaluates the rest."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from promptseg import evaluate, gates, groups, provenance, scores, store, timeout
from promptseg.baselines import Baseline
from promptseg.errors import BrokenPluginError, PromptsegError, ResultsError, UnsupportedPromptError
from promptseg.gates import Relative
from promptseg.groups import Group, Part
from promptseg.masks import MaskStore
from promptseg.options import Options
from promptseg.progress import Progress
from promptseg.references import resolve
from promptseg.registry import Registry
from promptseg.results import CellResult, ResultStore
from promptseg.samples import Samples
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import Cell, DatasetSpec, ModelSpec, PromptMode, Select
from promptseg.thresholds import Threshold
from promptseg.verdict import Score

_BATCH_SIZE = {"cuda": 8}  # images encoded together where the user does not say; 1 elsewhere


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

    def _part(self, cell: Cell) -> Part:
        """Return the specs. Raises for names that are unknown, broken or do not go together."""
        model = self._registry.model(cell.model)
        dataset, task = self._registry.task(cell.task)
        mode = self._registry.mode(cell.mode)
        if mode.needs not in model.accepts:
            raise UnsupportedPromptError(_unsupported(model, mode))
        return Part(cell, dataset, task, mode)

    def _others(self, key: tuple[str, str], cell: Cell) -> list[Part]:
        """Return the planned cells of the group that are still open and can be evaluated."""
        parts = []
        for other in sorted(self._planned[key] - {cell} - set(self._scored)):
            try:
                parts.append(self._part(other))
            except PromptsegError:
                continue  # raised again when the test of that cell asks
        return parts

    def _score_group(self, key: tuple[str, str], parts: list[Part]) -> None:
        group = self._open(key, parts[0].dataset)
        fingerprints = {part.cell: groups.fingerprint(group.identity, part) for part in parts}
        results = {} if self._options.rerun else self._stored(group, fingerprints)
        missing = [part for part in parts if part.cell not in results]
        if missing:
            results |= self._evaluate(group, missing, fingerprints)
        for part in parts:
            self._scored[part.cell] = self._scored_cell(group, part, results[part.cell])

    def _open(self, key: tuple[str, str], dataset: DatasetSpec) -> Group:
        """Bring files and data, and write down what the results depend on."""
        options, model = self._options, self._registry.model(key[0])
        device = provenance.resolve_device(options.device)
        files = store.fetch_model(model)
        data, samples = self._samples(dataset)
        self._note_unpinned((model, files.revision), (dataset, data.revision))
        identity = groups.identity(model, dataset, files, samples, options, device)
        about = {
            **groups.about(self._registry.models[model.name], dataset, files, data, device),
            "git_commit": provenance.git_commit(self._root),
            "n_images": len(samples.ids()),
        }
        order = tuple(evaluate.seeded_order(samples.ids(), dataset.name, options.seed))
        return Group(model, dataset, files, samples, order, identity, about)

    def _note_unpinned(self, *used: tuple[ModelSpec | DatasetSpec, str | None]) -> None:
        for spec, revision in used:
            lines = store.revision_to_pin(spec, revision)
            self.notices += [f"{spec.name} is not pinned; used: {line}" for line in lines]

    def _samples(self, dataset: DatasetSpec) -> tuple[store.LocalData, Samples]:
        """Open a data set once for all models."""
        if dataset.name not in self._opened:
            self._opened[dataset.name] = store.open_samples(dataset, self._progress.group)
        return self._opened[dataset.name]

    def _stored(self, group: Group, fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult]:
        """Return the stored results that need nothing more."""
        found = {cell: self._store.load(cell, fingerprint) for cell, fingerprint in fingerprints.items()}
        return {cell: result for cell, result in found.items() if result and self._is_enough(group, result)}

    def _is_enough(self, group: Group, result: CellResult) -> bool:
        if any(row.error for row in result.rows):
            return False  # failed cases are tried again
        if self._options.save_masks:
            sample = groups.sample(result, group.order, self._options.limit)
            if not sample <= self._masks.cases(result.cell, result.fingerprint):
                return False
        if result.n_examined == len(group.order):
            return True
        limit = self._options.limit
        return limit is not None and len({row.case_id for row in result.rows}) >= limit

    def _evaluate(self, group: Group, parts: list[Part], fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult]:
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
        results = {
            part.cell: groups.result(group, part, jobs[part.cell], fingerprints[part.cell], about) for part in parts
        }
        if options.save_masks:
            for cell in results:
                self._masks.save(cell, fingerprints[cell])
        return {cell: self._store.save(result) for cell, result in results.items()}

    def _job(self, group: Group, part: Part, fingerprint: str) -> evaluate.Job:
        """Return the cell's job with the cases that earlier runs finished."""
        job = evaluate.Job(part.task, part.mode, self._store.journal(part.cell, fingerprint))
        if not self._options.rerun:
            stored = self._store.load(part.cell, fingerprint)
            if stored is not None:
                job.cases.update(groups.finished_cases(stored, group.order))
            job.cases.update(self._store.finished_cases(part.cell, fingerprint))
        if self._options.save_masks:
            job.masks = self._masks.journal(part.cell, fingerprint)
            saved = self._masks.cases(part.cell, fingerprint)
            job.cases = {case_id: rows for case_id, rows in job.cases.items() if case_id in saved or not rows}
        return job

    def _segmenter(self, group: Group) -> Segmenter:
        """Load the model, or take it from the group before."""
        if self._loaded is None or self._loaded[0] != group.model.name:
            self._loaded = None  # frees the memory first
            device = provenance.resolve_device(self._options.device)
            if self._processes > 1 and device == "cpu":
                _share_cores(self._processes)
            runtime = Runtime(device=device, dtype=self._options.dtype)
            model: Segmenter = resolve(group.model.load)(group.model, group.files.files, runtime)
            self._loaded = (group.model.name, timeout.limited(model, self._options.timeout))
        return self._loaded[1]

    def _scored_cell(self, group: Group, part: Part, result: CellResult) -> Score:
        threshold = self._thresholds.get(part.cell)
        select: Select = part.mode.select or self._options.select
        sample = groups.sample(result, group.order, self._options.limit)
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
