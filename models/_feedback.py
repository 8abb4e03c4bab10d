"""SAM's authors' advice for several clicks, as a model of its own beside the reference paper's."""

from __future__ import annotations

import dataclasses

from promptseg.specs import ModelSpec


def with_feedback(spec: ModelSpec) -> ModelSpec:
    """Return the spec ``NAME_feedback``: the same SAM, given the logits of its previous mask with every later click.

    The reference paper feeds none back and asks for three masks at every click; see `promptseg.models.sam._segmenter`.
    """
    return dataclasses.replace(spec, name=f"{spec.name}_feedback", accepts=spec.accepts | {"feedback"})
