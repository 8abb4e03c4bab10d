"""The one loop: a model on a data set, every task and prompt mode at once, each image encoded once.

Every (case, mode) is a trajectory: a generator that yields what it wants decoded, is sent the
predictions, and returns rows. The loop gathers what all trajectories of a chunk of images want, lets the
model decode it in batches, and hands the answers back until all have ended. No pytest and no download here.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from promptseg import everything, masks, metrics, prompts
from promptseg.errors import CaseError, ModelError, PromptsegError, ResultsError
from promptseg.images import check_same_size
from promptseg.masks import MaskJournal, SavedMask
from promptseg.references import resolve
from promptseg.results import Journal, Row
from promptseg.samples import LabelMap, Samples, target_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Segmenter, check_prediction
from promptseg.specs import PromptMode, TaskSpec

DECODE_BATCH = 32  # requests handed to a model together; bounds the memory that their masks take
_OUT_OF_MEMORY = (
    "(Not even this case alone fits into memory. End what else uses the device, or try --seg-dtype bfloat16, "
    "--seg-device cpu or a smaller model.)"
)
Item = TypeVar("Item")


@dataclass
class Job:
    """One cell of a group: what is to be done and what is done.

    Attributes:
        task, mode: of the cell.
        journal: where finished cases go at once.
        cases: rows of each finished case; empty rows for a case that does not belong to the task.
        masks: where the candidate masks of finished cases go, None where nobody asked for them.
    """

    task: TaskSpec
    mode: PromptMode
    journal: Journal
    cases: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    masks: MaskJournal | None = None

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


class Target(NamedTuple):
    """A task's object in one image: (H, W) bool, not empty, and what rows tell of it."""

    mask: Mask
    n_components: int
    area_fraction: float


class Ask(NamedTuple):
    """A prompt to decode, with what the previous answer on the object leaves to go on from; see `Request`."""

    prompt: Prompt
    state: Any = None
    candidate: int = 0
    stability: bool = False


class Answer(NamedTuple):
    """A checked prediction and the seconds it took."""

    prediction: Prediction
    seconds: float


Trajectory = Generator[tuple[Ask, ...], tuple[Answer, ...], list[Row]]
Keep = Callable[[int, Sequence[Prediction]], None]
"""Called with the number of the click (0 for static modes) and the answers to the prompts of one row."""


class Work(NamedTuple):
    """What one image has to be evaluated for."""

    case_id: str
    image: Image
    targets: list[tuple[Job, Target]]


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
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Clock:
    """Finish every job: ``job.cases`` then holds all cases of ``order``, or the first ``limit`` of its task.

    Args:
        model: encodes and decodes.
        samples: the data set.
        jobs: the cells; cases that they already hold are not evaluated again.
        order: case ids in seeded order.
        seed: of the prompts.
        limit: number of cases for each task, None for all.
        batch_size: number of images encoded together.
        advance: called with the number of images looked at since the last call.

    A case that cannot be read or that the model fails on ends as a row with its error; the others go on.
    """
    clock = Clock()
    with clock.measure("total"):
        work = _work(samples, jobs, order, limit, advance)
        for chunk in _prefetched(_chunks(work, batch_size)):
            _evaluate_chunk(model, samples, chunk, seed, clock)
    return clock


def _work(
    samples: Samples, jobs: Sequence[Job], order: Sequence[str], limit: int | None, advance: Callable[[int], None]
) -> Iterator[Work]:
    """Walk the cases and yield those that some job still needs."""
    taken = {id(job): 0 for job in jobs}
    for case_id in order:
        wanting = [job for job in jobs if limit is None or taken[id(job)] < limit]
        if not wanting:
            return
        open_jobs = [job for job in wanting if case_id not in job.cases]
        work = _prepare(samples, case_id, open_jobs) if open_jobs else None
        entered = {id(job) for job, _ in work.targets} if work else set()
        for job in wanting:
            taken[id(job)] += id(job) in entered or bool(job.cases.get(case_id))
        if work and work.targets:
            yield work
        advance(1)


def _prepare(samples: Samples, case_id: str, jobs: Sequence[Job]) -> Work | None:
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
                job.finish(case_id, [_failed(samples, case_id, error)])
        return None
    return Work(case_id, image, belonging)


def _target(task: TaskSpec, labels: LabelMap) -> Target | None:
    mask = target_of(task, labels)
    if not mask.any():
        return None
    return Target(mask, prompts.count_components(mask), float(mask.mean()))


def _failed(samples: Samples, case_id: str, error: Exception) -> Row:
    problem = error.problem if isinstance(error, CaseError) else _in_words(error)
    return Row(case_id=case_id, subject_id=samples.subject(case_id), error=problem)


