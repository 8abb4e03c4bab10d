"""Assign the cases of a group to workers in shards, and retry those of a lost worker.

Bookkeeping without I/O but for the masks that `open_cases` reads. A case is in one place: still to be sent, pending at
one worker, or finished.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from promptseg.evaluation.jobs import CellJob, Finished, still_needed
from promptseg.evaluation.kinds import Kind
from promptseg.samples import Samples

ATTEMPTS = 3  # workers that must die while they evaluate a case alone before the case is given up
_SHARD_SECONDS = 5.0  # of work in a shard: about what is lost with a worker
_SHARDS_LEFT = 4  # for each worker, at least, so that all workers finish at about the same time


@dataclass(frozen=True)
class Case:
    """One image, and the jobs (by their index) that still need it."""

    case_id: str
    jobs: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """Cases that one worker evaluates together; ``deaths``: number of workers that died on it."""

    cases: tuple[Case, ...]
    deaths: int = 0


@dataclass(frozen=True)
class _Open:
    """A case that some jobs still need."""

    case_id: str
    jobs: Sequence[CellJob]


def open_cases(
    kind: Kind, samples: Samples, finished: Finished, order: Iterable[str], limit: int | None
) -> Iterator[Case]:
    """Yield the cases that jobs still need: all of ``order``, or for each job the first ``limit`` of its task.

    With a limit the masks are read here, to find out which cases belong to a task; a case that does not is finished
    at once. One whose mask cannot be read counts as belonging: it will be a row with an error.
    """

    def look(case_id: str, jobs: Sequence[CellJob]) -> _Open | None:
        others = outside(kind, samples, case_id, jobs) if limit is not None else ()
        for job in others:
            finished.add(job, case_id, [])
        needed = [job for job in jobs if job not in others]
        return _Open(case_id, needed) if needed else None

    index = {job: i for i, job in enumerate(finished.jobs)}
    for opened in still_needed(finished, order, limit, look):
        if opened is not None:
            yield Case(opened.case_id, tuple(index[job] for job in opened.jobs))


def outside(kind: Kind, samples: Samples, case_id: str, jobs: Sequence[CellJob]) -> list[CellJob]:
    """Return the jobs to whose task a case does not belong; none if its masks cannot be read."""
    try:
        belonging = kind.belonging(samples, [(job.task, job.mode) for job in jobs], case_id)
    except Exception:  # noqa: BLE001 - the worker that evaluates the case reports it
        return []
    return [job for job, belongs in zip(jobs, belonging, strict=True) if not belongs]


class Shards:
    """A queue of the cases that are still to be sent.

    Args:
        cases: all of them.
        workers: number of workers that share them.
        batch: images that a worker encodes together; the size of a shard is a multiple of it where there are enough.
    """

    def __init__(self, cases: Iterable[Case], workers: int, batch: int) -> None:
        self._unsent = deque(cases)
        self._retries: deque[Shard] = deque()
        self._workers = workers
        self._batch = batch
        self._seconds = 0.0
        self._evaluated = 0

    def __bool__(self) -> bool:
        return bool(self._unsent or self._retries)

    def take(self) -> Shard:
        """Return the next shard; shards of lost workers come first."""
        if self._retries:
            return self._retries.popleft()
        return Shard(tuple(self._unsent.popleft() for _ in range(self._size())))

    def _size(self) -> int:
        """Return the size of the next shard: small at first, while the time of a case is unknown, and at the end."""
        even = math.ceil(len(self._unsent) / (_SHARDS_LEFT * self._workers))
        timely = _SHARD_SECONDS * self._evaluated / self._seconds if self._seconds else 0.0
        size = int(min(even, timely))
        return min(len(self._unsent), max(self._batch, size - size % self._batch))

    def record(self, shard: Shard, seconds: float) -> None:
        """Record how long a shard took; the sizes of later ones depend on it."""
        self._evaluated += len(shard.cases)
        self._seconds += seconds

    def give_back(self, shard: Shard) -> None:
        """Queue again a shard that no worker has started."""
        self._retries.append(shard)

    def blame(self, shard: Shard) -> Case | None:
        """Queue again, in halves, the shard that a worker died on; return the case that is to be given up, if any."""
        deaths = shard.deaths + 1
        if len(shard.cases) == 1:
            if deaths >= ATTEMPTS:
                return shard.cases[0]
            self._retries.append(Shard(shard.cases, deaths))
            return None
        middle = len(shard.cases) // 2
        # A half of one case has not been evaluated alone yet, so its deaths are counted from 0.
        self._retries += [Shard(shard.cases[:middle]), Shard(shard.cases[middle:])]
        return None
