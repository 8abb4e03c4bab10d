"""A data set that is drawn when it is asked for: a large and a small bright square on dark ground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptseg import DatasetSpec, TaskSpec

if TYPE_CHECKING:
    from promptseg.samples import Samples

SPEC = DatasetSpec(
    name="outside_squares",
    modality="synthetic",
    load="promptseg_outside.dataset:load",
    tasks=(
        TaskSpec(name="outside_squares_large", labels=(1,), target="the large square"),
        TaskSpec(name="outside_squares_small", labels=(2,), target="the small square"),
    ),
    licence="Apache-2.0",
    embedded=True,
)


def load(spec: DatasetSpec, root: Path | None) -> Samples:
    """Return the squares; there are no files, so ``root`` is None."""
    from promptseg_outside.squares import Squares

    return Squares()
