"""Region growing (after Adams and Bischof 1994), by OpenCV: all pixels that are connected to the seed and look like it.

The method itself is in `promptseg.models.classical._region_growing`, which says how prompts become seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from promptseg.segmenter import Runtime, Segmenter

SPEC = ModelSpec(
    name="region_growing",
    family="classical",
    load="promptseg.models.classical.region_growing:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
    training_data=(),
    url="https://doi.org/10.1109/34.295913",
    embedded=True,
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:  # noqa: ARG001
    """Return the method; it has no weights and runs on the CPU."""
    from promptseg.models.classical._region_growing import RegionGrowing

    return RegionGrowing(spec)
