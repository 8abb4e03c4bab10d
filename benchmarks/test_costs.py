"""Parts of promptseg for pytest-benchmark.

    pytest benchmarks/test_costs.py

Seconds are the machine's: compare runs on one machine (``--benchmark-compare``). Nothing here asserts a time; the
ratios in docs/speed.md are measured by the scripts beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import prompt_simulation
import protocol
import pytest
import scaling
import subjects
import torch

from promptseg.evaluation import metrics
from promptseg.models.sam._decoder import OfficialDecoder, empty_modules
from promptseg.models.sam._segmenter import Frame, Prompts
from promptseg.models.sam._upsampling import masks_and_stability
from promptseg.results.journal import Journal
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.rows import CellResult, ResultRow
from promptseg.segmenter import Prediction
from promptseg.specs import Cell

SIZE = (512, 512)
TARGET = subjects.Pictures(None, 1, SIZE).mask("drawn_00000")


def test_prompts_known_beforehand(benchmark: Any) -> None:
    """The five modes and the first click of three guides."""

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        target = TARGET.copy()
        target.setflags(write=False)
        return (target,), {}

    benchmark.pedantic(prompt_simulation.simulated, setup=fresh, rounds=50)


def test_choice_of_masks(benchmark: Any) -> None:
    """Three candidates of one prompt against the target."""
    masks = np.stack([TARGET, ~TARGET, np.roll(TARGET, 9, axis=1)])
    benchmark(metrics.choose, (Prediction(masks, np.array([0.9, 0.1, 0.5], dtype=np.float32)),), TARGET)


@pytest.mark.parametrize("clicks", [1, 9])
def test_decoder(benchmark: Any, clicks: int) -> None:
    """SAM's decoder with random weights on a prepared image."""
    torch.manual_seed(0)
    modules = empty_modules(1024).eval()
    decoder = OfficialDecoder(modules["prompt_encoder"], modules["mask_decoder"])
    points = Prompts(torch.rand(1, clicks, 2) * 1024, torch.ones(1, clicks, dtype=torch.int64), None)
    with torch.inference_mode():
        features = decoder.prepare((torch.randn(1, 256, 64, 64),))
        benchmark(decoder, features, points)


@pytest.mark.parametrize("side", [512, 2048])
def test_masks_of_logits(benchmark: Any, side: int) -> None:
    """Three candidates of noise, where no part of the image can be left out."""
    logits = torch.randn(3, 256, 256)
    rows, columns = Frame((side, side), 1024).steps
    benchmark(masks_and_stability, logits, rows, columns, stability=False)


def test_keeping_a_case(benchmark: Any, tmp_path: Path) -> None:
    """Nine rows into a journal."""
    rows = [ResultRow(case_id="a", click=i, iou_first=0.5, candidate_iou=(0.5, 0.4, 0.3)) for i in range(9)]
    benchmark(Journal(tmp_path / "journal").append, "a", rows)


def test_storing_results(benchmark: Any, tmp_path: Path) -> None:
    """A thousand cases of nine clicks, written as Parquet and read."""
    rows = tuple(ResultRow(case_id=f"{i:04}", click=c, iou_first=0.5) for i in range(1000) for c in range(9))
    result = CellResult(cell=Cell("free", "object", "clicks_first"), fingerprint="f" * 64, rows=rows, n_examined=1000)

    def there_and_back() -> None:
        write_parquet(tmp_path / "result.parquet", result)
        read_parquet(tmp_path / "result.parquet")

    benchmark(there_and_back)


def test_a_hundred_cases(benchmark: Any, tmp_path: Path) -> None:
    """The whole protocol with a model that costs nothing, results stored and read."""
    folders = (tmp_path / str(i) for i in range(1000))
    benchmark.pedantic(lambda: scaling.run(100, protocol.MODES, next(folders)), rounds=2)
