"""SIGKILL in earnest: the script that kills runs fifty times, here a few times."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.script_modules import load_script

kill_runs = load_script("kill_runs")


def test_a_few_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each kind, those of Ray where it is installed; then the results are those of a run nobody disturbed."""
    monkeypatch.setattr(kill_runs, "IMAGES", 6)
    ray = importlib.util.find_spec("ray") is not None
    victims = {name for name, how in kill_runs.VICTIMS.items() if ray or how != kill_runs.RAY}
    tally = kill_runs.kill_runs(tmp_path, len(victims), 0, show=lambda _: None)
    assert tally.problems == []
    assert set(tally.kills) == victims
    assert tally.rounds >= 1
    assert tally.kept >= 3


def test_a_lost_case_would_be_seen(tmp_path: Path) -> None:
    """What the script looks for is in journals and results; a line that is cut is no finished case."""
    folder = tmp_path / "leaderboard" / "results" / "slow" / "left" / ".journals"
    folder.mkdir(parents=True)
    journal = folder / "box_all-0123456789abcdef.1-2.journal"
    lines = [json.dumps({"case_id": name, "rows": []}) for name in ("00", "01")]
    journal.write_text("\n".join(lines))
    assert kill_runs.finished(tmp_path) == {("slow/left/box_all", "00")}
    journal.write_text("\n".join(lines) + "\n")
    assert kill_runs.finished(tmp_path) == {("slow/left/box_all", "00"), ("slow/left/box_all", "01")}


def test_without_ray_the_others_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script says that it leaves Ray out, and begins no cluster."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else real(name, *more))
    monkeypatch.setattr(kill_runs, "IMAGES", 4)
    victims: list[str] = []
    monkeypatch.setattr(kill_runs, "kill_once", lambda folder, victim, rng, tally, *more: note(victim, tally))

    def note(victim: str, tally: Any) -> bool:
        victims.append(victim)
        tally.kills[victim] += 1
        return False

    told: list[str] = []
    kill_runs.kill_runs(tmp_path, 4, 0, show=told.append)
    assert victims == ["run", "xdist controller", "xdist worker", "run"]
    assert told[0] == "the extra ray is not installed: neither drivers nor workers of Ray are killed"


def test_a_ray_run_that_does_not_get_over_a_kill_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it that it fails or that it hangs; what it said is told."""
    monkeypatch.setattr(kill_runs, "PATIENCE", 2.0)
    monkeypatch.setattr(kill_runs, "wait_for_moment", lambda *_: None)
    over = "a run did not get over a killed Ray worker: why"
    hangs = "a run was still there after 2 seconds"
    for end, problems in {"sys.exit(1)": [over], "time.sleep(60)": [hangs, over]}.items():
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        monkeypatch.setattr(kill_runs, "workers", lambda *_, pid=victim.pid: [pid])
        command = [sys.executable, "-c", f"import sys, time; time.sleep(0.2); {end}"]
        monkeypatch.setattr(kill_runs, "start", lambda *_, command=command: subprocess.Popen(command))
        (tmp_path / "output").write_text("why")
        tally = kill_runs.Tally()
        complete = kill_runs.kill_once(tmp_path, "Ray worker", np.random.default_rng(0), tally, 1)
        assert not complete
        assert tally.problems == problems
        assert victim.wait() == -signal.SIGKILL
