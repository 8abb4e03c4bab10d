"""Evaluate one model on one data set: all tasks and prompt modes in one pass, each image encoded once.

Three things happen at the same time. A thread reads images and masks ahead (`promptseg.evaluation.reading`); workers
resize images, simulate prompts and score answers (`promptseg.evaluation.trajectories`); the calling thread does nothing
but call the model, with what the others have ready (`promptseg.evaluation.pipeline`). No pytest and no download here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from promptseg.evaluation.batches import BatchSize
from promptseg.evaluation.boundary import Boundary, Given, Method, torch_may_read
from promptseg.evaluation.jobs import CellJob, Evaluated, Finished, Sink, Timings, keep_nothing
from promptseg.evaluation.pipeline import Pipeline
from promptseg.evaluation.reading import MOST_IMAGES, ReadAhead, pending_images
from promptseg.samples import Samples
from promptseg.segmenter import Image, Segmenter

_PARTS: dict[Method, Literal["encode", "decode"]] = {"embed": "encode", "predict": "decode"}


def evaluate(
    model: Segmenter,
    samples: Samples,
    jobs: Sequence[CellJob],
    sink: Sink = keep_nothing,
    *,
    order: Sequence[str],
    seed: int,
    limit: int | None,
    batch_size: int | None,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluated:
    """Evaluate every job on all cases of ``order``, or on the first ``limit`` of its task, until it is settled.

    Args:
        model: encodes and decodes, called from this thread alone.
        samples: the data set, read from one other thread.
        jobs: the cells, with the cases that they have already.
        sink: is given each case when it is finished, from any thread.
        order: case ids in seeded order.
        seed: of the prompts.
        limit: number of cases for each task, None for all.
        batch_size: number of images encoded together; None for as many as memory allows, up to `MOST_IMAGES`.
        advance: called with the number of images looked at since the last call.

    Returns:
        All finished cases of each job, and the seconds spent.

    A case that cannot be read or that the model fails on ends as a row with its error; the others go on. Batches that
    are too large for the device's memory are halved, for the rest of the run. After an exception, KeyboardInterrupt
    included, what is finished has gone to the sink, and queued work is cancelled.

    Raises:
        ModelError: cases that were begun have no outcome.
    """
    finished, timings = Finished(jobs, sink), Timings()
    images = BatchSize(batch_size or 1, batch_size or MOST_IMAGES)
    boundary = Boundary(model, lambda method: timings.measure(_PARTS[method]))
    with (
        timings.measure("total"),
        torch_may_read(),
        ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) - 1)), "promptseg-work") as workers,
        ThreadPoolExecutor(1, "promptseg-read") as reader,
    ):

        def prepare(image: Image) -> Future[Given]:
            return workers.submit(boundary.prepare, image)

        pending = pending_images(samples, finished, order, limit, advance, prepare)
        try:
            Pipeline(boundary, samples, seed, images, workers, finished, timings).run(ReadAhead(pending, reader))
        except BaseException:
            reader.shutdown(cancel_futures=True)
            workers.shutdown(cancel_futures=True)
            raise
    finished.check(boundary.name)
    return Evaluated(tuple(finished.cases(job) for job in jobs), timings)
