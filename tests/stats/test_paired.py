"""Paired comparisons: by hand, against scipy, and what must hold whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.stats import paired
from promptseg.stats.bootstrap import interval, subject_totals
from promptseg.stats.paired import MIN_SUBJECTS, Pair, compare, confidence_interval, detectable_drop, holm, sign_flip_p

UNIT = st.floats(0, 1, allow_nan=False)


def pairs(*values: tuple[str, float, float]) -> list[Pair]:
    """Return pairs of (subject, before, after)."""
    return [
        Pair(case_id=f"c{i:03}", subject=subject, before=before, after=after)
        for i, (subject, before, after) in enumerate(values)
    ]


def totals(deltas: Sequence[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the totals of differences, each of a subject of its own."""
    return subject_totals((f"s{i:03}", delta) for i, delta in enumerate(deltas))


def test_a_comparison_by_hand() -> None:
    """Means, difference, numbers of cases and subjects, and the cases that lost most; a gain is no loss."""
    found = compare(pairs(("p", 0.5, 0.4), ("p", 0.9, 0.9), ("q", 0.6, 0.2), ("r", 0.2, 0.6)), 0.01)
    assert (found.n, found.n_subjects) == (4, 3)
    assert (found.before, found.after, found.delta) == pytest.approx((0.55, 0.525, -0.025))
    assert [pair.case_id for pair in found.worst] == ["c002", "c000"]
    assert (found.interval, found.detectable) == (None, None)


# --- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [9, 14, 19, 49, 499])
@pytest.mark.parametrize("probability", [0.975, 0.995])
def test_quantiles_are_those_of_students_distribution(probability: float, freedom: int) -> None:
    """To three digits, from as few degrees of freedom as there can be."""
    from scipy.stats import t

    assert paired.t_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), abs=2e-3)


def test_few_subjects_have_no_interval() -> None:
    """However many cases they have, and none before there are enough."""
    values = np.linspace(-1, 1, MIN_SUBJECTS)
    assert confidence_interval(totals(values.tolist())) is not None
    assert confidence_interval(totals(values[1:].tolist())) is None
    many = subject_totals((f"p{i % 3}", 0.1 * i) for i in range(300))
    assert confidence_interval(many) is None


def test_the_interval_is_wider_than_the_plain_one_for_few_subjects_only() -> None:
    """By a third and more for ten subjects; within a tenth the same for a thousand."""
    for count, low, high in ((10, 1.3, 3.0), (1000, 0.98, 1.1)):
        values = (0.1 * np.random.default_rng(count).normal(size=count)).tolist()
        plain = interval([(f"s{i:03}", value) for i, value in enumerate(values)])
        found = confidence_interval(totals(values))
        assert plain is not None
        assert found is not None
        assert low < (found[1] - found[0]) / (plain[1] - plain[0]) < high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=MIN_SUBJECTS, max_size=30))
def test_the_interval_holds_the_mean_whatever_the_differences(values: list[float]) -> None:
    """Within what a difference of IoU can be."""
    found = confidence_interval(totals(values))
    assert found is not None
    assert -1 <= found[0] <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= found[1] <= 1


def test_the_studentised_interval_by_the_textbook() -> None:
    """Each draw's own mean and standard error, with numpy, of single cases: the same but for the draws."""
    values = np.random.default_rng(3).gamma(1.0, 0.05, size=30)
    rng = np.random.default_rng(4)
    draws = rng.choice(values, size=(20_000, 30))
    t = (draws.mean(axis=1) - values.mean()) / (draws.std(axis=1, ddof=1) / 30**0.5)
    error = values.std(ddof=1) / 30**0.5
    wanted = values.mean() - np.quantile(t, [0.975, 0.025]) * error
    assert paired._studentised(totals(values.tolist()), 0.95) == pytest.approx(tuple(wanted), abs=0.15 * error)


def test_one_rare_gain_could_undo_a_small_drop() -> None:
    """Ten subjects of whom some lost 0.2 and some gained are not surely worse; ten that all lost 0.1 are."""
    spread, alike = np.linspace(-0.2, 0.06, 10), np.linspace(-0.11, -0.09, 10)
    found = [confidence_interval(totals(values.tolist())) for values in (spread, alike)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][1] > 0 > found[1][1]


