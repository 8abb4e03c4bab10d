"""What click models share: the profile of 2023 and the window of SimpleClick; see docs/rivals.md."""

from __future__ import annotations

import dataclasses

from promptseg.specs import ModelSpec

PAPER_2023 = "_paper2023"
WINDOW = 224  # pixels; blocks of SimpleClick attend within windows of the size that the backbones were pretrained on


def paper2023(spec: ModelSpec) -> ModelSpec:
    """Return a model as the study of 2023 ran it: all clicks in one pass, the previous mask cleared each time."""
    return dataclasses.replace(
        spec,
        name=f"{spec.name}{PAPER_2023}",
        accepts=spec.accepts - {"feedback"},
        options={**spec.options, "previous_mask": False},
    )
