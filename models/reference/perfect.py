"""The ceiling: a model that returns the target. For tests of the harness; never on the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import ModelError
from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from promptseg.segmenter import Image, Prediction, Request, Runtime, Segmenter

SPEC = ModelSpec(
    name="perfect",
    family="ceiling",
    load="promptseg.models.reference.perfect:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
    training_data=(),
    sees_target=True,
)


class Perfect:
    """Returns the target of each request."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def embed(self, images: Sequence[Image]) -> Sequence[None]:
        """Return nothing for each image: the answer does not depend on it."""
        return [None for _ in images]

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Return a copy of each request's target as the only candidate."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Prediction:
        from promptseg.segmenter import Prediction

        if request.target is None:
            raise ModelError(f"model {self.spec.name!r} got no target; its spec must say sees_target=True.")
        return Prediction(request.target[None].copy())


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:  # noqa: ARG001
    """Return the model that knows the answer."""
    return Perfect(spec)
