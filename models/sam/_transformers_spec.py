"""Specs of transformers' models: a checkpoint and a config in one repository of the Hub."""

from __future__ import annotations

from typing import Any

from promptseg.specs import ModelSpec, Origin, WeightFile

CONFIG_UNSEEN = "the sha256 of config.json was not seen"
FILE_UNSEEN = "no sha256 was seen; the first pull prints what to pin"
COMMIT_UNSEEN = "no commit was seen; the first pull prints what to pin"


def transformers_spec(
    name: str, adapter: str, origin: Origin, checkpoint: WeightFile | None = None, **fields: Any
) -> ModelSpec:
    """Return the spec of a model of an adapter in `promptseg.models.sam`; it takes points and boxes by default."""
    return ModelSpec(
        name=name,
        load=f"promptseg.models.sam.{adapter}:load",
        origin=origin,
        weights=(
            checkpoint or WeightFile(role="checkpoint", path="model.safetensors"),
            WeightFile(role="config", path="config.json"),
        ),
        **{"accepts": frozenset({"points", "boxes"}), "licence": "Apache-2.0", **fields},
    )
