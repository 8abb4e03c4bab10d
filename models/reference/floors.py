"""Floors: what the prompt alone is worth. Neither model looks at the image.

A model that scores below them has learnt nothing that its prompt did not already say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import ConfigError
from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from promptseg.segmenter import Runtime, Segmenter

BOX_FILL = ModelSpec(
    name="box_fill",
    family="floor",
    load="promptseg.models.reference.floors:load",
    licence="Apache-2.0",
    accepts=frozenset({"boxes"}),
    options={"shape": "box"},
    training_data=(),
    embedded=True,
)
"""The box, filled; its last row and column belong to it."""

POINT_DISC = ModelSpec(
    name="point_disc",
    family="floor",
    load="promptseg.models.reference.floors:load",
    licence="Apache-2.0",
    accepts=frozenset({"points"}),
    options={"shape": "disc", "radius": 0.1},
    training_data=(),
    embedded=True,
)
"""A disc around each foreground point; ``radius`` is a fraction of the image's shorter side."""


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:  # noqa: ARG001
    """Return the floor that ``spec.options["shape"]`` names: ``box`` or ``disc``."""
    from promptseg.models.reference import _floors

    shape = spec.options.get("shape")
    if shape == "box":
        return _floors.BoxFill(spec)
    if shape == "disc":
        return _floors.PointDisc(spec)
    raise ConfigError(f"model {spec.name!r}: option shape is {shape!r}; the floors are 'box' and 'disc'.")
