"""A model on a data set, every task and prompt mode at once, each image encoded once: what is to be done, and reading.

Three things go on at the same time. A thread reads images and masks ahead; workers resize images, simulate prompts and
score answers (`promptseg.evaluation.trajectories`); the calling thread does nothing but call the model, with what the
others have ready (`promptseg.evaluation.pipeline`). No pytest and no download here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from promptseg import prompts
from promptseg.data.images import check_same_size
from promptseg.errors import ResultsError
from promptseg.evaluation.batches import Limit
from promptseg.evaluation.pipeline import MOST_IMAGES, Ahead, Pipeline
from promptseg.evaluation.trajectories import Target, failed
from promptseg.results.masks import MaskJournal, SavedMask
from promptseg.results.store import Journal, Row
from promptseg.samples import LabelMap, Samples, target_of
from promptseg.segmenter import Image, Segmenter
from promptseg.specs import PromptMode, TaskSpec


@dataclass
class Job:
    """One cell of a group: what is to be done and what is done.

    Attributes:
        task, mode: of the cell.
        journal: where finished cases go at once.
        cases: rows of each finished case; empty rows for a case that does not belong to the task.
        masks: where the candidate masks of finished cases go, None where nobody asked for them.
        is_settled: asked before each image; the cell needs no more cases once it is True.
    """

    task: TaskSpec
    mode: PromptMode
    journal: Journal
    cases: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    masks: MaskJournal | None = None
    is_settled: Callable[[], bool] = lambda: False

    def finish(self, case_id: str, rows: Sequence[Row], masks: Sequence[SavedMask] = ()) -> None:
        """Keep a case, on disk first; its masks before its rows, which say that it is finished."""
        if self.masks is not None and masks:
            self.masks.append(case_id, masks)
        self.journal.append(case_id, rows)
        self.cases[case_id] = tuple(rows)


@dataclass
class Clock:
    """Seconds spent in the model's two calls and overall; the rest is ours."""

    encode: float = 0.0
    decode: float = 0.0
    total: float = 0.0

    @contextmanager
    def measure(self, part: Literal["encode", "decode", "total"]) -> Iterator[None]:
        """Add the time that the block takes to one part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - began)


class Work(NamedTuple):
    """What one image has to be evaluated for.

    Attributes:
        case_id: its id.
        size_hw: its size.
        image: what the model encodes, once a worker has prepared it.
        targets: jobs with what they look for.
    """

    case_id: str
    size_hw: tuple[int, int]
    image: Future[Any]
    targets: list[tuple[Job, Target]]

    @property
    def pixels(self) -> int:
        """Number of pixels, by which memory is planned."""
        return self.size_hw[0] * self.size_hw[1]


def seeded_order(case_ids: Sequence[str], dataset: str, seed: int) -> list[str]:
    """Return the ids in the order in which a limited run takes them: a stable sample for every limit."""
    return sorted(
        case_ids, key=lambda case_id: prompts.generator(seed, dataset, case_id, -1).bit_generator.random_raw()
    )


def evaluate(
    model: Segmenter,
    samples: Samples,
    jobs: Sequence[Job],
    *,
    order: Sequence[str],
    seed: int,
    limit: int | None,
    batch_size: int | None,
    advance: Callable[[int], None] = lambda _: None,
) -> Clock:
    """Finish every job: ``job.cases`` then holds all cases of ``order``, or the first ``limit`` of its task.

    A job that is settled before holds at least the cases that settled it.

    Args:
        model: encodes and decodes, called from this thread alone.
        samples: the data set, read from one other thread.
        jobs: the cells; cases that they already hold are not evaluated again.
        order: case ids in seeded order.
        seed: of the prompts.
        limit: number of cases for each task, None for all.
        batch_size: number of images encoded together; None for as many as memory allows, up to `MOST_IMAGES`.
        advance: called with the number of images looked at since the last call.

    A case that cannot be read or that the model fails on ends as a row with its error; the others go on. Batches that
    are too large for the device's memory are halved, for the rest of the run.
    """
    clock = Clock()
    images = Limit(batch_size or 1, batch_size or MOST_IMAGES)
    prepare = getattr(model, "prepare_image", _as_it_is)
    with (
        clock.measure("total"),
        ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) - 1)), "promptseg-work") as workers,
        ThreadPoolExecutor(1, "promptseg-read") as reader,
    ):
        work = _work(samples, jobs, order, limit, advance, lambda image: workers.submit(prepare, image))
        try:
            Pipeline(model, samples, seed, images, workers, clock).run(Ahead(work, reader))
        except BaseException:  # an interrupt too: what is finished is on disk, what is not begun is not waited for
            reader.shutdown(cancel_futures=True)
            workers.shutdown(cancel_futures=True)
            raise
    return clock


def _as_it_is(image: Image) -> Image:
    return image


def _work(
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
