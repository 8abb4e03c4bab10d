"""A model on a data set, every task and prompt mode at once, each image encoded once: what is to be done, and reading.

Three things go on at the same time. A thread reads images and masks ahead; workers resize images, simulate prompts and
score answers (`promptseg.evaluation.trajectories`); the calling thread does nothing but call the model, with what the
others have ready (`promptseg.evaluation.pipeline`). No pytest and no download here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from promptseg.evaluation.batches import Limit
from promptseg.evaluation.jobs import Clock, Job
from promptseg.evaluation.pipeline import Pipeline
from promptseg.evaluation.reading import MOST_IMAGES, Ahead, needed_images
from promptseg.samples import Samples
from promptseg.segmenter import Image, Segmenter


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
        work = needed_images(samples, jobs, order, limit, advance, lambda image: workers.submit(prepare, image))
        try:
            Pipeline(model, samples, seed, images, workers, clock).run(Ahead(work, reader))
        except BaseException:  # an interrupt too: what is finished is on disk, what is not begun is not waited for
            reader.shutdown(cancel_futures=True)
            workers.shutdown(cancel_futures=True)
            raise
    return clock


def _as_it_is(image: Image) -> Image:
    return image
