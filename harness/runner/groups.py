"""One (model, data set): its inputs, the identity behind its fingerprints, the provenance of its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptseg.evaluation import jobs
from promptseg.evaluation.kinds import Kind
from promptseg.files.datasets import LocalData
from promptseg.files.models import LocalModel
from promptseg.registry.entries import Registered
from promptseg.registry.references import code_hash
from promptseg.results import fingerprints, provenance
from promptseg.results.rows import CellResult
from promptseg.runner import conformance, precision_guard
from promptseg.runner.options import Options
from promptseg.samples import Samples
from promptseg.segmenter import Runtime
from promptseg.specs import Cell, DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its specs."""

    cell: Cell
    dataset: DatasetSpec
    task: TaskSpec
    mode: PromptMode


@dataclass(frozen=True)
class ModelOnDataset:
    """A model on a data set, ready to be evaluated on one kind of work: all that is known before the model is loaded.

    ``order`` holds the ids of the kind's cases in seeded order.
    """

    kind: Kind
    model: ModelSpec
    dataset: DatasetSpec
    files: LocalModel
    samples: Samples
    order: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


def identity(
    kind: Kind,
    model: ModelSpec,
    dataset: DatasetSpec,
    files: LocalModel,
    samples: Samples,
    options: Options,
    device: str,
) -> dict[str, Any]:
    """Return what every result of the group depends on, task and mode excepted."""
    return fingerprints.identity(
        model,
        dataset,
        kind=kind.name,
        sha256=files.sha256,
        data=samples.fingerprint,
        seed=options.seed,
        sample_seed=options.order_seed,
        device=device.split(":")[0],
        dtype=options.dtype,
        fast=options.fast,
    )


def embedding_identity(group: ModelOnDataset, runtime: Runtime, device_name: str) -> dict[str, Any]:
    """Return what an embedding depends on beside the pixels: the model, its code and files, and what computes it.

    The adapters of promptseg are named apart, since models of plugins are built on them.
    """
    return {
        "model": group.identity["model"],
        "revision": group.files.revision,
        "adapters": code_hash("promptseg.models.sam._segmenter"),
        "dtype": runtime.dtype,
        "fast": sorted(runtime.fast),
        **_machine(group, device_name),
    }


def conformance_key(group: ModelOnDataset, runtime: Runtime, device_name: str) -> str:
    """Return what changes when a model's answers may: code, files, runtime, machine, and how it is asked.

    The data set is no part of it: a model is asked once, on the first that it is evaluated on.
    """
    asks = [code_hash(f"promptseg.{module}") for module in ("evaluation.company", "runner.conformance")]
    return conformance.key_of({**embedding_identity(group, runtime, device_name), "asks": asks})


def precision_key(group: ModelOnDataset, fingerprint: str, device_name: str) -> str:
    """Return what changes when the agreement of a cell with float32 may: its result's fingerprint, or the machine."""
    machine = _machine(group, device_name)
    return precision_guard.key_of(
        fingerprint, group.files.revision, code_hash("promptseg.runner.precision_guard"), machine
    )


def _machine(group: ModelOnDataset, device_name: str) -> dict[str, Any]:
    return {
        "device": group.identity["device"],
        "device_name": device_name,
        "versions": group.about["versions"],
    }


def about(
    registered: Registered[ModelSpec], dataset: DatasetSpec, files: LocalModel, data: LocalData
) -> dict[str, Any]:
    """Return what results record of their origin beyond what they depend on."""
    return {
        "model": {**_about_model(registered.get(), files), "provider": registered.provider},
        "dataset": _about_dataset(dataset, data),
        "versions": provenance.versions(),
    }


def fingerprint(identity: Mapping[str, Any], part: PlannedCell) -> str:
    """Return what changes when, and only when, something changes that a result may depend on."""
    return fingerprints.fingerprint(identity, part.task, part.mode)


def _about_origin(origin: Origin | None, revision: str | None) -> dict[str, Any]:
    """Return where files come from; the path of a folder on somebody's machine is left out."""
    if origin is None:
        return {"host": None, "repo": None, "revision": revision}
    return {"host": origin.host, "repo": origin.repo if origin.host != "local" else None, "revision": revision}


def _about_model(model: ModelSpec, files: LocalModel) -> dict[str, Any]:
    return {
        "family": model.family,
        "load": model.load,
        "licence": model.licence,
        **_about_origin(model.origin, files.revision),
        "training_data": model.training_data,
        "url": model.url,
        "sees_target": model.sees_target,
    }


def _about_dataset(dataset: DatasetSpec, data: LocalData) -> dict[str, Any]:
    return {
        "modality": dataset.modality,
        "version": dataset.version,
        "licence": dataset.licence,
        **_about_origin(dataset.origin, data.revision),
        "url": dataset.url,
        "study": dataset.study,
        "overlaps": dataset.overlaps,
        "prepared": data.prepared,
    }


def result(
    group: ModelOnDataset, part: PlannedCell, cases: jobs.Cases, fingerprint: str, about: Mapping[str, Any]
) -> CellResult:
    """Return the result of a finished job: its rows, sorted, and where they come from.

    Cases beyond the first one that is not finished stay in journals: a killed run may have finished them out of order.
    """
    examined = next((i for i, case_id in enumerate(group.order) if case_id not in cases), len(group.order))
    mode = {**fingerprints.of_mode(part.mode), "needs": part.mode.needs, "select": part.mode.select}
    task = {"labels": part.task.labels, "target": part.task.target, "n_masks": part.task.n_masks}
    return CellResult(
        cell=part.cell,
        fingerprint=fingerprint,
        rows=jobs.sorted_rows({case_id: cases[case_id] for case_id in group.order[:examined]}),
        n_examined=examined,
        provenance=provenance.Provenance.from_json(
            {
                **about,
                "model": {**about["model"], **group.identity["model"]},
                "dataset": {**about["dataset"], **group.identity["dataset"]},
                "task": task,
                "mode": mode,
            }
        ),
    )
