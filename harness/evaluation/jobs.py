"""What is to be evaluated, what is finished of it, and which cases are still needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from promptseg import prompts
from promptseg.errors import ModelError
from promptseg.results.masks import SavedMask
from promptseg.results.rows import ResultRow
from promptseg.specs import PromptMode, TaskSpec

Cases = Mapping[str, tuple[ResultRow, ...]]
"""Rows of each finished case by its id; no rows for a case that does not belong to the task."""


@dataclass(frozen=True, eq=False)
class CellJob:
    """One cell that is to be evaluated.

    Attributes:
        task, mode: of the cell.
        done: the cases that earlier runs finished. They are not evaluated again.
        keeps_masks: whether the candidate masks of each case are wanted.
        is_settled: asked before each case, with all cases finished by then; the cell needs no more once it is True.
    """

    task: TaskSpec
    mode: PromptMode
    done: Cases = field(default_factory=dict)
    keeps_masks: bool = False
    is_settled: Callable[[Cases], bool] = lambda _: False


class Sink(Protocol):
    """Where finished cases go at once, from any thread."""

    def __call__(self, job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]) -> object:
        """Keep a case. Raises `ResultsError` if it cannot be kept, which ends the run."""


def keep_nothing(job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]) -> None:
    """Keep a case nowhere: the sink of those who only want what is returned."""


class Finished:
    """The finished cases of some jobs: those of earlier runs, and each new one as soon as the sink has kept it.

    Args:
        jobs: the cells.
        sink: is given each case first.
    """

    def __init__(self, jobs: Iterable[CellJob], sink: Sink = keep_nothing) -> None:
        self._cases = {job: dict(job.done) for job in jobs}
        self._begun: dict[CellJob, set[str]] = {job: set() for job in self._cases}
        self._sink = sink

    @property
    def jobs(self) -> Sequence[CellJob]:
        """The cells, in their order."""
        return list(self._cases)

    def begin(self, job: CellJob, case_id: str) -> None:
        """Note that a job needs a case, which is to be finished."""
        self._begun[job].add(case_id)

    def check(self, model: str) -> None:
        """Compare what was begun with what is finished; a score of fewer cases must not pass for one of all.

        Raises:
            ModelError: some cases never ended, neither with rows nor with an error; names them.
        """
        lost = {job: sorted(begun - self._cases[job].keys()) for job, begun in self._begun.items()}
        words = [
            f"{job.task.name}, {job.mode.name}: {', '.join(map(repr, ids[:_NAMED]))}{' ...' * (len(ids) > _NAMED)}"
            for job, ids in lost.items()
            if ids
        ]
        if words:
            raise ModelError(
                f"model {model!r}: {sum(map(len, lost.values()))} cases were begun and have no outcome, so nothing is "
                f"scored. {'; '.join(words)}. Finished cases are kept: the same command evaluates the rest. If it ends "
                "here again, the model or the prompt mode loses questions; see `promptseg validate`."
            )

    def add(self, job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask] = ()) -> None:
        """Take a finished case; ``rows`` is empty for one that does not belong to the task."""
        self._sink(job, case_id, rows, masks)
        self._cases[job][case_id] = tuple(rows)

    def cases(self, job: CellJob) -> Cases:
        """Return all finished cases of a job."""
        return self._cases[job]

    def lacks(self, job: CellJob, case_id: str) -> bool:
        """Say whether a case of a job is not finished."""
        return case_id not in self._cases[job]

    def is_settled(self, job: CellJob) -> bool:
        """Say whether a job needs no more cases."""
        return job.is_settled(self._cases[job])


@dataclass
class Timings:
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


@dataclass(frozen=True)
class Evaluated:
    """The outcome of an evaluation.

    Attributes:
        cases: of each job, in their order: all finished cases, those of earlier runs included.
        timings: seconds of this evaluation alone.
    """

    cases: tuple[Cases, ...]
    timings: Timings


class OpenCase(Protocol):
    """A case that some jobs need, as whoever looked into it describes it."""

    @property
    def jobs(self) -> Sequence[CellJob]:
        """The jobs that need it."""


_NAMED = 5  # lost cases of a job that a message names
Opened = TypeVar("Opened", bound=OpenCase)


def still_needed(
    finished: Finished,
    order: Iterable[str],
    limit: int | None,
    look: Callable[[str, Sequence[CellJob]], Opened | None],
) -> Iterator[Opened | None]:
    """Walk the cases in order and yield, for each, what ``look`` made of it; None for one that nobody needs.

    A job needs each case of ``order`` that is not finished, or the first ``limit`` cases of its task, until it is
    settled. The walk ends when no job needs more.

    Args:
        finished: the jobs, and what is finished of them, also by others while this walks.
        order: case ids in seeded order.
        limit: number of cases for each task, None for all.
        look: given a case and the jobs that lack it; finishes it for those to whose task it does not belong, and
            returns it with the others, None if there are none.
    """
    taken = dict.fromkeys(finished.jobs, 0)
    for case_id in order:
        wanting = [job for job in taken if (limit is None or taken[job] < limit) and not finished.is_settled(job)]
        if not wanting:
            return
        lacking = [job for job in wanting if finished.lacks(job, case_id)]
        for job in lacking:
            finished.begin(job, case_id)
        opened = look(case_id, lacking) if lacking else None
        entered = set(opened.jobs) if opened else set()
        for job in wanting:  # a case that failed counts too: it has a row
            taken[job] += job in entered or bool(finished.cases(job).get(case_id))
        yield opened


def seeded_order(case_ids: Sequence[str], dataset: str, seed: int) -> list[str]:
    """Return the ids in the order in which a limited run takes them: a stable sample for every limit."""
    return sorted(
        case_ids, key=lambda case_id: prompts.generator(seed, dataset, case_id, -1).bit_generator.random_raw()
    )


def sorted_rows(cases: Cases) -> tuple[ResultRow, ...]:
    """Return the rows of all cases, sorted as a result stores them."""
    return tuple(sorted((row for rows in cases.values() for row in rows), key=lambda row: row.key))
