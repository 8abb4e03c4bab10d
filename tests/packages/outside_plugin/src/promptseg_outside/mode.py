"""A prompt mode: a careless click, at the edge of the object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptseg import PromptMode

if TYPE_CHECKING:
    import numpy as np

    from promptseg import Prompt
    from promptseg.segmenter import Mask

POINT_CORNER = PromptMode(
    name="point_corner",
    needs="points",
    simulate="promptseg_outside.mode:point_corner",
    description="One point on the first pixel of the target, row by row from the top.",
)


def point_corner(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Return one prompt for a (H, W) bool target; nothing is drawn at random."""
    import numpy as np

    from promptseg import Prompt

    rows, cols = target.nonzero()
    return (Prompt(np.array([[cols[0], rows[0]]], dtype=np.float32), np.array([1])),)
