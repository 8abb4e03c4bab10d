"""SIGKILL in earnest: the script that kills runs fifty times, here a few times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script_modules import load_script

kill_runs = load_script("kill_runs")


def test_a_few_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run, the controller of xdist and a worker; then the results are those of a run that nobody disturbed."""
    monkeypatch.setattr(kill_runs, "IMAGES", 6)
    tally = kill_runs.kill_runs(tmp_path, 3, 0, show=lambda _: None)
    assert tally.problems == []
    assert set(tally.kills) == set(kill_runs.VICTIMS)
    assert tally.rounds >= 1
    assert tally.kept >= 3


def test_a_lost_case_would_be_seen(tmp_path: Path) -> None:
    """What the script looks for is in journals and results; a line that is cut is no finished case."""
    folder = tmp_path / "leaderboard" / "results" / "slow" / "left"
    folder.mkdir(parents=True)
    journal = folder / "box_all-0123456789abcdef.1-2.journal"
    lines = [json.dumps({"case_id": name, "rows": []}) for name in ("00", "01")]
    journal.write_text("\n".join(lines))
    assert kill_runs.finished(tmp_path) == {("slow/left/box_all", "00")}
    journal.write_text("\n".join(lines) + "\n")
    assert kill_runs.finished(tmp_path) == {("slow/left/box_all", "00"), ("slow/left/box_all", "01")}
