"""A model on a data set: what is known before the model is loaded, what its results depend on, and what they tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptseg import evaluate, provenance, store
from promptseg.options import Options
from promptseg.references import code_hash
from promptseg.registry import Registered
from promptseg.results import SCHEMA_VERSION, CellResult
from promptseg.samples import Samples
from promptseg.specs import Cell, DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec

PROTOCOL = "paper"
PROTOCOL_VERSION = 1
# What turns images and predictions into scores. Its source is part of every fingerprint.
_SCORING = (
    "promptseg.evaluate",
    "promptseg.images",
    "promptseg.metrics",
    "promptseg.parquet_samples",
    "promptseg.pipeline",
    "promptseg.prompts",
    "promptseg.samples",
    "promptseg.trajectories",
)


@dataclass(frozen=True)
class Part:
    """A cell with its specs."""

    cell: Cell
    dataset: DatasetSpec
    task: TaskSpec
    mode: PromptMode


@dataclass(frozen=True)
class Group:
    """A model on a data set, ready to be evaluated: everything that is known before the model is loaded."""

    model: ModelSpec
    dataset: DatasetSpec
    files: store.LocalModel
    samples: Samples
    order: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


def identity(
    model: ModelSpec, dataset: DatasetSpec, files: store.LocalModel, samples: Samples, options: Options, device: str
) -> dict[str, Any]:
    """Return what every result of the group depends on, but for task and mode."""
    return {
        "schema": SCHEMA_VERSION,
        "protocol": [PROTOCOL, PROTOCOL_VERSION],
        "model": {
            "name": model.name,
            "code": code_hash(model.load),
            "options": dict(model.options),
            "accepts": sorted(model.accepts),
            "sha256": dict(files.sha256),
        },
        "dataset": {
            "name": dataset.name,
            "code": code_hash(dataset.load),
            "options": dict(dataset.options),
            "labels": sorted(label for task in dataset.tasks for label in task.labels),
            "fingerprint": samples.fingerprint,
        },
        "scoring": [code_hash(module) for module in _SCORING],
        "seed": options.seed,
        "device": device.split(":")[0],
        "dtype": options.dtype,
    }


def about(
    registered: Registered[ModelSpec], dataset: DatasetSpec, files: store.LocalModel, data: store.LocalData, device: str
) -> dict[str, Any]:
    """Return what a result tells of its origin beyond what it depends on."""
    return {
        "device_name": provenance.device_name(device),
        "model": {**_about_model(registered.get(), files), "provider": registered.provider},
        "dataset": _about_dataset(dataset, data),
        "versions": provenance.versions(),
    }


def fingerprint(identity: Mapping[str, Any], part: Part) -> str:
    """Return what changes when, and only when, something changes that a result may depend on."""
    mode = {
        "name": part.mode.name,
        "simulate": part.mode.simulate,
        "code": code_hash(part.mode.simulate),
        "steps": part.mode.steps,
        "guide": part.mode.guide,
        "grid": part.mode.grid,
    }
    whole = {**identity, "task": {"name": part.task.name, "labels": sorted(part.task.labels)}, "mode": mode}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _about_origin(origin: Origin | None, revision: str | None) -> dict[str, Any]:
    """Return where files come from; the path of a folder on somebody's machine is left out."""
    if origin is None:
        return {"host": None, "repo": None, "revision": revision}
    return {"host": origin.host, "repo": origin.repo if origin.host != "local" else None, "revision": revision}


def _about_model(model: ModelSpec, files: store.LocalModel) -> dict[str, Any]:
    return {
        "family": model.family,
        "load": model.load,
        "licence": model.licence,
        **_about_origin(model.origin, files.revision),
        "training_data": model.training_data,
        "url": model.url,
        "sees_target": model.sees_target,
    }


def _about_dataset(dataset: DatasetSpec, data: store.LocalData) -> dict[str, Any]:
    return {
        "modality": dataset.modality,
        "licence": dataset.licence,
        **_about_origin(dataset.origin, data.revision),
        "url": dataset.url,
        "study": dataset.study,
        "overlaps": dataset.overlaps,
        "prepared": data.prepared,
    }


def finished_cases(result: CellResult, order: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Return rows by case of a stored result, empty for examined cases outside the task, without failed ones."""
    cases: dict[str, tuple[Any, ...]] = dict.fromkeys(order[: result.n_examined], ())
    for row in result.rows:
        cases[row.case_id] = (*cases.get(row.case_id, ()), row)
    return {case_id: rows for case_id, rows in cases.items() if not any(row.error for row in rows)}


def result(group: Group, part: Part, job: evaluate.Job, fingerprint: str, about: Mapping[str, Any]) -> CellResult:
    """Return what a finished job leaves to be stored: its rows, sorted, and where they come from."""
    examined = next((i for i, case_id in enumerate(group.order) if case_id not in job.cases), len(group.order))
    rows = [row for case_id in sorted(job.cases) for row in job.cases[case_id]]
    mode = {key: getattr(part.mode, key) for key in ("needs", "steps", "guide", "grid", "select")}
    task = {"labels": part.task.labels, "target": part.task.target, "n_masks": part.task.n_masks}
    return CellResult(
        cell=part.cell,
        fingerprint=fingerprint,
        rows=tuple(rows),
        n_examined=examined,
        provenance={
            **about,
            "model": {**about["model"], **group.identity["model"]},
            "dataset": {**about["dataset"], **group.identity["dataset"]},
            "task": task,
            "mode": mode,
        },
    )


def sample(result: CellResult, order: tuple[str, ...], limit: int | None) -> set[str]:
    """Return the case ids that a run of this limit speaks of: the first of the seeded order."""
    present = {row.case_id for row in result.rows}
    return set([case_id for case_id in order if case_id in present][:limit])
