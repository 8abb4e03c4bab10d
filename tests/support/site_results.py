"""Results for tests of the report: a model of three candidates on phantoms, before and after a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from promptseg import registry
from promptseg.progress import Advance, Progress
from promptseg.registry.entries import Registry
from promptseg.runner.options import Options
from promptseg.runner.run import Run
from promptseg.segmenter import Image, Prediction, Prompt, Runtime, SingleImageSegmenter
from promptseg.specs import Cell, ModelSpec

STATIC, CLICKS = Cell("blob", "phantom_ct", "box_each"), Cell("blob", "phantom_ct", "clicks_confident")


class Blob(SingleImageSegmenter):
    """Ellipses round the middle of the prompt: small, larger (the confident one), and the whole image."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Answer with three masks."""
        height, width = image.shape[:2]
        ys, xs = np.mgrid[:height, :width]
        if prompt.box_xyxy is not None:
            left, top, right, bottom = prompt.box_xyxy
            far = ((xs - (left + right) / 2) / (right - left + 1)) ** 2 + (
                (ys - (top + bottom) / 2) / (bottom - top + 1)
            ) ** 2
        else:
            inside = prompt.points_xy[prompt.labels == 1]
            far = np.min([((xs - x) ** 2 + (ys - y) ** 2) for x, y in inside], axis=0) / width**2
        size = float(self.spec.options.get("size", 0.2))
        masks = np.stack([far <= 0.05 * size, far <= size, np.ones(far.shape, dtype=bool)])
        return Prediction(masks, np.array([0.5, 0.9, 0.1], dtype=np.float32))


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Blob:
    """Return the model."""
    return Blob(spec)


class _Silent(Progress):
    def __init__(self) -> None:
        pass

    @contextmanager
    def group(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda _: None


def known(folder: Path, size: float) -> Registry:
    """Return a registry with the model ``blob``, whose masks are of some size."""
    config = folder / "promptseg.toml"
    config.write_text(f'[models.blob]\nadapter = "support.site_results:load"\noptions = {{size = {size}}}\n')
    return registry.build(config)


def evaluate(found: Registry, results: Path, *cells: Cell, masks: bool = True, limit: int | None = None) -> None:
    """Evaluate cells as a run of pytest does."""
    options = Options(root=results.parent, results=results, device="cpu", save_masks=masks, limit=limit)
    evaluation = Run(options, found, {}, None, _Silent(), results.parent)
    evaluation.plan(cells)
    for cell in cells:
        evaluation.score(cell)