def test_the_standard_error_by_hand() -> None:
    """Of single cases the textbook's; of clusters by their sums: here (1, 2 cases), (2, 1 case), mean 1."""
    values = [0.1, 0.4, 0.7, 0.9]
    assert paired.standard_error(totals(values)) == pytest.approx(np.std(values, ddof=1) / 2)
    clustered = subject_totals([("p", 0.4), ("p", 0.6), ("q", 2.0)])
    assert paired.standard_error(clustered) == pytest.approx(math.sqrt(2 * (1 + 1)) / 3)


# --- the drop that is found ---------------------------------------------------------------------------------


def test_the_detectable_drop_by_hand() -> None:
    """Twice t bounds where they are large, the tolerance and a margin where they are small."""
    deltas = [0.1, -0.1] * 10
    bound = math.sqrt(20 / 19 * 0.01 / 20) + 6 * 0.1 / 20
    assert detectable_drop(totals(deltas), 0.9, 0.01) == pytest.approx(2 * 2.093 * bound, abs=1e-4)
    assert detectable_drop(totals(deltas), 0.9, 0.2) == pytest.approx(0.2 + 2.093 * bound, abs=1e-4)


def test_a_stricter_level_can_find_less() -> None:
    """The gate of one of five strata needs a larger drop than one alone."""
    deltas = totals([0.1, -0.1] * 10)
    alone, one_of_five = detectable_drop(deltas, 0.9, 0.01), detectable_drop(deltas, 0.9, 0.01, 0.99)
    assert alone is not None
    assert one_of_five is not None
    assert alone < one_of_five < 1.4 * alone


def test_nothing_is_announced_where_nothing_sensible_can_be() -> None:
    """Neither for few subjects, nor where no case differs, nor where it would be more than there is to lose."""
    assert detectable_drop(totals([0.1, -0.1] * 9 + [0.1]), 0.9, 0.01) is None
    assert detectable_drop(totals([0.0] * 20), 0.9, 0.01) is None
    assert detectable_drop(totals([0.1, -0.1] * 10), 0.2, 0.01) is None


# --- p-values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sums", "p"),
    [
        ([1.0], 1.0),
        ([1.0, 2.0], 0.5),
        ([1.0, 1.0, 1.0], 0.25),
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0], 1.0),
        ([-0.3] * 8, 2 / 256),
    ],
)
def test_sign_flips_by_hand(sums: list[float], p: float) -> None:
    """All signs are tried for a few subjects."""
    assert sign_flip_p(np.array(sums)) == pytest.approx(p)


def test_sampled_flips_agree_with_all_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    """For twelve subjects, to what a sample of this size can say; and never zero."""
    sums = np.random.default_rng(5).normal(0.3, 1, size=12)
    exact = sign_flip_p(sums)
    monkeypatch.setattr(paired, "FLIPS", 4000)
    assert sign_flip_p(sums) == pytest.approx(exact, abs=0.03)
    assert sign_flip_p(np.ones(40)) == 1 / 4000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=10))
def test_the_direction_of_a_difference_does_not_matter_to_p(sums: list[float]) -> None:
    """Two-sided, in (0, 1], and whatever the order."""
    p = sign_flip_p(np.array(sums))
    assert 0 < p <= 1
    assert sign_flip_p(-np.array(sums[::-1])) == pytest.approx(p)


def test_holm_by_hand() -> None:
    """The smallest times three, the next times two but no less than that, ...; in the order given, at most 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(UNIT, min_size=1, max_size=20))
def test_holm_raises_and_keeps_the_order(values: list[float]) -> None:
    """No adjusted value is smaller than its own; a smaller one stays smaller or equal; one alone is unchanged."""
    adjusted = holm(values)
    assert all(was <= now <= 1 for was, now in zip(values, adjusted, strict=True))
    ordered = [now for _, now in sorted(zip(values, adjusted, strict=True))]
    assert ordered == sorted(ordered)
    assert holm(values[:1]) == values[:1]
