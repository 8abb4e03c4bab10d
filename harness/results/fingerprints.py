"""What a result depends on, and the fingerprint of it: specs, source and checksums; no file is opened here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from promptseg.registry.references import code_hash
from promptseg.results.rows import SCHEMA_VERSION
from promptseg.specs import DatasetSpec, ModelSpec, PromptMode, TaskSpec

PROTOCOL = "paper"
PROTOCOL_VERSION = 1
SCORING = {
    "image": (
        "promptseg.data.images",
        "promptseg.data.parquet",
        "promptseg.evaluation.boundary",
        "promptseg.evaluation.evaluate",
        "promptseg.evaluation.grid",
        "promptseg.evaluation.jobs",
        "promptseg.evaluation.metrics",
        "promptseg.evaluation.pipeline",
        "promptseg.evaluation.reading",
        "promptseg.evaluation.trajectories",
        "promptseg.prompts",
        "promptseg.samples",
    )
}
"""For each kind of work (`promptseg.evaluation.kinds`) the modules that turn cases and predictions into scores."""


def of_run(kind: str) -> dict[str, Any]:
    """Return what results of any model, data set and mode depend on that are of one kind of work."""
    return {
        "schema": SCHEMA_VERSION,
        "protocol": [PROTOCOL, PROTOCOL_VERSION],
        "scoring": [code_hash(module) for module in SCORING[kind]],
    }


def of_model(model: ModelSpec) -> dict[str, Any]:
    """Return what a model's spec and code contribute; `identity` adds the checksums of its files."""
    return {
        "name": model.name,
        "load": model.load,  # beside its code: the modules of a package share that
        "code": code_hash(model.load),
        "options": dict(model.options),
        "accepts": sorted(model.accepts),
    }


def of_dataset(dataset: DatasetSpec) -> dict[str, Any]:
    """Return what a data set's spec and code contribute; `identity` adds the fingerprint of its images and masks."""
    return {
        "name": dataset.name,
        "load": dataset.load,
        "code": code_hash(dataset.load),
        "options": dict(dataset.options),
        "labels": sorted(label for task in dataset.tasks for label in task.labels),
    }


def of_mode(mode: PromptMode) -> dict[str, Any]:
    """Return what a prompt mode contributes."""
    return {
        "name": mode.name,
        "kind": mode.kind,
        "simulate": mode.simulate,
        "code": code_hash(mode.simulate),
        "steps": mode.steps,
        "guide": mode.guide,
        "grid": mode.grid,
    }


def identity(
    model: ModelSpec,
    dataset: DatasetSpec,
    *,
    kind: str,
    sha256: Mapping[str, str],
    data: str,
    seed: int,
    sample_seed: int,
    device: str,
    dtype: str,
    fast: Iterable[str],
) -> dict[str, Any]:
    """Return what the results of a model on a data set depend on, task and prompt mode excepted.

    Metrics other than IoU, which guides clicks, are no part of it: each has an identity of its own in a result.

    Args:
        model: its spec.
        dataset: its spec.
        kind: of work.
        sha256: of the model's files, by role.
        data: fingerprint of the data set's images, masks and ids.
        seed: of the prompts.
        sample_seed: of the order in which a limited run takes cases.
        device: its kind, as ``cpu`` or ``cuda``.
        dtype: of the encoder.
        fast: the fast paths that were asked for.
    """
    return {
        **of_run(kind),
        "model": {**of_model(model), "sha256": dict(sha256)},
        "dataset": {**of_dataset(dataset), "fingerprint": data},
        "seed": seed,
        "sample_seed": sample_seed,
        "device": device,
        "dtype": dtype,
        "fast": sorted(fast),
    }


def fingerprint(identity: Mapping[str, Any], task: TaskSpec, mode: PromptMode) -> str:
    """Return what changes when, and only when, something changes that a result may depend on.

    Args:
        identity: of `identity`.
        task: of the cell.
        mode: of the cell.
    """
    whole = {**identity, "task": {"name": task.name, "labels": sorted(task.labels)}, "mode": of_mode(mode)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
