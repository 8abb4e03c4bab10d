"""Read images and masks ahead of the model, as far as memory allows, and only those that some cell still needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from promptseg import prompts
from promptseg.data.images import check_same_size
from promptseg.errors import ResultsError
from promptseg.evaluation.jobs import Job, Work
from promptseg.evaluation.trajectories import Target, failed
from promptseg.samples import LabelMap, Samples, target_of
from promptseg.segmenter import Image
from promptseg.specs import TaskSpec

MOST_IMAGES = 32  # encoded together where the batch grows as memory allows
PIXELS_AT_ONCE = 1 << 27  # of the images that are read ahead or in flight, and of the masks of a batch of answers


class Ahead:
    """The works, read ahead in another thread as far as memory allows.

    Args:
        works: reads the next one when it is asked for it.
        reader: an executor with a single thread.
    """

    def __init__(self, works: Iterator[Work], reader: Executor) -> None:
        self._works = works
        self._reader = reader
        self._coming: deque[Future[Work | None]] = deque()  # they are read one after the other
        self._here: deque[Work] = deque()
        self._pixels = 0  # of those that are here
        self._ended = False

    def read(self, n: int, tell: Callable[[Future[Any]], object]) -> None:
        """Let ``n`` works be read, or fewer if they are large; ``tell`` is called with each when it has been."""
        self._arrive()
        unknown = PIXELS_AT_ONCE // MOST_IMAGES  # how large those are that are still being read
        while not self._ended and len(self) + len(self._coming) < n:
            if (self._here or self._coming) and self._pixels + unknown * len(self._coming) >= PIXELS_AT_ONCE:
                return
            self._coming.append(self._reader.submit(next, self._works, None))
            self._coming[-1].add_done_callback(tell)

    def _arrive(self) -> None:
        while self._coming and self._coming[0].done():
            work = self._coming.popleft().result()
            self._ended |= work is None
            if work is not None:
                self._here.append(work)
                self._pixels += work.pixels

    def __len__(self) -> int:
        """How many are there to be taken."""
        return len(self._here)

    @property
    def reading(self) -> bool:
        """Whether there may be more than are here."""
        return bool(self._coming) and not self._ended

    def take(self, n: int, pixels: int) -> list[Work]:
        """Return up to ``n`` works with up to ``pixels`` in all, but one if there is any."""
        taken: list[Work] = []
        while self._here and len(taken) < n:
            pixels -= self._here[0].pixels
            if taken and pixels < 0:
                break
            taken.append(self._here.popleft())
            self._pixels -= taken[-1].pixels
        return taken


def needed_images(
    samples: Samples,
    jobs: Sequence[Job],
    order: Sequence[str],
    limit: int | None,
    advance: Callable[[int], None],
    prepare: Callable[[Image], Future[Any]],
) -> Iterator[Work]:
    """Walk the cases and yield those that some job still needs."""
    taken = {id(job): 0 for job in jobs}
    for case_id in order:
        wanting = [job for job in jobs if (limit is None or taken[id(job)] < limit) and not job.is_settled()]
        if not wanting:
            return
        open_jobs = [job for job in wanting if case_id not in job.cases]
        work = _read(samples, case_id, open_jobs, prepare) if open_jobs else None
        entered = {id(job) for job, _ in work.targets} if work else set()
        for job in wanting:
            taken[id(job)] += id(job) in entered or bool(job.cases.get(case_id))
        if work and work.targets:
            yield work
        advance(1)


def _read(samples: Samples, case_id: str, jobs: Sequence[Job], prepare: Callable[[Image], Future[Any]]) -> Work | None:
    """Read what the jobs need of one case; without a usable mask or image the case ends here, as an error."""
    try:
        labels = samples.labels(case_id)
        targets = {name: _target(task, labels) for name, task in {job.task.name: job.task for job in jobs}.items()}
        belonging = [(job, target) for job in jobs if (target := targets[job.task.name]) is not None]
        for job in jobs:
            if targets[job.task.name] is None:
                job.finish(case_id, [])
        if not belonging:
            return None
        image = samples.image(case_id)
        check_same_size(case_id, image.shape[:2], labels.shape)
    except ResultsError:  # a journal that cannot be written is not the case's fault
        raise
    except Exception as error:
        for job in jobs:
            if case_id not in job.cases:
                job.finish(case_id, [failed(samples, case_id, error)])
        return None
    return Work(case_id, labels.shape, prepare(image), belonging)


def _target(task: TaskSpec, labels: LabelMap) -> Target | None:
    mask = target_of(task, labels)
    if not mask.any():
        return None
    mask.setflags(write=False)  # so that its components are found once for all modes
    return Target(mask, prompts.count_components(mask), float(mask.mean()))
