"""How cases are handed out: which, how many at a time, and what becomes of those that a worker died with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from promptseg.errors import CaseError
from promptseg.evaluation.jobs import CellJob, Finished
from promptseg.evaluation.kinds import ImageKind
from promptseg.registry import modes
from promptseg.results.rows import ResultRow
from promptseg.runner.shards import ATTEMPTS, Case, Shard, Shards, open_cases
from promptseg.specs import TaskSpec


class Labels:
    """Samples of which only the label maps are asked for: one pixel each, a case without one is unreadable."""

    fingerprint = "labels"

    def __init__(self, labels: dict[str, int]) -> None:
        self._labels = labels
        self.read: list[str] = []

    def ids(self) -> list[str]:
        """Return all ids."""
        return sorted(self._labels)

    def subject(self, case_id: str) -> None:
        """Know no patient."""

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map, or fail."""
        self.read.append(case_id)
        if self._labels[case_id] < 0:
            raise CaseError(case_id, "the file is cut short")
        return np.array([[self._labels[case_id]]], dtype=np.uint8)

    def image(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Never be asked."""
        raise AssertionError(case_id)


def jobs(*labels: int, **done: tuple[int, ...]) -> Finished:
    """Return a job for each label, a task of its own.

    ``done`` gives for each job the number of rows of a finished case, -1 where it is not finished.
    """
    finished: list[dict[str, tuple[ResultRow, ...]]] = [{} for _ in labels]
    for case_id, kinds in done.items():
        for cases, kind in zip(finished, kinds, strict=True):
            if kind >= 0:
                cases[case_id] = (ResultRow(case_id=case_id),) * kind
    tasks = [TaskSpec(name=f"task{label}", labels=(label,)) for label in labels]
    return Finished(CellJob(task, modes.BOX_ALL, cases) for task, cases in zip(tasks, finished, strict=True))


SIX = {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1, "f": 2}


def test_without_a_limit_no_mask_is_read() -> None:
    """The workers find out which cases belong to a task; what is finished is left out, job by job."""
    samples, finished = Labels(SIX), jobs(1, 2, b=(0, -1), c=(1, 1))
    found = list(open_cases(ImageKind(), samples, finished, samples.ids(), None))
    assert found == [Case("a", (0, 1)), Case("b", (1,)), *(Case(name, (0, 1)) for name in "def")]
    assert samples.read == []


def test_a_limit_counts_the_cases_of_each_task() -> None:
    """The first two of each; cases outside a task are finished without rows, and nothing beyond is looked at."""
    samples, finished = Labels(SIX), jobs(1, 2)
    one, two = finished.jobs
    found = list(open_cases(ImageKind(), samples, finished, samples.ids(), 2))
    assert found == [Case("a", (0,)), Case("b", (1,)), Case("c", (0,)), Case("d", (1,))]
    assert finished.cases(one) == {"b": ()}  # when d was looked at, it had its two
    assert finished.cases(two) == {"a": (), "c": ()}
    assert samples.read == ["a", "b", "c", "d"]


def test_a_limit_counts_what_is_finished_and_what_cannot_be_read() -> None:
    """As a run without workers does: an unreadable mask is a row with an error, and takes a place."""
    samples, finished = Labels({**SIX, "b": -1}), jobs(1, a=(1,))
    assert list(open_cases(ImageKind(), samples, finished, samples.ids(), 2)) == [Case("b", (0,))]


def cases(count: int) -> list[Case]:
    """Return cases for one job."""
    return [Case(f"{i}", (0,)) for i in range(count)]


def test_shards_are_small_until_their_time_is_known_and_at_the_end() -> None:
    """Two workers, batches of four, a tenth of a second a case: fifty would take the five seconds a shard may."""
    shards = Shards(cases(1000), workers=2, batch=4)
    sizes = []
    while shards:
        shard = shards.take()
        sizes.append(len(shard.cases))
        shards.record(shard, 0.1 * len(shard.cases))
    assert sum(sizes) == 1000
    assert sizes[0] == 4
    assert sizes[1] == max(sizes) == 48
    assert all(size % 4 == 0 for size in sizes)
    assert sizes[-4:] == [4, 4, 4, 4]


def test_slow_cases_go_one_batch_at_a_time() -> None:
    """A minute a case: what is lost with a worker is one batch."""
    shards = Shards(cases(100), workers=2, batch=1)
    shards.record(shards.take(), 60.0)
    assert len(shards.take().cases) == 1


@pytest.mark.parametrize("culprit", range(5))
def test_a_case_that_kills_is_found_by_halving(culprit: int) -> None:
    """All others are finished once, however the shard was cut; the culprit dies alone three times and is given up."""
    shards, finished, given_up, deaths = Shards(cases(5), workers=1, batch=5), [], [], 0
    while shards:
        shard = shards.take()
        if any(case.case_id == str(culprit) for case in shard.cases):
            deaths += 1
            given_up += [case for case in [shards.blame(shard)] if case]
        else:
            finished += [case.case_id for case in shard.cases]
    assert given_up == [Case(str(culprit), (0,))]
    assert sorted(finished) == sorted({"0", "1", "2", "3", "4"} - {str(culprit)})
    assert deaths <= 3 + ATTEMPTS  # 5, 3, 2 cases, then alone


def test_what_was_not_begun_is_not_blamed() -> None:
    """It comes back whole, before what nobody has had."""
    shards = Shards(cases(4), workers=2, batch=2)
    first = shards.take()
    shards.give_back(first)
    assert shards.take() is first
    assert shards.take() == Shard(tuple(cases(4)[2:]))
    assert not shards
