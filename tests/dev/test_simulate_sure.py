"""How seldom early stopping errs and what it saves, simulated; `scripts/studies/simulate_sure.py` does more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.script_modules import load_script, run_script

simulation = load_script("simulate_sure")


def test_at_most_one_decision_in_a_hundred_is_wrong_and_a_quarter_of_the_cases_is_enough() -> None:
    """Of 2,000 on populations of the study's sizes from 503 on, with thresholds 0.05 from the mean."""
    rng = np.random.default_rng(5)
    sizes = [task.n_masks for task in simulation.paper.tasks().values() if 500 < task.n_masks < 5000]
    found = simulation.together(
        simulation.runs(rng.choice(pool, size), 0.05, 9, rng)
        for pool in simulation.pools(None).values()
        for size in sizes
    )
    assert len(found.share) >= 2000
    assert found.wrong.mean() <= 0.01
    assert np.median(found.share) <= 0.25


def test_thresholds_next_to_the_mean_are_not_settled_wrongly() -> None:
    """Where errors are most likely: 2,000 decisions a thousandth from the mean."""
    rng = np.random.default_rng(6)
    found = simulation.together(
        simulation.runs(rng.choice(pool, 200), 0.001, 170, rng) for pool in simulation.pools(None).values()
    )
    assert len(found.share) >= 2000
    assert found.wrong.mean() <= 0.01


def test_one_look_is_where_the_mean_lies_z_standard_errors_away() -> None:
    """The formula of the standard error without replacement, put to the test at the share that comes out."""
    population = np.random.default_rng(2).beta(5, 2, 4000)
    n = round(simulation.one_look(population, 0.02) * 4000)
    away = [0.02 / (population.std(ddof=1) * math.sqrt(1 / size - 1 / 4000)) for size in (n - 1, n)]
    assert away[0] < 2.3263 <= away[1]
    assert simulation.one_look(np.full(50, 0.7), 0.05) == 1 / 50
    assert simulation.one_look(np.array([0.0, 1.0]), 0.001) == 1


def test_no_method_may_decide_before_it_sees_what_could_lie_hidden() -> None:
    """Of 20 cases of 0.7 two at 0 would move the mean by 0.07: 17 cases leave them unseen with 3 * 2 / (20 * 19)."""
    population = np.full(20, 0.7)
    assert simulation.no_method_below(population, 0.05) == 17 / 20
    assert simulation.no_method_below(1 - population, 0.05) == 12 / 20  # four at 1: 8 * 7 * 6 * 5 / (20 * 19 * 18 * 17)
    assert simulation.no_method_below(np.array([0.3, 0.9]), 0.01) == 1


def test_ours_is_not_below_what_no_method_is_below() -> None:
    """In the median over many orders, for populations small and large, even and uneven."""
    rng = np.random.default_rng(7)
    for population in (np.full(20, 0.7), rng.beta(5, 2, 60), np.repeat([0.0, 0.9], [40, 160])):
        for side in (-1, 1):
            found = simulation.runs(population, 0.1, 400, rng)
            part = slice(0, 400) if side == -1 else slice(400, 800)
            assert np.median(found.share[part]) >= found.no_method_below[part][0]


def test_the_script_prints_a_row_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one for all tasks, for each distance and for each part of images outside of the task."""
    tasks = sorted(simulation.paper.tasks().items(), key=lambda item: item[1].n_masks)
    some = dict(tasks[::9])
    assert len(some) == 4
    monkeypatch.setattr(simulation.paper, "tasks", lambda: some)
    lines = run_script("simulate_sure", "--runs", "1").stdout.splitlines()
    sizes = {task.n_masks for task in some.values()}
    first = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert {first.count(name) for name in (*map(str, sizes), "the 28 tasks")} == {1}
    expected = (len(sizes) + 1) + len(simulation.DISTANCES) + len(simulation.OUTSIDE)
    assert sum(line.startswith("|") for line in lines) == expected + 3 * 2
