"""Made-up results of any cell, for tests of the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell


def result(cell: str, ious: Mapping[str, float | Sequence[float]], **about: Any) -> CellResult:
    """Return a made-up result: ``model-task-mode`` and one IoU for each case, several for clicks.

    A case id of two parts, as in ``p1/slice``, begins with the subject. The oracle is better by 0.1.
    """
    rows = []
    for case_id, values in ious.items():
        clicks = list(enumerate(values, 1)) if isinstance(values, Sequence) else [(0, values)]
        subject = case_id.split("/")[0] if "/" in case_id else None
        rows += [
            ResultRow(
                case_id=case_id, subject_id=subject, click=c, iou_first=v, iou_confident=v, iou_oracle=min(1.0, v + 0.1)
            )
            for c, v in clicks
        ]
    provenance: dict[str, Any] = {
        "protocol": ["paper", 1],
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "n_images": len(ious),
        "model": {"family": "sam", "sha256": {"checkpoint": "a" * 64}},
        "dataset": {"name": "kidneys", "modality": "ultrasound", "fingerprint": "f" * 64},
    }
    for key, value in about.items():
        provenance[key] = {**provenance[key], **value} if isinstance(value, dict) and key in provenance else value
    return CellResult(
        cell=Cell(*cell.split("-")),
        fingerprint="0",
        rows=tuple(rows),
        n_examined=len(ious),
        provenance=Provenance.from_json(provenance),
    )
