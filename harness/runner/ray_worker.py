"""A worker of the engine ``ray``: it opens a model and a data set, and evaluates the cases that the driver sends.

This module does not import Ray: the driver (`promptseg.runner.ray_engine`) makes an actor of `Worker`. Driver and
worker exchange the dataclasses below; errors too, since an exception with arguments of its own cannot be unpickled.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptseg.errors import PromptsegError
from promptseg.evaluation.company import Dissent
from promptseg.evaluation.jobs import Cases, CellJob, Timings
from promptseg.evaluation.kinds import KINDS
from promptseg.files.models import fetch_model
from promptseg.registry.references import code_hash
from promptseg.results import provenance
from promptseg.results.masks import SavedMask
from promptseg.results.rows import ResultRow
from promptseg.runner import groups, precision_guard
from promptseg.runner.devices import device_name, limit_threads
from promptseg.runner.engine import batch_size
from promptseg.runner.groups import ModelOnDataset
from promptseg.runner.local import LocalEngine
from promptseg.runner.options import Options
from promptseg.runner.shards import Shard
from promptseg.samples import Samples
from promptseg.segmenter import Runtime
from promptseg.specs import DatasetSpec, ModelSpec, PromptMode, TaskSpec


@dataclass(frozen=True)
class Order:
    """What a worker opens: a model on a data set, and the cells of that group in the order of their index.

    ``path`` is the driver's module search path: an adapter may be stored beside the tests.
    """

    kind: str
    model: ModelSpec
    dataset: DatasetSpec
    cells: tuple[tuple[TaskSpec, PromptMode], ...]
    options: Options
    device: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """What a worker has opened: its ``facts`` must equal the driver's, its ``versions`` too but for local parts.

    ``notices`` are sentences that the user should read.
    """

    node: str
    device_name: str
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinishedCase:
    """One case in one cell (by its index), with its candidate masks if the run saves masks."""

    job: int
    case_id: str
    rows: tuple[ResultRow, ...]
    masks: tuple[SavedMask, ...]


@dataclass(frozen=True)
class Outcome:
    """The finished cases of a shard, the seconds that it took, and sentences that the user should read."""

    finished: tuple[FinishedCase, ...]
    timings: Timings
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An exception that a worker sends to the driver: node, name of its class and message."""

    node: str
    kind: str
    message: str


def facts(identity: Mapping[str, Any], modes: Sequence[PromptMode]) -> dict[str, Any]:
    """Return what must be the same on driver and workers, so that results do not depend on where a case ran."""
    return {**identity, "prompt modes": {mode.name: code_hash(mode.simulate) for mode in modes}}


class Worker:
    """One process of the cluster: evaluates shards of the group that it opened last.

    Args:
        threads: number of threads of torch; the workers of a machine share its cores.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._local: LocalEngine | None = None
        self._order: Order | None = None
        self._group: ModelOnDataset | None = None
        self._samples: dict[str, Samples] = {}
        self._notices: list[str] = []

    def open(self, order: Order) -> Opened | Failure:
        """Fetch files and data, load the model, and return what the results here will depend on."""
        try:
            return self._open(order)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return _failure(error)

    def _open(self, order: Order) -> Opened:
        group = self._open_group(order)
        self._engine(order).check(group, _runtime(order))
        self._order, self._group = order, group
        return Opened(
            node=platform.node(),
            device_name=device_name(order.device),
            facts=facts(group.identity, [mode for _, mode in order.cells]),
            versions=group.about["versions"],
            notices=self._take_notices(),
        )

    def _take_notices(self) -> tuple[str, ...]:
        notices = tuple(self._notices)
        self._notices.clear()
        return notices

    def _open_group(self, order: Order) -> ModelOnDataset:
        """Fetch files and data, and record what results here depend on."""
        sys.path += [folder for folder in order.path if folder not in sys.path]
        files = fetch_model(order.model)
        if order.dataset.name not in self._samples:
            _, self._samples[order.dataset.name] = self._engine(order).open_samples(order.dataset)
        samples = self._samples[order.dataset.name]
        kind = KINDS[order.kind]
        identity = groups.identity(kind, order.model, order.dataset, files, samples, order.options, order.device)
        return ModelOnDataset(
            kind,
            order.model,
            order.dataset,
            files,
            samples,
            (),
            identity,
            {"versions": provenance.versions()},
        )

    def _engine(self, order: Order) -> LocalEngine:
        """Return the engine of this process: evaluation runs as without a cluster."""
        limit_threads(self._threads)
        if self._local is None:
            self._local = LocalEngine(order.options, notify=self._notices.append)
        return self._local

    def answers(
        self, order: Order, runtime: Runtime, trial: precision_guard.ProbeSet
    ) -> list[precision_guard.ProbeAnswer | Failure] | Failure:
        """Return the answers to the probes of the precision guard."""
        try:
            answers = self._engine(order).answers(self._open_group(order), runtime, trial)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return _failure(error)
        return [_failure(answer) if isinstance(answer, Exception) else answer for answer in answers]

    def dissent(self, order: Order, runtime: Runtime, probes: precision_guard.ProbeSet) -> Dissent | Failure:
        """Return whether the model answers the same in any company."""
        try:
            return self._engine(order).dissent(self._open_group(order), runtime, probes)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return _failure(error)

    def evaluate(self, shard: Shard) -> Outcome | Failure:
        """Evaluate the cases of a shard in the cells that need them."""
        try:
            return self._evaluate(shard)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return _failure(error)

    def _evaluate(self, shard: Shard) -> Outcome:
        if self._group is None or self._order is None:
            raise RuntimeError("a shard came before the group was opened")
        order = self._order
        jobs = [
            CellJob(task, mode, _not_needed(shard, index), keeps_masks=order.options.save_masks)
            for index, (task, mode) in enumerate(order.cells)
        ]
        index_of = {job: index for index, job in enumerate(jobs)}
        finished: list[FinishedCase] = []

        def keep(job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]) -> None:
            finished.append(FinishedCase(index_of[job], case_id, tuple(rows), tuple(masks)))

        runtime = _runtime(order)
        evaluated = self._group.kind.evaluate(
            self._engine(order).segmenter(self._group, runtime),
            self._group.samples,
            jobs,
            keep,
            order=[case.case_id for case in shard.cases],
            seed=order.options.seed,
            limit=None,
            batch_size=batch_size(order.options, runtime.device),
            advance=lambda _: None,
        )
        return Outcome(tuple(finished), evaluated.timings, self._take_notices())


def _runtime(order: Order) -> Runtime:
    return Runtime(device=order.device, dtype=order.options.dtype, fast=order.options.fast)


def _not_needed(shard: Shard, job: int) -> Cases:
    """Return the cases of a shard that a job does not need, as if they were finished."""
    return {case.case_id: () for case in shard.cases if job not in case.jobs}


def _failure(error: Exception) -> Failure:
    if isinstance(error, PromptsegError):
        return Failure(platform.node(), type(error).__name__, str(error))
    return Failure(platform.node(), "BrokenPluginError", f"{type(error).__name__}: {error}")
