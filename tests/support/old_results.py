"""Results as promptseg 0.1.0 wrote them: other columns, and versions and journals in other places."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptseg.specs import Cell

COLUMNS = pa.schema(
    [
        ("case_id", pa.string()),
        ("subject_id", pa.string()),
        ("click", pa.int32()),
        ("n_components", pa.int32()),
        ("area_fraction", pa.float64()),
        ("prompts", pa.string()),
        ("iou_first", pa.float64()),
        ("iou_confident", pa.float64()),
        ("iou_oracle", pa.float64()),
        ("predicted_iou", pa.list_(pa.float64())),
        ("candidate_iou", pa.list_(pa.float64())),
        ("coverage", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
FINGERPRINT = "0123456789abcdef" * 4


def _row(case_id: str, iou: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS.names)
    numbers = {"click": 0, "n_components": 1, "area_fraction": 0.1, "prompts": "[]", "seconds": 0.0}
    return row | numbers | {"case_id": case_id} | dict.fromkeys(("iou_first", "iou_confident", "iou_oracle"), iou)


def write_old_file(path: Path, cell: Cell, *, digest: bool = True) -> Path:
    """Write the file of a result; the first ones had no digest of their metadata."""
    about = {
        "schema": 1,
        "cell": {"model": cell.model, "task": cell.task, "mode": cell.mode},
        "fingerprint": FINGERPRINT,
        "n_examined": 2,
        "provenance": {"seed": 0, "n_images": 2, "protocol": ["paper", 1], "model": {"family": "sam"}},
    }
    text = json.dumps(about, sort_keys=True).encode()
    metadata = {b"promptseg": text}
    if digest:
        metadata[b"promptseg-sha256"] = hashlib.sha256(text).hexdigest().encode()
    table = pa.Table.from_pylist([_row("a", 0.5), _row("b", 0.25)], schema=COLUMNS.with_metadata(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return path


def write_old_results(root: Path, *cells: Cell) -> Path:
    """Write a results folder: each result with the file in its history that it is a link to."""
    for cell in cells:
        latest = write_old_file(root / cell.model / cell.task / f"{cell.mode}.parquet", cell)
        version = latest.parent / "history" / f"{cell.mode}-{FINGERPRINT[:16]}.000000.parquet"
        version.parent.mkdir(exist_ok=True)
        version.hardlink_to(latest)
    return root


def write_old_journal(root: Path, cell: Cell) -> Path:
    """Write the journal of a result that was not finished."""
    text = json.dumps({"case_id": "a", "rows": [_row("a", 0.5)]}).encode()
    path = root / cell.model / cell.task / f"{cell.mode}-{FINGERPRINT[:16]}.12-abcdef01.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text[:-1] + f', "crc32": {zlib.crc32(text)}}}\n'.encode())
    return path


def write_old_baseline(root: Path, *cells: Cell) -> Path:
    """Write a baseline: the latest results alone."""
    for cell in cells:
        write_old_file(root / cell.model / cell.task / f"{cell.mode}.parquet", cell)
    return root


def write_old_submission(root: Path, *cells: Cell) -> Path:
    """Write a submission: its document, and the latest results in a folder of their own."""
    write_old_baseline(root / "results", *cells)
    (root / "submission.json").write_text(json.dumps({"schema": 1, "promptseg": "0.1.0", "cells": []}))
    return root