def _in_words(error: Exception) -> str:
    if isinstance(error, PromptsegError):
        return str(error)
    words = f"{type(error).__name__}: {error}"
    return f"{words} {_OUT_OF_MEMORY}" if _is_out_of_memory(error) else words


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what lacked; torch raises a class of its own on a GPU, and a bare RuntimeError on a CPU."""
    name, words = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in words


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items while a thread prepares the next one, so that reading hides behind the model."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="promptseg-load") as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


@dataclass
class _Running:
    """A trajectory on its way: for which job and image, and the answers it waits for."""

    job: Job
    work: Work
    embedding: Any
    trajectory: Trajectory
    target: Mask
    saved: list[SavedMask]
    wants: tuple[Ask, ...] = ()

    def key(self, model: Segmenter, ask: Ask) -> tuple[object, ...]:
        """Equal for requests that have the same answer. A state is equal to itself alone: it is opaque."""
        seen = id(self.target) if model.spec.sees_target else None
        fed_back = (id(ask.state), ask.candidate) if _takes_state(model, ask) else None
        return (self.work.case_id, seen, fed_back, ask.stability, ask.prompt.key)

    def request(self, model: Segmenter, ask: Ask) -> Request:
        """Return the request, with a state or a target only for a model whose spec says that it takes one."""
        target = self.target if model.spec.sees_target else None
        request = Request(self.embedding, ask.prompt, target=target, stability=ask.stability)
        if not _takes_state(model, ask):
            return request
        return dataclasses.replace(request, state=ask.state, candidate=ask.candidate)


def _takes_state(model: Segmenter, ask: Ask) -> bool:
    return ask.state is not None and "feedback" in model.spec.accepts


def _evaluate_chunk(model: Segmenter, samples: Samples, chunk: list[Work], seed: int, clock: Clock) -> None:
    running = [
        _start(samples, job, work, embedding, target, seed)
        for work, embedding in _embed(model, samples, chunk, clock)
        for job, target in work.targets
    ]
    for run in running:
        _advance(samples, run, None)
    while running := [run for run in running if run.work.case_id not in run.job.cases]:
        _decode(model, samples, running, clock)


def _start(samples: Samples, job: Job, work: Work, embedding: Any, target: Target, seed: int) -> _Running:
    saved: list[SavedMask] = []

    def keep(click: int, predictions: Sequence[Prediction]) -> None:
        if job.masks is not None:
            saved.extend(masks.encoded(work.case_id, click, predictions))

    trajectory = _trajectory(samples, work.case_id, job, target, seed, keep)
    return _Running(job, work, embedding, trajectory, target.mask, saved)


def _advance(samples: Samples, run: _Running, answers: tuple[Answer, ...] | None) -> None:
    """Hand answers to a trajectory; keep its rows when it ends, its error when it fails."""
    try:
        run.wants = next(run.trajectory) if answers is None else run.trajectory.send(answers)
    except StopIteration as end:
        run.job.finish(run.work.case_id, end.value, run.saved)
    except Exception as error:
        run.job.finish(run.work.case_id, [_failed(samples, run.work.case_id, error)])


def _embed(model: Segmenter, samples: Samples, chunk: list[Work], clock: Clock) -> list[tuple[Work, Any]]:
    """Encode the images together or, if that fails, one by one, so that only the culprit is lost."""
    try:
        with clock.measure("encode"):
            embeddings = model.embed([work.image for work in chunk])
        _check_count(model, "embed", len(embeddings), len(chunk))
        return list(zip(chunk, embeddings, strict=True))
    except Exception as error:
        if len(chunk) == 1:
            for job, _ in chunk[0].targets:
                job.finish(chunk[0].case_id, [_failed(samples, chunk[0].case_id, error)])
            return []
    # Out here the error is gone, and with it the memory that the failed call had taken.
    return [pair for work in chunk for pair in _embed(model, samples, [work], clock)]


def _check_count(model: Segmenter, method: str, found: int, expected: int) -> None:
    if found != expected:
        raise ModelError(f"model {model.spec.name!r}: {method}() returned {found} answers to {expected} questions.")


def _decode(model: Segmenter, samples: Samples, running: list[_Running], clock: Clock) -> None:
    """Answer what all trajectories want; equal questions on one image are decoded once."""
    wanted = {run.key(model, ask): (run, ask) for run in running for ask in run.wants}
    answers: dict[tuple[object, ...], Answer | Exception] = {}
    for batch in _chunks(iter(wanted.items()), DECODE_BATCH):
        sizes = [run.target.shape for _, (run, _) in batch]
        requests = [run.request(model, ask) for _, (run, ask) in batch]
        answers.update(zip((key for key, _ in batch), _predict(model, requests, sizes, clock), strict=True))
    for run in running:
        outcomes = [answers[run.key(model, ask)] for ask in run.wants]
        failure = next((o for o in outcomes if isinstance(o, Exception)), None)
        if failure is not None:
            run.job.finish(run.work.case_id, [_failed(samples, run.work.case_id, failure)])
        else:
            _advance(samples, run, tuple(o for o in outcomes if isinstance(o, Answer)))


def _predict(
    model: Segmenter, requests: list[Request], sizes: list[tuple[int, ...]], clock: Clock
) -> list[Answer | Exception]:
    """Decode together or, if that fails, one by one, so that only the culprit is lost."""
    began = time.perf_counter()
    try:
        with clock.measure("decode"):
            predictions = model.predict(requests)
        _check_count(model, "predict", len(predictions), len(requests))
        seconds = (time.perf_counter() - began) / len(requests)
        checked = zip(predictions, sizes, strict=True)
        return [Answer(check_prediction(model.spec.name, p, (size[0], size[1])), seconds) for p, size in checked]
    except Exception as error:
        if len(requests) == 1:
            return [error.with_traceback(None)]  # which holds what the call had in memory
    pairs = zip(requests, sizes, strict=True)
    return [answer for r, size in pairs for answer in _predict(model, [r], [size], clock)]


def _trajectory(samples: Samples, case_id: str, job: Job, target: Target, seed: int, keep: Keep) -> Trajectory:
    """Yield questions, receive answers, return the rows of one case in one prompt mode."""
    base = Row(
        case_id=case_id,
        subject_id=samples.subject(case_id),
        n_components=target.n_components,
        area_fraction=target.area_fraction,
    )
    simulate = resolve(job.mode.simulate)
    if job.mode.iterative:
        return (yield from _clicks(base, job, target.mask, seed, simulate, keep))
    if job.mode.grid:
        return (yield from _everything(base, job, target.mask, simulate, keep))
    wants = _checked(job.mode, simulate(target.mask, prompts.generator(seed, job.task.name, case_id, 0)))
    answers = yield tuple(map(Ask, wants))
    predictions = tuple(a.prediction for a in answers)
    keep(0, predictions)
    return [_row(base, wants, metrics.choose(predictions, target.mask), _seconds(answers))]


def _clicks(base: Row, job: Job, target: Mask, seed: int, simulate: Callable[..., Prompt], keep: Keep) -> Trajectory:
    """Click after click; the guide says which mask shows the errors, and which one the model goes on from."""
    rows: list[Row] = []
    guide = job.mode.guide or "first"
    clicks, choice, last = Prompt(), None, None
    for step in range(job.mode.steps):
        rng = prompts.generator(seed, job.task.name, base.case_id, step)
        following = simulate(target, choice.masks[guide] if choice else None, clicks, rng)
        _checked(job.mode, (following,))
        seconds = 0.0
        if choice is None or following.key != clicks.key:  # without an error left, the last answer stands
            answers = yield (Ask(following, last.state if last else None, choice.candidate[guide] if choice else 0),)
            last, seconds = answers[0].prediction, _seconds(answers)
            choice = metrics.choose((last,), target)
        keep(step + 1, (last,) if last else ())
        clicks = following
        rows.append(dataclasses.replace(_row(base, (clicks,), choice, seconds), click=step + 1))
    return rows


def _everything(base: Row, job: Job, target: Mask, simulate: Callable[..., Iterable[Prompt]], keep: Keep) -> Trajectory:
    """Ask for a whole grid, some points at a time. It is the same for all targets of an image: decoded once for all."""
    found, seconds = everything.Found(), 0.0
    for some in _chunks(iter(simulate(target.shape, job.mode.grid)), everything.TOGETHER):
        answers = yield tuple(Ask(prompt, stability=True) for prompt in _checked(job.mode, tuple(some)))
        seconds += _seconds(answers)
        for answer in answers:
            found.add(answer.prediction)
    prediction = found.prediction((target.shape[0], target.shape[1]))
    keep(0, (prediction,))
    row = _row(base, (), metrics.choose((prediction,), target), seconds)
    coverage = metrics.coverage(prediction.masks, target)
    return [dataclasses.replace(row, prompts=json.dumps([{"grid": job.mode.grid}]), coverage=coverage)]


def _checked(mode: PromptMode, wants: object) -> tuple[Prompt, ...]:
    if not isinstance(wants, tuple) or not wants or not all(isinstance(p, Prompt) for p in wants):
        raise ModelError(f"prompt mode {mode.name!r} simulated {wants!r}; it must return promptseg.Prompt objects.")
    return wants


def _seconds(answers: tuple[Answer, ...]) -> float:
    return sum(answer.seconds for answer in answers)


def _row(base: Row, wants: tuple[Prompt, ...], choice: metrics.Choice, seconds: float) -> Row:
    return dataclasses.replace(
        base,
        prompts=json.dumps([_prompt_as_json(p) for p in wants]),
        iou_first=choice.iou["first"],
        iou_confident=choice.iou["confident"],
        iou_oracle=choice.iou["oracle"],
        predicted_iou=choice.predicted_iou,
        candidate_iou=choice.candidate_iou if len(wants) == 1 else None,
        seconds=seconds,
    )


def _prompt_as_json(prompt: Prompt) -> dict[str, Any]:
    return {
        "points_xy": prompt.points_xy.tolist(),
        "labels": prompt.labels.tolist(),
        "box_xyxy": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
    }
