"""The engine ``ray``: the cells of a run, sharded by cases over the workers of a Ray cluster.

The driver is the process of pytest. It opens a group as ever and keeps the journals; workers
(`promptseg.runner.ray_worker`), one for each GPU of the cluster or each CPU where it has none, evaluate the cases that
the driver hands out. A lost worker is replaced, and its cases are handed out again. This module imports Ray; it is
imported when a run asks for it.
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
from promptseg.evaluation.jobs import Finished
from promptseg.results import provenance
from promptseg.results.rows import ResultRow
from promptseg.runner import precision_guard
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.local import batch_size
from promptseg.runner.options import Options
from promptseg.runner.ray_worker import Failure, Opened, Order, Outcome, Worker, facts
from promptseg.runner.shards import ATTEMPTS, Case, Shard, Shards, open_cases
from promptseg.segmenter import Runtime

_IN_HANDS = 2  # shards sent to a worker: it begins the next one while the driver writes down the last
_FUTILE = 10  # workers that die one after the other, with nothing finished in between, before the driver gives up
_PATIENCE = 600.0  # seconds without any worker before the driver gives up
_ANSWER = 10.0  # seconds for a head to answer
_BATCH = 8  # images of a shard at least, where memory decides how many are encoded together
_LOOK = 5.0  # seconds between two looks at the clock while nothing is heard of the workers


class Cluster:
    """An `Engine`: the Ray cluster that RAY_ADDRESS names, or one on this machine while the run lasts.

    Args:
        options: of the run.

    Raises:
        ConfigError: there is no cluster at RAY_ADDRESS.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(os.environ.get("RAY_ADDRESS") or "local")
        self._workers: list[_Member] = []

    def close(self) -> None:
        """Let the workers go, and the cluster if it was started for this run."""
        self._dismiss()
        if self._ours:
            ray.shutdown()

    def device(self, wanted: str) -> str:
        """Return the kind of device that workers have: ``cuda`` or ``cpu``.

        Raises:
            ConfigError: the cluster has none of what is wanted.
        """
        gpus = ray.cluster_resources().get("GPU", 0)
        if wanted == "auto":
            return "cuda" if gpus else "cpu"
        if wanted == "cuda" and not gpus:
            raise ConfigError("--seg-device cuda: the Ray cluster has no GPU; see `ray status`. Leave it out for auto.")
        if wanted not in ("cuda", "cpu"):
            raise ConfigError(
                f"--seg-device {wanted} cannot be had with --seg-engine ray, which gives each worker a device of its "
                "own: say auto, cuda or cpu."
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
            PromptsegError: the workers cannot evaluate the group, or keep dying. What is finished is in the journals.
        """
        finished = Finished(jobs, sink)
        cases = list(open_cases(group.kind, group.samples, finished, group.order, self._options.limit))
        advance(len(group.order) - len(cases))
        order = self._order(group, parts)
        at_least = batch_size(self._options, order.device) or _BATCH
        size = max(1, min(_capacity(order.device), -(-len(cases) // at_least)))
        expected = facts(group.identity, [part.mode for part in parts])
        work = _Work(order, expected, finished, group, Shards(cases, size, at_least), advance, size)
        try:
            work.run(self._workers)
        except BaseException:
            self._dismiss()  # what they still have in hands is of no use to anyone
            raise
        evaluated = evaluate_jobs.Evaluated(tuple(finished.cases(job) for job in jobs), work.clock)
        return evaluated, work.about()

    def answers(
        self, group: ModelOnDataset, runtime: Runtime, trial: precision_guard.ProbeSet
    ) -> list[precision_guard.ProbeAnswer | Exception]:
        """Let a worker answer the questions of the precision guard.

        Raises:
            BrokenPluginError: it died.
            PromptsegError: it cannot answer at all.
        """
        if not self._workers:
            self._workers.append(_hire(group.identity["device"]))
        actor = self._workers[0].actor
        try:
            found = ray.get(actor.answers.remote(self._order(group, ()), runtime, trial))
        except RayError as error:
            self._dismiss()
            raise BrokenPluginError(
                f"the worker that compared {group.model.name} with float32 died: {_first(error)}"
            ) from error
        if isinstance(found, Failure):
            raise _as_error(found, group)
        return [_as_error(answer, group) if isinstance(answer, Failure) else answer for answer in found]

    def check(self, group: ModelOnDataset, runtime: Runtime) -> None:
        """Leave it to the workers: they refuse when they load the model."""

    def machine(self, device: str) -> str:
        """Return the kind of device, of a cluster whose machines may be of several."""
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

    def _dismiss(self) -> None:
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers.clear()


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, which Ray's client serves; --seg-engine ray does not go through it. Start "
            "pytest on a node of the cluster, for example by `ray job submit`, with RAY_ADDRESS=auto or HOST:6379."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **where)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        token = "" if address == "local" else " Is it there, and is its token here too (`ray get-auth-token`)?"
        raise ConfigError(f"no Ray cluster could be had (RAY_ADDRESS={address}): {error}.{token}") from error


def _knock(address: str) -> None:
    """Raise `OSError` where nobody answers at HOST:PORT: Ray itself would wait for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()


def _capacity(device: str) -> int:
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 0)))


