"""Read images and masks ahead of the model, as far as memory allows, and only those that some cell still needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from promptseg import prompts
from promptseg.data.images import check_same_size
from promptseg.errors import ResultsError
from promptseg.evaluation.jobs import CellJob, Finished, still_needed
from promptseg.evaluation.trajectories import Target, failed
from promptseg.samples import LabelMap, Samples, target_of
from promptseg.segmenter import Image, sealed
from promptseg.specs import PromptMode, TaskSpec

MOST_IMAGES = 32  # encoded together where the batch grows as memory allows
PIXELS_AT_ONCE = 1 << 27  # of the images that are read ahead or in flight, and of the masks of a batch of answers


class PendingImage(NamedTuple):
    """An image that was read, and what it has to be evaluated for.

    Attributes:
        case_id: its id.
        size_hw: its size.
        image: what the model encodes, once a worker has prepared it.
        targets: jobs with what they look for.
    """

    case_id: str
    size_hw: tuple[int, int]
    image: Future[Any]
    targets: list[tuple[CellJob, Target]]

    @property
    def jobs(self) -> list[CellJob]:
        """The jobs that it has to be evaluated for."""
        return [job for job, _ in self.targets]

    @property
    def pixels(self) -> int:
        """Number of pixels, by which memory is planned."""
        return self.size_hw[0] * self.size_hw[1]


class ReadAhead:
    """The works, read ahead in another thread as far as memory allows.

    Args:
        works: reads the next one when it is asked for it.
        reader: an executor with a single thread.
    """

    def __init__(self, works: Iterator[PendingImage], reader: Executor) -> None:
        self._works = works
        self._reader = reader
        self._coming: deque[Future[PendingImage | None]] = deque()  # they are read one after the other
        self._here: deque[PendingImage] = deque()
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

    def take(self, n: int, pixels: int) -> list[PendingImage]:
        """Return up to ``n`` works with up to ``pixels`` in all, but one if there is any."""
        taken: list[PendingImage] = []
        while self._here and len(taken) < n:
            pixels -= self._here[0].pixels
            if taken and pixels < 0:
                break
            taken.append(self._here.popleft())
            self._pixels -= taken[-1].pixels
        return taken


def pending_images(
    samples: Samples,
    finished: Finished,
    order: Sequence[str],
    limit: int | None,
    advance: Callable[[int], None],
    prepare: Callable[[Image], Future[Any]],
) -> Iterator[PendingImage]:
    """Walk the cases, read those that some job still needs, and yield them; see `still_needed`.

    Args:
        samples: the data set.
        finished: the jobs; cases end here that do not belong to a job's task, or that cannot be read.
        order: case ids in seeded order.
        limit: number of cases for each task, None for all.
        advance: called with the number of images looked at since the last call.
        prepare: starts to make of an image what the model encodes.
    """

    def look(case_id: str, jobs: Sequence[CellJob]) -> PendingImage | None:
        return _read(samples, case_id, jobs, finished, prepare)

    for work in still_needed(finished, order, limit, look):
        if work:
            yield work
        advance(1)


def _read(
    samples: Samples,
    case_id: str,
    jobs: Sequence[CellJob],
    finished: Finished,
    prepare: Callable[[Image], Future[Any]],
) -> PendingImage | None:
    """Read what the jobs need of one case; without a usable mask or image the case ends here, as an error."""
    try:
        labels = samples.labels(case_id)
        targets = {name: target_in(task, labels) for name, task in {job.task.name: job.task for job in jobs}.items()}
        belonging = [
            (job, targets[job.task.name])
            for job in jobs
            if belongs(job.mode, has_object=targets[job.task.name].n_components > 0)
        ]
        entered = {job for job, _ in belonging}
        for job in jobs:
            if job not in entered:
                finished.add(job, case_id, [])
        if not belonging:
            return None
        image = sealed(samples.image(case_id))  # a copy: some data sets hand out what they keep
        check_same_size(case_id, image.shape[:2], labels.shape)
    except ResultsError:  # a journal that cannot be written is not the case's fault
        raise
    except Exception as error:  # noqa: BLE001 - readers of plugins may raise anything
        for job in jobs:
            if finished.lacks(job, case_id):
                finished.add(job, case_id, [failed(samples, case_id, error)])
        return None
    return PendingImage(case_id, labels.shape, prepare(image), belonging)


def target_in(task: TaskSpec, labels: LabelMap) -> Target:
    """Return the target of a task in a label map; read-only, so that its components are found once for all modes."""
    mask = target_of(task, labels)
    mask.setflags(write=False)
    if not mask.any():
        return Target(mask, 0, 0.0)
    return Target(mask, prompts.count_components(mask), float(mask.mean()))


def belongs(mode: PromptMode, *, has_object: bool) -> bool:
    """Say whether a case belongs to a task in a mode: without an object only where it can be asked for by name."""
    return has_object or mode.needs == "text"
