"""A model on a data set: what is known before the model is loaded, what its results depend on, and what they tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptseg.errors import CaseError
from promptseg.evaluation import jobs
from promptseg.preparation import fetch
from promptseg.registry.entries import Registered
from promptseg.registry.references import code_hash
from promptseg.results import fingerprints, provenance
from promptseg.results.store import CellResult
from promptseg.runner import precision_guard
from promptseg.runner.options import Options
from promptseg.samples import Samples, target_of
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
    """A model on a data set, ready to be evaluated: everything that is known before the model is loaded."""

    model: ModelSpec
    dataset: DatasetSpec
    files: fetch.LocalModel
    samples: Samples
    order: tuple[str, ...]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


def identity(
    model: ModelSpec, dataset: DatasetSpec, files: fetch.LocalModel, samples: Samples, options: Options, device: str
) -> dict[str, Any]:
    """Return what every result of the group depends on, but for task and mode."""
    return {
        **fingerprints.of_run(),
        "model": {**fingerprints.of_model(model), "sha256": dict(files.sha256)},
        "dataset": {**fingerprints.of_dataset(dataset), "fingerprint": samples.fingerprint},
        "seed": options.seed,
        "device": device.split(":")[0],
        "dtype": options.dtype,
        **({"fast": sorted(options.fast)} if options.fast else {}),  # results of before there were any stay valid
    }


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
    registered: Registered[ModelSpec], dataset: DatasetSpec, files: fetch.LocalModel, data: fetch.LocalData
) -> dict[str, Any]:
    """Return what a result tells of its origin beyond what it depends on."""
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


def _about_model(model: ModelSpec, files: fetch.LocalModel) -> dict[str, Any]:
    return {
        "family": model.family,
        "load": model.load,
        "licence": model.licence,
        **_about_origin(model.origin, files.revision),
        "training_data": model.training_data,
        "url": model.url,
        "sees_target": model.sees_target,
    }


def _about_dataset(dataset: DatasetSpec, data: fetch.LocalData) -> dict[str, Any]:
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
    group: ModelOnDataset, part: PlannedCell, job: jobs.CellJob, fingerprint: str, about: Mapping[str, Any]
) -> CellResult:
    """Return what a finished job leaves to be stored: its rows, sorted, and where they come from."""
    examined = next((i for i, case_id in enumerate(group.order) if case_id not in job.cases), len(group.order))
    rows = [row for case_id in sorted(job.cases) for row in job.cases[case_id]]
    mode = {**fingerprints.of_mode(part.mode), "needs": part.mode.needs, "select": part.mode.select}
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


def n_cases(samples: Samples, task: TaskSpec) -> int:
    """Return how many images of a data set belong to a task, as far as their masks can be read. Reads all masks."""

    def belongs(case_id: str) -> bool:
        try:
            return bool(target_of(task, samples.labels(case_id)).any())
        except CaseError:
            return False

    return sum(belongs(case_id) for case_id in samples.ids())
