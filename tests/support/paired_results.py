"""Results before and after a change, for tests of gates and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell

CELL = Cell("minisam", "us_kidney", "box_each")
ABOUT: Mapping[str, Any] = {
    "protocol": ["paper", 1],
    "seed": 0,
    "dtype": "float32",
    "device": "cpu",
    "dataset": {"name": "us_kidney", "fingerprint": "f" * 64, "options": {}, "code": "a" * 64},
    "task": {"labels": [1]},
    "mode": {"steps": 0, "guide": None, "grid": 0, "select": None},
    "model": {"sha256": {"checkpoint": "1" * 64}, "revision": "2" * 40, "code": "3" * 64, "options": {}},
    "versions": {"torch": "2.6", "python": "3.11"},
    "git_commit": "4" * 40,
}


def result(ious: Sequence[float], about: Mapping[str, Any] = ABOUT, **more: Any) -> CellResult:
    """Return a result with these IoUs."""
    rows = [
        dataclasses.replace(
            ResultRow(case_id=f"c{i:02}", iou_first=iou, iou_confident=iou, iou_oracle=iou, n_components=1),
            **{key: value[i] if isinstance(value, list) else value for key, value in more.items()},
        )
        for i, iou in enumerate(ious)
    ]
    return CellResult(
        cell=CELL, fingerprint="0", rows=tuple(rows), n_examined=len(rows), provenance=Provenance.from_json(about)
    )


def changed(section: str, key: str | None, value: Any) -> dict[str, Any]:
    """Return the provenance with one fact changed."""
    return {**ABOUT, section: value if key is None else {**ABOUT[section], key: value}}


BASE = [0.5 + 0.02 * i for i in range(20)]
NOISE = [0.05 * (-1) ** i for i in range(20)]


def minus(drop: float, noise: float = 0.0) -> CellResult:
    """Return the result that lost ``drop`` in every case, with the noise that far up and down."""
    return result([iou - drop + noise * sign for iou, sign in zip(BASE, NOISE, strict=True)])
