"""Random walker (Grady 2006), by scikit-image: whose seed does a walker from this pixel reach first?

The method itself is in `promptseg.models.classical._random_walker`, which says how prompts become seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from promptseg.segmenter import Runtime, Segmenter

SPEC = ModelSpec(
    name="random_walker",
    family="classical",
    load="promptseg.models.classical.random_walker:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
    training_data=(),
    url="https://doi.org/10.1109/TPAMI.2006.233",
    embedded=True,
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:  # noqa: ARG001
    """Return the method; it has no weights and runs on the CPU."""
    from promptseg.models.classical._random_walker import RandomWalker

    return RandomWalker(spec)
