"""How seldom early stopping errs and what it saves, by simulation on real IoU; `scripts/simulate_sure.py` does more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from script_modules import load_script

simulation = load_script("simulate_sure")
ROOT = Path(__file__).resolve().parents[1]


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


def test_the_script_prints_a_row_for_each_size() -> None:
    """And one for all tasks, for each distance and for each part of images outside of the task."""
    command = [sys.executable, "scripts/simulate_sure.py", "--runs", "1"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sum(line.startswith("| 4586 ") for line in lines) == 1
    assert sum(line.startswith("| the 28 tasks ") for line in lines) == 1
    n_sizes = len({task.n_masks for task in simulation.paper.tasks().values()})
    expected = (n_sizes + 1) + len(simulation.DISTANCES) + len(simulation.OUTSIDE)
    assert sum(line.startswith("|") for line in lines) == expected + 3 * 2
