"""What a result depends on, as far as specs and source tell: no files of models, no data, nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from promptseg.registry.references import code_hash
from promptseg.results.store import SCHEMA_VERSION
from promptseg.specs import DatasetSpec, ModelSpec, PromptMode, TaskSpec

PROTOCOL = "paper"
PROTOCOL_VERSION = 1
# What turns images and predictions into scores. Its source is part of every fingerprint.
_SCORING = (
    "promptseg.data.images",
    "promptseg.data.parquet",
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


def of_run() -> dict[str, Any]:
    """Return what results of any model, data set and mode depend on."""
    return {
        "schema": SCHEMA_VERSION,
        "protocol": [PROTOCOL, PROTOCOL_VERSION],
        "scoring": [code_hash(module) for module in _SCORING],
    }


def of_model(model: ModelSpec) -> dict[str, Any]:
    """Return what a model's spec and code contribute; the sums of its files come to that."""
    return {
        "name": model.name,
        "load": model.load,  # beside its code: the modules of a package share that
        "code": code_hash(model.load),
        "options": dict(model.options),
        "accepts": sorted(model.accepts),
    }


def of_dataset(dataset: DatasetSpec) -> dict[str, Any]:
    """Return what a data set's spec and code contribute; the fingerprint of its images and masks comes to that."""
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
        "simulate": mode.simulate,
        "code": code_hash(mode.simulate),
        "steps": mode.steps,
        "guide": mode.guide,
        "grid": mode.grid,
    }


def fingerprint(identity: Mapping[str, Any], task: TaskSpec, mode: PromptMode) -> str:
    """Return what changes when, and only when, something changes that a result may depend on.

    Args:
        identity: `of_run`, `of_model` with ``sha256`` of its files, `of_dataset` with the ``fingerprint`` of its
            samples, and ``seed``, ``device`` (its kind) and ``dtype``.
        task: of the cell.
        mode: of the cell.
    """
    whole = {**identity, "task": {"name": task.name, "labels": sorted(task.labels)}, "mode": of_mode(mode)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
