"""The engine ``ray``: the cases of a run in shards on the workers of a Ray cluster.

The driver is the process of pytest. It opens each group and writes the journals; workers
(`promptseg.runner.ray_worker`), one for each GPU of the cluster or each CPU where it has none, evaluate the cases that
the driver sends. A lost worker is replaced, and its cases are sent again. This module imports Ray; it is imported when
a run asks for it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import ray
from ray.exceptions import RayError

from promptseg import errors
from promptseg.errors import BrokenPluginError, ConfigError, PromptsegError, UnavailableError
from promptseg.evaluation import jobs as evaluate_jobs
from promptseg.evaluation.company import Dissent
from promptseg.evaluation.jobs import Finished
from promptseg.results import provenance
from promptseg.results.rows import ResultRow
from promptseg.runner import precision_guard
from promptseg.runner.engine import batch_size
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.options import Options
from promptseg.runner.ray_worker import Failure, Opened, Order, Outcome, Worker, facts
from promptseg.runner.shards import ATTEMPTS, Case, Shard, Shards, open_cases, outside
from promptseg.segmenter import Runtime

_MAX_PENDING = 2  # shards sent to a worker: it starts the next one while the driver writes the last
_MAX_DEATHS = 10  # workers that die in a row, with nothing finished in between, before the driver gives up
_START_TIMEOUT = 600.0  # seconds without any worker before the driver gives up
_CONNECT_TIMEOUT = 10.0  # seconds for the head of the cluster to answer
_MIN_BATCH = 8  # images in a shard at least, where memory decides how many are encoded together
_POLL_SECONDS = 5.0  # between two checks of the deadline while no worker answers


class _WorkerDiedError(BrokenPluginError):
    """A worker died of what the driver asked it alone."""


class Cluster:
    """An `Engine`: the Ray cluster that RAY_ADDRESS names, or one on this machine while the run lasts.

    Args:
        options: of the run.
        notify: called with each sentence of a worker that the user should read.

    Raises:
        ConfigError: there is no cluster at RAY_ADDRESS.
    """

    def __init__(self, options: Options, notify: Callable[[str], None] = lambda _: None) -> None:
        self._options = options
        self._notify = notify
        self._is_owner = not ray.is_initialized()
        if self._is_owner:
            _connect(os.environ.get("RAY_ADDRESS") or "local")
        self._workers: list[_WorkerState] = []

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started for this run."""
        self._stop_workers()
        if self._is_owner:
            ray.shutdown()

    def device(self, wanted: str) -> str:
        """Return the kind of device that workers have: ``cuda`` or ``cpu``.

        Raises:
            ConfigError: the cluster does not have the device.
        """
        gpus = ray.cluster_resources().get("GPU", 0)
        if wanted == "auto":
            return "cuda" if gpus else "cpu"
        if wanted == "cuda" and not gpus:
            raise ConfigError("--seg-device cuda: the Ray cluster has no GPU; see `ray status`. Leave it out for auto.")
        if wanted not in ("cuda", "cpu"):
            raise ConfigError(
                f"--seg-device {wanted} does not work with --seg-engine ray, which assigns a device to each worker: "
                "choose auto, cuda or cpu."
            )
        return wanted

    def evaluate(
        self,
        group: ModelOnDataset,
        parts: Sequence[PlannedCell],
        jobs: Sequence[evaluate_jobs.CellJob],
        sink: evaluate_jobs.Sink,
        advance: Callable[[int], None],
    ) -> tuple[evaluate_jobs.Evaluated, dict[str, Any]]:
        """Evaluate every job, as `promptseg.evaluation.evaluate.evaluate` does.

        Args:
            group: as the driver opened it.
            parts: the cells.
            jobs: of the cells, in their order.
            sink: is given each finished case.
            advance: called with the number of images finished since the last call.

        Returns:
            The outcome, with the seconds of all workers together, and the provenance that they contribute.

        Raises:
            PromptsegError: the workers cannot evaluate the group, or keep dying. Finished cases are in the journals.
        """
        finished = Finished(jobs, sink)
        cases = list(open_cases(group.kind, group.samples, finished, group.order, self._options.limit))
        advance(len(group.order) - len(cases))
        order = self._order(group, parts)
        batch = batch_size(self._options, order.device) or _MIN_BATCH
        n_workers = max(1, min(_capacity(order.device), -(-len(cases) // batch)))
        expected = facts(group.identity, [part.mode for part in parts])
        evaluation = _Evaluation(order, expected, finished, group, Shards(cases, n_workers, batch), advance, n_workers)
        try:
            evaluation.run(self._workers)
        except BaseException:
            self._stop_workers()  # their pending shards are of no use any more
            raise
        finally:
            for notice in dict.fromkeys(evaluation.notices):  # several workers may have the same to say
                self._notify(notice)
        finished.check(group.model.name)
        evaluated = evaluate_jobs.Evaluated(tuple(finished.cases(job) for job in jobs), evaluation.timings)
        return evaluated, evaluation.provenance()

    def answers(
        self, group: ModelOnDataset, runtime: Runtime, trial: precision_guard.ProbeSet
    ) -> list[precision_guard.ProbeAnswer | Exception]:
        """Return a worker's answers to the probes of the precision guard.

        Raises:
            BrokenPluginError: the worker died.
            PromptsegError: the worker cannot answer any probe.
        """
        answers = self._asked(group, "answers", runtime, trial)
        return [_as_error(answer, group) if isinstance(answer, Failure) else answer for answer in answers]

    def dissent(self, group: ModelOnDataset, runtime: Runtime, probes: precision_guard.ProbeSet) -> Dissent:
        """Return what a worker found of the model's answers in several kinds of company.

        Nothing if the worker died: the evaluation names the case that it dies of, and the next run asks again.

        Raises:
            PromptsegError: the worker cannot load the model.
        """
        try:
            found: Dissent = self._asked(group, "dissent", runtime, probes)
        except _WorkerDiedError as error:
            self._notify(
                f"{group.model.name} was not asked in several kinds of company, as it is before it counts: {error}"
            )
            return Dissent(0, "")
        return found

    def _asked(self, group: ModelOnDataset, what: str, runtime: Runtime, probes: precision_guard.ProbeSet) -> Any:
        """Return what a method of one worker returns."""
        if not self._workers:
            self._workers.append(_start_worker(group.identity["device"]))
        method = getattr(self._workers[0].actor, what)
        try:
            found = ray.get(method.remote(self._order(group, ()), runtime, probes))
        except RayError as error:
            self._stop_workers()
            raise _WorkerDiedError(
                f"the worker that tried {group.model.name} before its evaluation died: {_reason(error)}"
            ) from error
        if isinstance(found, Failure):
            raise _as_error(found, group)
        return found

    def check(self, group: ModelOnDataset, runtime: Runtime) -> None:
        """Do nothing: workers report what the model refuses when they load it."""

    def machine(self, device: str) -> str:
        """Return the kind of device alone, since the machines of a cluster may differ."""
        return f"{device} of a Ray cluster"

    def _order(self, group: ModelOnDataset, parts: Sequence[PlannedCell]) -> Order:
        return Order(
            kind=group.kind.name,
            model=group.model,
            dataset=group.dataset,
            cells=tuple((part.task, part.mode) for part in parts),
            options=self._options,
            device=group.identity["device"],
            path=tuple(map(os.path.abspath, sys.path)),
        )

    def _stop_workers(self) -> None:
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers.clear()


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, the address of a Ray Client server; --seg-engine ray does not use it. Start "
            "pytest on a node of the cluster, for example by `ray job submit`, with RAY_ADDRESS=auto or HOST:6379."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _check_reachable(address)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **where)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        token = "" if address == "local" else " Is it running, and is its token on this machine (`ray get-auth-token`)?"
        raise ConfigError(f"no Ray cluster can be reached (RAY_ADDRESS={address}): {error}.{token}") from error


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nothing answers at HOST:PORT: Ray itself would wait for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT).close()


def _capacity(device: str) -> int:
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 0)))


