"""What is to be evaluated, and the time it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from promptseg import prompts
from promptseg.evaluation.trajectories import Target
from promptseg.results.journal import Journal
from promptseg.results.masks import MaskJournal, SavedMask
from promptseg.results.rows import ResultRow
from promptseg.specs import PromptMode, TaskSpec


@dataclass
class CellJob:
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
    cases: dict[str, tuple[ResultRow, ...]] = field(default_factory=dict)
    masks: MaskJournal | None = None
    is_settled: Callable[[], bool] = lambda: False

    def finish(self, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask] = ()) -> None:
        """Keep a case, on disk first; its masks before its rows, which say that it is finished."""
        if self.masks is not None and masks:
            self.masks.append(case_id, masks)
        self.journal.append(case_id, rows)
        self.cases[case_id] = tuple(rows)


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


class PendingImage(NamedTuple):
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
    targets: list[tuple[CellJob, Target]]

    @property
    def pixels(self) -> int:
        """Number of pixels, by which memory is planned."""
        return self.size_hw[0] * self.size_hw[1]


def seeded_order(case_ids: Sequence[str], dataset: str, seed: int) -> list[str]:
    """Return the ids in the order in which a limited run takes them: a stable sample for every limit."""
    return sorted(
        case_ids, key=lambda case_id: prompts.generator(seed, dataset, case_id, -1).bit_generator.random_raw()
    )
