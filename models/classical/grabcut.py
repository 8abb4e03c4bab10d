"""GrabCut (Rother, Kolmogorov and Blake 2004), by OpenCV: colour models of object and background, graph cuts.

The method itself is in `promptseg.models.classical._grabcut`, which says how prompts become seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from promptseg.segmenter import Runtime, Segmenter

SPEC = ModelSpec(
    name="grabcut",
    family="classical",
    load="promptseg.models.classical.grabcut:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
    training_data=(),
    url="https://doi.org/10.1145/1015706.1015720",
    embedded=True,
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:  # noqa: ARG001
    """Return the method; it has no weights and runs on the CPU."""
    from promptseg.models.classical._grabcut import GrabCut

    return GrabCut(spec)