class _Actor(Worker):
    """A worker that finds out by itself how many share its machine."""

    def __init__(self, resource: str) -> None:
        here = ray.get_runtime_context().get_node_id()
        [count] = [node["Resources"][resource] for node in ray.nodes() if node["NodeID"] == here]
        super().__init__(max(1, (os.cpu_count() or 1) // int(count)))


def _hire(device: str) -> _Member:
    actor: Any
    if device == "cuda":
        actor = ray.remote(_Actor).options(num_gpus=1, num_cpus=0).remote("GPU")
    else:
        actor = ray.remote(_Actor).options(num_cpus=1).remote("CPU")
    return _Member(actor, actor.__ray_ready__.remote())


@dataclass
class _Member:
    """A worker, as the driver sees it.

    Attributes:
        actor: Ray's handle.
        coming: the answer to come while it starts or opens a group, None when it is ready for shards.
        hands: the shards sent to it with the answers to come. It takes them one by one.
        started: whether Ray has found a place for it.
    """

    actor: Any
    coming: Any
    hands: deque[tuple[Any, Shard]] = field(default_factory=deque)
    started: bool = False

    @property
    def next_answer(self) -> Any:
        """What is heard of it next, None where it has nothing to do."""
        if self.coming is not None:
            return self.coming
        return self.hands[0][0] if self.hands else None


@dataclass
class _Work:
    """One group on its way through the workers."""

    order: Order
    expected: Mapping[str, Any]
    finished: Finished
    group: ModelOnDataset
    shards: Shards
    advance: Callable[[int], None]
    size: int
    clock: evaluate_jobs.Timings = field(default_factory=evaluate_jobs.Timings)
    seen: list[Opened] = field(default_factory=list)
    lost: int = 0
    futile: int = 0
    heard: float = field(default_factory=time.monotonic)

    def run(self, workers: list[_Member]) -> None:
        """Hand out all shards to ``size`` of the workers; those that die are replaced.

        Where a killed run has finished every case, one worker opens the group all the same: results tell of its device.
        """
        crew = workers[: self.size]
        for worker in crew:
            self._open(worker)
        while self.shards or any(worker.hands for worker in crew) or not self.seen:
            for _ in range(self.size - len(crew)):
                crew.append(_hire(self.order.device))
                workers.append(crew[-1])
            for worker in self._answering(crew):
                if not self._settle(worker):
                    crew.remove(worker)
                    workers.remove(worker)

    def _open(self, worker: _Member) -> None:
        worker.coming = worker.actor.open.remote(self.order)

    def _answering(self, crew: Sequence[_Member]) -> Iterator[_Member]:
        """Give everyone something to do, wait, and yield those who have answered."""
        for _ in range(_IN_HANDS):
            for worker in crew:
                if worker.coming is None and len(worker.hands) < _IN_HANDS and self.shards:
                    shard = self.shards.take()
                    worker.hands.append((worker.actor.evaluate.remote(shard), shard))
        waiting = {worker.next_answer: worker for worker in crew if worker.next_answer is not None}
        answered, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK)
        self._look_at_the_clock(crew)
        yield from (waiting[answer] for answer in answered)

    def _look_at_the_clock(self, crew: Sequence[_Member]) -> None:
        """Give up where there is no worker for long: Ray waits for ever for what nobody gives it."""
        if any(worker.started for worker in crew):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > _PATIENCE:
            raise ConfigError(
                f"the Ray cluster has given no worker within {_PATIENCE:.0f} seconds. It has "
                f"{_readable(ray.cluster_resources())}; free are {_readable(ray.available_resources())}. "
                "See `ray status`."
            )

    def _settle(self, worker: _Member) -> bool:
        """Take a worker's answer; return whether it lives."""
        try:
            answer = ray.get(worker.next_answer)
        except RayError as error:
            self._bury(worker, error)
            return False
        worker.started = True
        if isinstance(answer, Failure):
            raise _as_error(answer, self.group)
        if isinstance(answer, Outcome):
            _, shard = worker.hands.popleft()
            self._keep(shard, answer)
        elif isinstance(answer, Opened):
            self._check(answer)
            worker.coming = None
        else:
            self._open(worker)
        return True

    def _check(self, opened: Opened) -> None:
        """Raise `ConfigError` unless the worker would give the numbers that the driver would."""
        differences = [
            *_differences(self.expected, opened.facts),
            *_differences(_released(provenance.versions()), _released(opened.versions), "version of "),
        ]
        if differences:
            raise ConfigError(
                f"the worker on node {opened.node} is not what the driver is: {'; '.join(differences)}. Its results "
                "would be others: give every node of the cluster the same environment, model files and data."
            )
        self.seen.append(opened)

    def _keep(self, shard: Shard, outcome: Outcome) -> None:
        """Write down what is finished."""
        jobs = self.finished.jobs
        for case in outcome.finished:
            self.finished.add(jobs[case.job], case.case_id, case.rows, case.masks)
        for part in fields(self.clock):
            setattr(self.clock, part.name, getattr(self.clock, part.name) + getattr(outcome.clock, part.name))
        self.shards.learn(shard, outcome.clock.total)
        self.futile = 0
        self.advance(len(shard.cases))

    def _bury(self, worker: _Member, error: RayError) -> None:
        """Hand out again what a dead worker had in hands: it died of the first shard, and has not begun the others."""
        self.lost += 1
        self.futile += 1
        if self.futile > max(_FUTILE, 2 * self.size):
            raise BrokenPluginError(
                f"{self.futile} workers died one after the other while they had {self.group.model.name} on "
                f"{self.group.dataset.name} in hands, and nothing was finished in between. "
                f"The last one: {_first(error)}"
            )
        if not worker.hands:
            return
        (_, suspect), *others = worker.hands
        for _, shard in others:
            self.shards.give_back(shard)
        culprit = self.shards.blame(suspect)
        if culprit is not None:
            self._give_up(culprit, error)

    def _give_up(self, case: Case, error: RayError) -> None:
        """Let a case end as an error; the others go on."""
        problem = f"its worker died {ATTEMPTS} times while it evaluated this case alone; the last time: {_first(error)}"
        row = ResultRow(case_id=case.case_id, subject_id=self.group.samples.subject(case.case_id), error=problem)
        for index in case.jobs:
            job = self.finished.jobs[index]
            self.finished.add(job, case.case_id, [row] if self._may_belong(job, case.case_id) else [])
        self.advance(1)

    def _may_belong(self, job: evaluate_jobs.CellJob, case_id: str) -> bool:
        """Say whether a case belongs to a job's task; one whose masks cannot be read may."""
        try:
            return self.group.kind.belongs(self.group.samples, job.task, job.mode, case_id)
        except Exception:
            return True

    def about(self) -> dict[str, Any]:
        """Return what results tell of those who made them."""
        devices = sorted({opened.device_name for opened in self.seen})
        about = {
            "device_name": ", ".join(devices) or "unknown",
            "engine": {
                "name": "ray",
                "version": ray.__version__,
                "workers": len(self.seen),
                "nodes": len({opened.node for opened in self.seen}),
                "devices": devices,
                "lost": self.lost,
            },
        }
        return about | ({"versions": dict(self.seen[0].versions)} if self.seen else {})


def _as_error(failure: Failure, group: ModelOnDataset) -> PromptsegError:
    """Return a worker's exception: one of ours as it was, so that what can be skipped is skipped."""
    kind = getattr(errors, failure.kind, BrokenPluginError)
    if kind not in (UnavailableError, errors.IntegrityError, errors.ModelError, ConfigError):
        kind = BrokenPluginError
    whole = f"{group.model.name} on {group.dataset.name} failed on node {failure.node}: {failure.message}"
    error: PromptsegError = kind(whole)
    return error


def _released(versions: Mapping[str, str]) -> dict[str, str]:
    """Return versions without what tells builds for CPU and for GPUs apart: ``2.13.0+cpu`` is ``2.13.0``."""
    return {name: version.partition("+")[0] for name, version in versions.items()}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield what differs, each as the path to it with both values."""
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


def _first(error: RayError) -> str:
    """Return the sentence of Ray's message that tells why a worker is gone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "Worker exit detail" in line or "killed" in line), lines[0] if lines else "")
    return told.partition("Some common causes")[0].strip() or type(error).__name__