class _Actor(Worker):
    """A worker that determines by itself how many workers share its machine."""

    def __init__(self, resource: str) -> None:
        here = ray.get_runtime_context().get_node_id()
        [count] = [node["Resources"][resource] for node in ray.nodes() if node["NodeID"] == here]
        super().__init__(max(1, (os.cpu_count() or 1) // int(count)))


def _start_worker(device: str) -> _WorkerState:
    actor: Any
    if device == "cuda":
        actor = ray.remote(_Actor).options(num_gpus=1, num_cpus=0).remote("GPU")
    else:
        actor = ray.remote(_Actor).options(num_cpus=1).remote("CPU")
    return _WorkerState(actor, actor.__ray_ready__.remote())


@dataclass
class _WorkerState:
    """A worker, as the driver sees it.

    Attributes:
        actor: Ray's handle.
        starting: the future of its start, or of its opening the group; None when it is ready for shards.
        pending: the futures of the shards sent to it, with the shards. It evaluates them in this order.
        started: whether Ray has placed it on a node.
    """

    actor: Any
    starting: Any
    pending: deque[tuple[Any, Shard]] = field(default_factory=deque)
    started: bool = False

    @property
    def next_answer(self) -> Any:
        """The future of its next answer, None where it has nothing to do."""
        if self.starting is not None:
            return self.starting
        return self.pending[0][0] if self.pending else None


@dataclass
class _Evaluation:
    """The evaluation of one group on the workers.

    Attributes:
        order: what workers open.
        expected: what must be the same on the workers as here.
        jobs: of the cells, in their order.
        group: as the driver opened it.
        shards: the cases that are not sent yet.
        advance: called with the number of images finished since the last call.
        n_workers: number of workers that share the cases.
        timings: seconds of all workers together.
        opened: what each worker has opened.
        lost: number of workers that died.
        lost_in_a_row: number of workers that died since the last shard was finished.
        last_running: when a worker was last known to run, by the monotonic clock.
        notices: sentences of workers that the user should read.
    """

    order: Order
    expected: Mapping[str, Any]
    finished: Finished
    group: ModelOnDataset
    shards: Shards
    advance: Callable[[int], None]
    n_workers: int
    timings: evaluate_jobs.Timings = field(default_factory=evaluate_jobs.Timings)
    opened: list[Opened] = field(default_factory=list)
    lost: int = 0
    lost_in_a_row: int = 0
    last_running: float = field(default_factory=time.monotonic)
    notices: list[str] = field(default_factory=list)

    def run(self, cluster: list[_WorkerState]) -> None:
        """Evaluate all shards on ``n_workers`` workers of the cluster; those that die are replaced.

        Where a killed run has finished every case, one worker still opens the group, since results record its device.
        """
        workers = cluster[: self.n_workers]
        for worker in workers:
            self._open(worker)
        while self.shards or any(worker.pending for worker in workers) or not self.opened:
            for _ in range(self.n_workers - len(workers)):
                workers.append(_start_worker(self.order.device))
                cluster.append(workers[-1])
            self._send_shards(workers)
            for worker in self._wait(workers):
                if not self._receive(worker):
                    workers.remove(worker)
                    cluster.remove(worker)

    def _open(self, worker: _WorkerState) -> None:
        worker.starting = worker.actor.open.remote(self.order)

    def _send_shards(self, workers: Sequence[_WorkerState]) -> None:
        """Give every worker that is ready its next shards; each its first before any its second."""
        for _ in range(_MAX_PENDING):
            for worker in workers:
                if worker.starting is None and len(worker.pending) < _MAX_PENDING and self.shards:
                    shard = self.shards.take()
                    worker.pending.append((worker.actor.evaluate.remote(shard), shard))

    def _wait(self, workers: Sequence[_WorkerState]) -> list[_WorkerState]:
        """Return the workers that have answered; none if none has for a while."""
        waiting = {worker.next_answer: worker for worker in workers if worker.next_answer is not None}
        answered, _ = ray.wait(list(waiting), num_returns=1, timeout=_POLL_SECONDS)
        self._check_deadline(workers)
        return [waiting[answer] for answer in answered]

    def _check_deadline(self, workers: Sequence[_WorkerState]) -> None:
        """Raise `ConfigError` if there has been no worker for too long: Ray would wait for resources for ever."""
        if any(worker.started for worker in workers):
            self.last_running = time.monotonic()
        elif time.monotonic() - self.last_running > _START_TIMEOUT:
            raise ConfigError(
                f"the Ray cluster has started no worker within {_START_TIMEOUT:.0f} seconds. It has "
                f"{_readable(ray.cluster_resources())}; free are {_readable(ray.available_resources())}. "
                "See `ray status`."
            )

    def _receive(self, worker: _WorkerState) -> bool:
        """Process a worker's answer; return whether the worker is alive."""
        try:
            answer = ray.get(worker.next_answer)
        except RayError as error:
            self._on_worker_lost(worker, error)
            return False
        worker.started = True
        if isinstance(answer, Failure):
            raise _as_error(answer, self.group)
        if isinstance(answer, Outcome):
            _, shard = worker.pending.popleft()
            self._finish(shard, answer)
        elif isinstance(answer, Opened):
            self._check(answer)
            worker.starting = None
        else:
            self._open(worker)
        return True

    def _check(self, opened: Opened) -> None:
        """Raise `ConfigError` unless the worker would compute the same numbers as the driver."""
        differences = [
            *_differences(self.expected, opened.facts),
            *_differences(_released(provenance.versions()), _released(opened.versions), "version of "),
        ]
        if differences:
            raise ConfigError(
                f"the worker on node {opened.node} differs from the driver: {'; '.join(differences)}. Its results "
                "would differ too: give every node of the cluster the same environment, model files and data."
            )
        self.opened.append(opened)
        self.notices += opened.notices

    def _finish(self, shard: Shard, outcome: Outcome) -> None:
        """Take the finished cases of a shard."""
        self.notices += outcome.notices
        jobs = self.finished.jobs
        for case in outcome.finished:
            self.finished.add(jobs[case.job], case.case_id, case.rows, case.masks)
        for part in fields(self.timings):
            setattr(self.timings, part.name, getattr(self.timings, part.name) + getattr(outcome.timings, part.name))
        self.shards.record(shard, outcome.timings.total)
        self.lost_in_a_row = 0
        self.advance(len(shard.cases))

    def _on_worker_lost(self, worker: _WorkerState, error: RayError) -> None:
        """Queue the shards of a dead worker again: it died on the first one, and has not started the others."""
        self.lost += 1
        self.lost_in_a_row += 1
        if self.lost_in_a_row > max(_MAX_DEATHS, 2 * self.n_workers):
            raise BrokenPluginError(
                f"{self.lost_in_a_row} workers died one after the other while they evaluated {self.group.model.name} "
                f"on {self.group.dataset.name} and nothing was finished in between. The last one: {_reason(error)}"
            )
        if not worker.pending:
            return
        (_, suspect), *others = worker.pending
        for _, shard in others:
            self.shards.give_back(shard)
        culprit = self.shards.blame(suspect)
        if culprit is not None:
            self._fail(culprit, error)

    def _fail(self, case: Case, error: RayError) -> None:
        """Finish a case as an error; the others continue."""
        reason = _reason(error)
        problem = f"its worker died {ATTEMPTS} times while it evaluated this case alone; the last time: {reason}"
        row = ResultRow(case_id=case.case_id, subject_id=self.group.samples.subject(case.case_id), error=problem)
        jobs = [self.finished.jobs[index] for index in case.jobs]
        others = outside(self.group.kind, self.group.samples, case.case_id, jobs)
        for job in jobs:
            self.finished.add(job, case.case_id, [] if job in others else [row])
        self.advance(1)

    def provenance(self) -> dict[str, Any]:
        """Return what results record of the engine."""
        devices = sorted({opened.device_name for opened in self.opened})
        recorded = {
            "device_name": ", ".join(devices) or "unknown",
            "engine": {
                "name": "ray",
                "version": ray.__version__,
                "workers": len(self.opened),
                "nodes": len({opened.node for opened in self.opened}),
                "devices": devices,
                "lost": self.lost,
            },
        }
        return recorded | ({"versions": dict(self.opened[0].versions)} if self.opened else {})


def _as_error(failure: Failure, group: ModelOnDataset) -> PromptsegError:
    """Return a worker's exception; errors of promptseg keep their class, so that unavailable files skip the test."""
    kind = getattr(errors, failure.kind, BrokenPluginError)
    if kind not in (UnavailableError, errors.IntegrityError, errors.ModelError, ConfigError):
        kind = BrokenPluginError
    message = f"{group.model.name} on {group.dataset.name} failed on node {failure.node}: {failure.message}"
    error: PromptsegError = kind(message)
    return error


def _released(versions: Mapping[str, str]) -> dict[str, str]:
    """Return versions without the local part, which differs between builds for CPU and GPU: ``2.13.0+cpu``."""
    return {name: version.partition("+")[0] for name, version in versions.items()}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield each difference as the path to it with both values."""
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{path}{key} ")
        elif one != other:
            yield f"{path}{key} is {_short(other)} there, {_short(one)} here"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."


def _readable(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _reason(error: RayError) -> str:
    """Return the line of Ray's message that says why a worker died."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if "Worker exit detail" in line or "killed" in line), lines[0] if lines else "")
    return line.partition("Some common causes")[0].strip() or type(error).__name__
