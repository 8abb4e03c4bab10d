"""The ranks that data leave open: by hand, against scipy, and how often they err."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from support.script_modules import load_script, run_script

from promptseg.stats import ranks

Array = npt.NDArray[np.float64]
simulation = load_script("simulate_ranks")


def pool(scores: Array) -> tuple[Array, list[Array]]:
    """Return the means of (subjects, models) scores, a case for each subject, and their one pool."""
    means = scores.mean(axis=0)
    return means, [(scores - means) / len(scores)]


def test_by_hand() -> None:
    """The first is better by 0.2 in every subject, the other two swap places from subject to subject."""
    swing = np.array([0.05, -0.05] * 10)
    scores = np.stack([0.7 + 0 * swing, 0.5 + swing, 0.5 - swing], axis=1)
    better = ranks.significantly_better(*pool(scores))
    assert better is not None
    assert better.tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert ranks.ranges(better) == [(1, 1), (2, 3), (2, 3)]


def test_ranges_need_not_be_groups() -> None:
    """The middle one may be as good as either neighbour, which are told apart: the ranges overlap."""
    better = np.array([[False, False, True], [False] * 3, [False] * 3])
    assert ranks.ranges(better) == [(1, 2), (1, 3), (2, 3)]


def test_equal_models_are_tied_and_a_constant_lead_is_sure() -> None:
    """Neither has a standard error; rounding of sums makes no difference of equal models."""
    scores = np.random.default_rng(0).random((30, 1)) + np.array([[0.0, 1e-15, 0.001]])
    better = ranks.significantly_better(*pool(scores))
    assert better is not None
    assert ranks.ranges(better) == [(2, 3), (2, 3), (1, 1)]


def test_two_models_are_told_apart_as_by_the_paired_t_test() -> None:
    """Of one pair the rule is a paired test at 5 %; only p-values that are about 5 % may come out otherwise."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        scores = rng.random((25, 1)) + 0.1 * rng.normal(size=(25, 2)) + np.array([[0.04, 0.0]])
        p = stats.ttest_rel(scores[:, 0], scores[:, 1]).pvalue
        better = ranks.significantly_better(*pool(scores))
        assert better is not None
        if not 0.04 < p < 0.06:
            assert better.any() == (p < 0.05)
            found += bool(better.any())
    assert 5 < found < 55


def test_the_needed_difference_is_that_of_the_studentised_range() -> None:
    """Of ten independent models of equal spread it is Tukey's, for many subjects."""
    _, pools = pool(np.random.default_rng(0).normal(size=(500, 10)))
    needed = ranks._critical(pools, ~np.eye(10, dtype=bool), 0.95)
    assert needed == pytest.approx(stats.studentized_range.ppf(0.95, 10, 499) / np.sqrt(2), rel=0.03)


def test_several_data_sets_are_drawn_independently() -> None:
    """The standard error of a mean over two data sets is that of Welch's test of their difference."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(30, 1)), 3 * rng.normal(size=(12, 1))
    pools = [np.hstack([x - x.mean(), 0 * x]) / (2 * len(x)) for x in (first, second)]
    error = np.sqrt(first.var(ddof=1) / 30 + second.var(ddof=1) / 12) / 2
    for lead, sure in ((1.8 * error, False), (2.4 * error, True)):
        better = ranks.significantly_better(np.array([lead, 0.0]), pools)
        assert better is not None
        assert better[0, 1] == sure


@pytest.mark.parametrize("sizes", [(9,), (4, 5), (20, 1)])
def test_nothing_is_told_of_few_subjects(sizes: tuple[int, ...]) -> None:
    """Fewer than ten in all, or a data set of one, leave no ranks however clear the difference."""
    assert ranks.significantly_better(np.array([0.9, 0.1]), [np.zeros((size, 2)) for size in sizes]) is None


def test_draws_are_the_same_every_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed is fixed, and drawing in smaller parts changes no verdict."""
    scores = np.random.default_rng(3).random((40, 5)) + 0.1 * np.arange(5)
    first = ranks.significantly_better(*pool(scores))
    again = ranks.significantly_better(*pool(scores))
    monkeypatch.setattr(ranks, "_DRAWN_TOGETHER", 1000)
    parts = ranks.significantly_better(*pool(scores))
    assert first is not None
    assert again is not None
    assert parts is not None
    assert first.any()
    assert (first == again).all()
    assert (first == parts).all()


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_equal_models_are_rarely_told_apart(kind: str) -> None:
    """On at most 5 % of boards, of 100 at most 13 by chance (one in a thousand has more); a clear lead is found."""
    assert simulation.errs(simulation.KINDS[kind], (15, 6), 100) <= 0.13
    assert simulation.finds(simulation.KINDS[kind], (50, 6), 10) > 0.5


def test_the_script_prints_its_table() -> None:
    """With few boards, within seconds."""
    done = run_script("simulate_ranks", "--boards", "4")
    assert len(done.stdout.splitlines()) == 2 + 2 * len(simulation.SIZES) + 1
