"""The engine ``local``: evaluation in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from promptseg.evaluation import jobs as evaluate_jobs
from promptseg.evaluation.company import Dissent
from promptseg.files.datasets import LocalData
from promptseg.files.models import LocalModel
from promptseg.preparation import fetch
from promptseg.progress import Advance, OpenBar, hidden
from promptseg.runner import conformance, groups, guarded, precision_guard, timeout
from promptseg.runner.devices import ALONE, WorkerSlot, device_name, set_tf32
from promptseg.runner.embedding_cache import EmbeddingStore, cached
from promptseg.runner.ends import Plugin
from promptseg.runner.engine import batch_size
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.options import Options
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.samples import Samples
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import DatasetSpec, ModelSpec


class LocalEngine:
    """Evaluates in this process. One model is in memory at a time: two large ones may not fit.

    Args:
        options: of the run.
        process: which one this is of those that share the machine.
        notify: called with each sentence that the user should read.

    Attributes:
        calls: makes the calls into plugins, of this engine and of whoever uses it.
    """

    def __init__(
        self, options: Options, process: WorkerSlot = ALONE, notify: Callable[[str], None] = lambda _: None
    ) -> None:
        self._options = options
        self._process = process
        self._notify = notify
        self.calls = PluginCalls(options.seed, notify)
        self._embeddings = options.embedding_cache and EmbeddingStore(options.embedding_cache, notify)
        self._loaded: tuple[ModelSpec, Runtime, Segmenter] | None = None
        self._seen: set[tuple[str, Runtime]] = set()

    def device(self, wanted: str) -> str:
        """Return the device of this process. Raises `ConfigError` for one that this machine does not have."""
        return self._process.device(wanted)

    def load(self, model: ModelSpec, files: LocalModel, runtime: Runtime) -> Segmenter:
        """Return a model; it is loaded unless it was the last one. Its plugin may raise anything."""
        if self._loaded is None or self._loaded[:2] != (model, runtime):
            self._loaded = None  # frees the memory first
            with self.calls.running(), _heard(self._notify):
                self.calls.set_by_run(lambda: self._set_up(runtime))
                loaded = guarded.load(model, files, runtime, self.calls)
                if runtime.device == "cpu":  # again: it may be this model that imported torch
                    self.calls.set_by_run(self._process.take_cores)
            self._loaded = (model, runtime, timeout.limited(loaded, self._options.timeout))
            self._seen.add((model.name, runtime))
        return self._loaded[2]

    def _set_up(self, runtime: Runtime) -> None:
        if runtime.device == "cpu":
            self._process.take_cores()
        if runtime.device.startswith("cuda"):
            set_tf32(runtime)

    def segmenter(self, group: ModelOnDataset, runtime: Runtime) -> Segmenter:
        """Return the model of a group, with the embedding cache in front of it where the user asked for one."""
        model = self.load(group.model, group.files, runtime)
        if self._embeddings is None:
            return model
        identity = groups.embedding_identity(group, runtime, self.machine(runtime.device))
        return cached(model, self._embeddings, identity, self._notify)

    def evaluate(
        self,
        group: ModelOnDataset,
        parts: Sequence[PlannedCell],
        jobs: Sequence[evaluate_jobs.CellJob],
        sink: evaluate_jobs.Sink,
        advance: Advance,
    ) -> tuple[evaluate_jobs.Evaluated, dict[str, Any]]:
        """Evaluate the jobs; see `Engine`."""
        options, runtime = self._options, self.runtime()
        with self.calls.running():
            evaluated = group.kind.evaluate(
                self.segmenter(group, runtime),
                group.samples,
                jobs,
                sink,
                order=group.order,
                seed=options.seed,
                limit=options.limit,
                batch_size=batch_size(options, runtime.device),
                advance=advance,
            )
        return evaluated, {"device_name": self.machine(runtime.device), "engine": {"name": "local"}}

    def answers(
        self, group: ModelOnDataset, runtime: Runtime, trial: precision_guard.ProbeSet
    ) -> list[precision_guard.ProbeAnswer | Exception]:
        """Answer the precision guard; see `Engine`."""
        size = batch_size(self._options, runtime.device) or precision_guard.TOGETHER
        with self.calls.running():
            return precision_guard.answers(self.segmenter(group, runtime), trial, size)

    def open_samples(self, dataset: DatasetSpec, progress: OpenBar = hidden) -> tuple[LocalData, Samples]:
        """Return the folder of a data set and its samples, downloading and preparing it if need be."""
        plugin = Plugin(dataset.name, "data set")
        data, samples = self.calls.make(plugin, "load()", lambda: fetch.open_samples(dataset, progress))
        return data, guarded.guarded_samples(samples, dataset.name)

    def dissent(self, group: ModelOnDataset, runtime: Runtime, probes: precision_guard.ProbeSet) -> Dissent:
        """Ask the model in several kinds of company; see `Engine`."""
        with self.calls.running():
            model = self.load(group.model, group.files, runtime)  # stored embeddings would hide what the encoder keeps
            return conformance.dissent(model, probes, runtime, self._options.seed)

    def check(self, group: ModelOnDataset, runtime: Runtime) -> None:
        """Load the model unless it was before; see `Engine`."""
        if (group.model.name, runtime) not in self._seen:
            self.load(group.model, group.files, runtime)

    def machine(self, device: str) -> str:
        """Return the name of the GPU, or the processor's architecture."""
        return device_name(device)

    def runtime(self) -> Runtime:
        """Return what models are loaded for. Raises `ConfigError` for a device that this machine does not have."""
        options = self._options
        return Runtime(device=self.device(options.device), dtype=options.dtype, fast=options.fast)

    def close(self) -> None:
        """Drop the model."""
        self._loaded = None


@contextlib.contextmanager
def _heard(notify: Callable[[str], None]) -> Iterator[None]:
    """Pass on what the built-in adapters warn about while they load a model; a log is shown for failed tests only."""
    handler, logger = _Passing(notify), logging.getLogger("promptseg.models")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Passing(logging.Handler):
    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._notify = notify

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a warning on."""
        self._notify(record.getMessage())
