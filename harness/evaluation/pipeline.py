"""Keep the model busy with full batches of images or prompts, while worker threads do everything else.

An image in flight goes from round to round: when all of its trajectories have their next question, equal questions are
asked once. The rounds of different images overlap, so that the model works on some while workers score the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from promptseg.evaluation.batches import BatchSize, answered
from promptseg.evaluation.boundary import Boundary, Encoded, Query
from promptseg.evaluation.jobs import CellJob, Finished, Timings
from promptseg.evaluation.reading import PIXELS_AT_ONCE, PendingImage, ReadAhead
from promptseg.evaluation.trajectories import Answer, Ask, Target, Trajectory, failed, trajectory
from promptseg.results import masks
from promptseg.results.masks import SavedMask
from promptseg.results.rows import ResultRow
from promptseg.samples import Samples
from promptseg.segmenter import Mask, Prediction

DECODE_BATCH = 32  # questions handed to a model together
CANDIDATES = 3  # masks of an answer, as far as memory is planned


@dataclass(eq=False)
class _InFlight:
    """An encoded image on its way: its trajectories go on together, so that equal questions meet."""

    work: PendingImage
    encoded: Encoded
    busy: int = 0  # trajectories that wait for answers or for a worker
    asking: list[_Running] = field(default_factory=list)  # those that have come to their next question


_Key = tuple[object, ...]
"""Equal for questions that have the same answer."""


@dataclass(eq=False)
class _Running:
    """A trajectory on its way: for which job and image, what it asks, and the answers that have come.

    The keys are those of what it asks, made when it asks: nothing that happens later can part it from its answers.
    """

    job: CellJob
    image: _InFlight
    trajectory: Trajectory
    target: Mask
    saved: list[SavedMask]
    wants: tuple[Ask, ...] = ()
    keys: tuple[_Key, ...] = ()
    answers: dict[_Key, Answer | Exception] = field(default_factory=dict)

    def query(self, boundary: Boundary, ask: Ask) -> Query:
        """Return what a model is asked, with a state or a target only for one whose spec says that it takes one."""
        target = self.target if boundary.sees_target else None
        image = self.image
        query = Query(image.encoded, image.work.size_hw, ask.prompt, target=target, stability=ask.stability)
        if ask.state is None or not boundary.takes_state:
            return query
        return query._replace(state=ask.state, candidate=ask.candidate)

    def key(self, query: Query) -> _Key:
        """Return the key of what a model is asked. A state is equal to itself alone: it is opaque."""
        seen = None if query.target is None else id(query.target)
        fed_back = None if query.state is None else (id(query.state), query.candidate)
        return (self.image.work.case_id, seen, fed_back, query.stability, query.prompt.key)


class _Question(NamedTuple):
    """What a model is asked, how large the image is, and who waits for the answer."""

    query: Query
    pixels: int
    asked_by: list[_Running]


class Pipeline:
    """Calls the model as long as there is anything to ask it; all else is done by workers.

    Args:
        boundary: to the model, which encodes and decodes.
        samples: gives each case's subject.
        seed: of the prompts.
        images: how many are encoded together.
        workers: run trajectories.
        finished: takes each case that has ended.
        timings: of the model's calls.
    """

    def __init__(
        self,
        boundary: Boundary,
        samples: Samples,
        seed: int,
        images: BatchSize,
        workers: Executor,
        finished: Finished,
        timings: Timings,
    ) -> None:
        self._boundary = boundary
        self._samples = samples
        self._seed = seed
        self._encoding = images
        self._decoding = BatchSize(DECODE_BATCH, DECODE_BATCH)
        self._workers = workers
        self._finished = finished
        self._timings = timings
        self._in_flight: set[_InFlight] = set()
        self._advancing: dict[Future[None], _Running] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()  # what other threads have done
        self._questions: dict[_Key, _Question] = {}

    def run(self, ahead: ReadAhead) -> None:
        """Take works until there are no more: full batches first, then images, then what questions there are."""
        while True:
            self._collect()  # first: of a work that is read from here on the queue tells below
            ahead.read(2 * self._encoding.size, self._ended.put)
            if len(self._questions) >= self._decoding.size:
                self._decode()
            elif works := self._images(ahead):
                self._encode(works)
            elif self._questions:
                self._decode()
            elif self._advancing or ahead.reading:
                self._advanced(self._ended.get())
            else:
                return

    def _images(self, ahead: ReadAhead) -> list[PendingImage]:
        """Return the images to encode now; none while a batch is not complete or too many are in flight."""
        size = self._encoding.size
        if not len(ahead) or (ahead.reading and len(ahead) < size):
            return []
        pixels = PIXELS_AT_ONCE - sum(image.work.pixels for image in self._in_flight)
        if self._in_flight and (len(self._in_flight) > size or pixels <= 0):
            return []
        return ahead.take(size, pixels)

    def _encode(self, works: list[PendingImage]) -> None:
        """Encode images and set their trajectories off."""
        wait([work.image for work in works])
        for work, outcome in zip(works, answered(self._embed, works, self._encoding), strict=True):
            if isinstance(outcome, Exception):
                for job, _ in work.targets:
                    self._finished.add(job, work.case_id, [failed(self._samples, work.case_id, outcome)])
                continue
            image = _InFlight(work, outcome)
            self._in_flight.add(image)
            for job, target in work.targets:
                self._go_on(_started(self._samples, job, image, target, self._seed), None)
                image.busy += 1

    def _embed(self, works: Sequence[PendingImage]) -> list[Encoded]:
        return self._boundary.embed([work.image.result() for work in works])

    def _go_on(self, run: _Running, answers: tuple[Answer, ...] | None) -> None:
        future = self._workers.submit(_advance, self._samples, self._finished, run, answers)
        self._advancing[future] = run
        future.add_done_callback(self._ended.put)

    def _collect(self) -> None:
        """Take what other threads have finished since."""
        with suppress(Empty):
            while True:
                self._advanced(self._ended.get_nowait())

    def _advanced(self, future: Future[Any]) -> None:
        """Take what another thread has finished. When all trajectories of an image have their next question, ask it."""
        run = self._advancing.pop(future, None)
        if run is not None:  # else a work has been read, and waits
            future.result()  # raises what must end the run, such as a full disk
            self._settle(run)

    def _settle(self, run: _Running) -> None:
        image = run.image
        image.busy -= 1
        if run.wants:
            image.asking.append(run)
        if image.busy:
            return
        asking, image.asking = image.asking, []
        if not asking:
            self._in_flight.remove(image)
        image.busy = len(asking)
        for run in asking:
            queries = [run.query(self._boundary, ask) for ask in run.wants]
            run.keys = tuple(map(run.key, queries))
            for key, query in zip(run.keys, queries, strict=True):
                question = self._questions.setdefault(key, _Question(query, image.work.pixels, []))
                if run not in question.asked_by:  # two parts of an object may have one box
                    question.asked_by.append(run)

    def _decode(self) -> None:
        """Answer a batch of questions, each once for all who ask it."""
        batch = self._batch()
        questions = [self._questions.pop(key) for key in batch]
        for key, question, outcome in zip(
            batch, questions, answered(self._predict, questions, self._decoding), strict=True
        ):
            for run in question.asked_by:
                run.answers[key] = outcome
                self._hand_over(run)

    def _batch(self) -> list[_Key]:
        """Return the questions that have waited longest, as many as go together."""
        batch: list[_Key] = []
        pixels = PIXELS_AT_ONCE
        for key, question in self._questions.items():
            pixels -= CANDIDATES * question.pixels
            if batch and (pixels < 0 or len(batch) == self._decoding.size):
                break
            batch.append(key)
        return batch

    def _predict(self, questions: Sequence[_Question]) -> list[Answer]:
        before = self._timings.decode
        predictions = self._boundary.predict([question.query for question in questions])
        seconds = (self._timings.decode - before) / len(questions)
        return [Answer(prediction, seconds) for prediction in predictions]

    def _hand_over(self, run: _Running) -> None:
        """Let a trajectory go on that has all its answers; an error ends it."""
        if not all(key in run.answers for key in run.keys):
            return
        outcomes = [run.answers[key] for key in run.keys]
        run.answers, run.wants, run.keys = {}, (), ()
        failure = next((o for o in outcomes if isinstance(o, Exception)), None)
        if failure is None:
            self._go_on(run, tuple(o for o in outcomes if isinstance(o, Answer)))
        else:
            case_id = run.image.work.case_id
            self._finished.add(run.job, case_id, [failed(self._samples, case_id, failure)])
            self._settle(run)


def _started(samples: Samples, job: CellJob, image: _InFlight, target: Target, seed: int) -> _Running:
    saved: list[SavedMask] = []
    case_id = image.work.case_id

    def keep(click: int, predictions: Sequence[Prediction]) -> None:
        if job.keeps_masks:
            saved.extend(masks.encoded(case_id, click, predictions))

    base = ResultRow(case_id=case_id, subject_id=samples.subject(case_id))
    return _Running(job, image, trajectory(base, job.task, job.mode, target, seed, keep), target.mask, saved)


def _advance(samples: Samples, finished: Finished, run: _Running, answers: tuple[Answer, ...] | None) -> None:
    """Hand answers to a trajectory; keep its rows when it ends, its error when it fails."""
    case_id = run.image.work.case_id
    try:
        run.wants = next(run.trajectory) if answers is None else run.trajectory.send(answers)
    except StopIteration as end:
        finished.add(run.job, case_id, end.value, run.saved)
    except Exception as error:  # noqa: BLE001 - a mode of a plugin may raise anything
        finished.add(run.job, case_id, [failed(samples, case_id, error)])
