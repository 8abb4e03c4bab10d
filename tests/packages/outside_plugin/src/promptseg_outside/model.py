"""A model without weights: blur, take what is bright, keep the parts that the prompt points at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg import ModelSpec

if TYPE_CHECKING:
    from promptseg import Runtime, Segmenter

SPEC = ModelSpec(
    name="outside_blur_threshold",
    family="classical",
    load="promptseg_outside.model:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
    training_data=(),
    embedded=True,
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:
    """Return the model; what it needs is imported only now."""
    from promptseg_outside.blur_threshold import BlurThreshold

    return BlurThreshold(spec)
