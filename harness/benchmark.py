"""The benchmark itself: ``pytest --pyargs promptseg.benchmark``.

One test for every (model, task, prompt mode), and where it is named (``-k test_speed``) one for every model's speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from promptseg.session.fixtures import CellFixture, SpeedHandle


def test_iou(seg_cell: CellFixture) -> None:
    """The model reaches the task's threshold and is no worse than its baseline; without either the test is skipped."""
    score = seg_cell.score()
    assert not score.too_many_errors, score.explain()
    if score.unasserted is not None:
        pytest.skip(score.unasserted)
    assert score.reaches_threshold, score.explain()
    assert score.keeps_baseline, score.explain()


@pytest.mark.speed
def test_speed(seg_speed: SpeedHandle) -> None:
    """Measure encoding and prompting with pytest-benchmark; the figures join the leaderboard."""
    seg_speed.measure()
