"""Assign cases to workers in shards, and retry those of a lost worker.

Pure bookkeeping. A case is in one place: still to be assigned, with one worker, or finished.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from promptseg.evaluation.jobs import CellJob, Finished, still_needed
from promptseg.evaluation.kinds import Kind
from promptseg.samples import Samples

ATTEMPTS = 3  # a case that is alone with a worker when it dies, this many times, is what kills it
_SECONDS = 5.0  # of work in a shard: about what is lost with a worker
_SHARES = 4  # at least so many shards for each worker are left, so that all end at about the same time


@dataclass(frozen=True)
class Case:
    """One image, and the jobs (by their index) that still need it."""

    case_id: str
    jobs: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """Cases that one worker evaluates together; ``deaths`` of workers that had it in hands."""

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
    """Yield what jobs still need: every case of ``order``, or for each job the first ``limit`` of its task.

    With a limit the masks are read here, since they say which cases belong to a task; a case that does not is finished
    at once. One whose mask cannot be read counts as belonging: it will be a row with an error.
    """

    def look(case_id: str, jobs: Sequence[CellJob]) -> _Open | None:
        outside = _outside(kind, samples, case_id, jobs) if limit is not None else ()
        for job in outside:
            finished.add(job, case_id, [])
        needed = [job for job in jobs if job not in outside]
        return _Open(case_id, needed) if needed else None

    index = {job: i for i, job in enumerate(finished.jobs)}
    for opened in still_needed(finished, order, limit, look):
        if opened is not None:
            yield Case(opened.case_id, tuple(index[job] for job in opened.jobs))


def _outside(kind: Kind, samples: Samples, case_id: str, jobs: Sequence[CellJob]) -> list[CellJob]:
    """Return the jobs to whose task a case does not belong; none if its masks cannot be read."""
    try:
        return [job for job in jobs if not kind.belongs(samples, job.task, job.mode, case_id)]
    except Exception:  # whoever evaluates the case reports it
        return []


class Shards:
    """The cases that are still to be handed out.

    Args:
        cases: all of them.
        workers: how many share them.
        batch: images that a worker encodes together; a shard is a multiple of it where there are enough.
    """

    def __init__(self, cases: Iterable[Case], workers: int, batch: int) -> None:
        self._fresh = deque(cases)
        self._again: deque[Shard] = deque()
        self._workers = workers
        self._batch = batch
        self._seconds = 0.0
        self._evaluated = 0

    def __bool__(self) -> bool:
        return bool(self._fresh or self._again)

    def take(self) -> Shard:
        """Return the next shard; first what a lost worker left."""
        if self._again:
            return self._again.popleft()
        return Shard(tuple(self._fresh.popleft() for _ in range(self._size())))

    def _size(self) -> int:
        """Small at first, while nobody knows how long a case takes, and at the end, when others may be idle."""
        fair = math.ceil(len(self._fresh) / (_SHARES * self._workers))
        timely = _SECONDS * self._evaluated / self._seconds if self._seconds else 0.0
        size = int(min(fair, timely))
        return min(len(self._fresh), max(self._batch, size - size % self._batch))

    def learn(self, shard: Shard, seconds: float) -> None:
        """Tell how long a shard took, in seconds."""
        self._evaluated += len(shard.cases)
        self._seconds += seconds

    def give_back(self, shard: Shard) -> None:
        """Take back a shard that no worker has begun."""
        self._again.append(shard)

    def blame(self, shard: Shard) -> Case | None:
        """Take back the shard that a worker died with, in halves; return the case that is to be given up, if any."""
        deaths = shard.deaths + 1
        if len(shard.cases) == 1:
            if deaths >= ATTEMPTS:
                return shard.cases[0]
            self._again.append(Shard(shard.cases, deaths))
            return None
        middle = len(shard.cases) // 2
        # A half that is one case has not been alone yet: it begins anew.
        self._again += [Shard(shard.cases[:middle]), Shard(shard.cases[middle:])]
        return None
