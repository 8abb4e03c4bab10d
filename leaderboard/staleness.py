"""Is a stored result still what an evaluation would give? Compares its provenance with what is installed.

Only specs and source are looked at: no model is loaded, no data set opened. So a changed file of a model or data set
shows where the spec pins it, or once its spec has another revision or version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from promptseg.errors import ResultsError
from promptseg.registry.entries import Registry
from promptseg.results import fingerprints
from promptseg.results.provenance import Facts, Provenance, SourceFacts
from promptseg.results.rows import CellResult
from promptseg.specs import DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec

_OF_MODEL = {
    "load": "model's loader",
    "code": "model's code",
    "options": "model's options",
    "accepts": "model's prompts",
    "sha256": "weights",
}
_OF_DATASET = {
    "load": "data set's loader",
    "code": "data set's code",
    "options": "data set's options",
    "labels": "data set's labels",
}
_OF_RUN = {"schema": "schema of results", "protocol": "protocol", "scoring": "scoring code"}
_OF_MODE = ("simulate", "code", "steps", "guide", "grid")


def changes(result: CellResult, registry: Registry) -> tuple[str, ...]:
    """Return what is no longer as it was for a result, in words; empty where an evaluation would give it again.

    Raises:
        PromptsegError: that cannot be told: a name is not registered here or is broken, or the result does not say
            what it was made with.
    """
    cell, made = result.cell, result.provenance
    model = registry.model(cell.model)
    dataset, task = registry.task(cell.task)
    mode = registry.mode(cell.mode)
    found = [*_of_run(mode, made), *_of_model(model, made), *_of_dataset(dataset, made), *_of_mode(task, mode, made)]
    if not found and result.fingerprint != _fingerprint(result, model, dataset, task, mode):
        found = ["prompt mode or task"]
    return tuple(found)


def _of_run(mode: PromptMode, made: Provenance) -> Iterator[str]:
    yield from _differing(fingerprints.of_run(mode.kind), made, _OF_RUN)


def _of_model(model: ModelSpec, made: Provenance) -> Iterator[str]:
    was = made.model
    files = was.sha256 or {}
    pinned = {w.role: w.sha256 if w.sha256 is not None else files.get(w.role) for w in model.weights}
    yield from _differing({**fingerprints.of_model(model), "sha256": pinned}, was, _OF_MODEL)
    if any(weight.sha256 is None for weight in model.weights):  # else the sums say all there is to say
        yield from _moved(model.origin, was, "model's revision")


def _of_dataset(dataset: DatasetSpec, made: Provenance) -> Iterator[str]:
    was = made.dataset
    now = {**fingerprints.of_dataset(dataset), "version": dataset.version}
    yield from _differing(now, was, {**_OF_DATASET, "version": "data set's version"})
    yield from _moved(dataset.origin, was, "data set's revision")


def _moved(origin: Origin | None, was: SourceFacts, name: str) -> Iterator[str]:
    """Yield the name if a result was made from another revision than the one that is pinned now."""
    if origin is not None and origin.revision is not None and was.repo == origin.repo:
        yield from _differing({"revision": origin.revision}, was, {"revision": name})


def _of_mode(task: TaskSpec, mode: PromptMode, made: Provenance) -> Iterator[str]:
    labels = made.task.labels
    if labels is not None and sorted(labels) != sorted(task.labels):
        yield "task's labels"
    if any(True for _ in _differing(fingerprints.of_mode(mode), made.mode, dict.fromkeys(_OF_MODE, ""))):
        yield "prompt mode"


def _differing(now: Mapping[str, Any], was: Facts, names: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of what a result recorded and what is another now; what it did not record is not compared."""
    installed = Provenance.from_json(now).json  # as a file gives it back
    for key, name in names.items():
        if was.json.get(key) is not None and was.json[key] != installed[key]:
            yield name


def _fingerprint(result: CellResult, model: ModelSpec, dataset: DatasetSpec, task: TaskSpec, mode: PromptMode) -> str:
    """Return the fingerprint that an evaluation with the same files, seed, device and dtype would have now."""
    made = result.provenance
    facts = {
        "weights": made.model.sha256,
        "data": made.dataset.fingerprint,
        "seed": made.seed,
        "sample seed": made.sample_seed,
        "device": made.device,
        "dtype": made.dtype,
    }
    missing = [name for name, value in facts.items() if value is None]
    if missing:
        raise ResultsError(f"The result of {result.cell.id} does not say its {' and '.join(missing)}.")
    identity = fingerprints.identity(
        model,
        dataset,
        kind=mode.kind,
        sha256=made.model.sha256 or {},
        data=str(made.dataset.fingerprint),
        seed=made.seed or 0,
        sample_seed=made.sample_seed or 0,
        device=str(made.device),
        dtype=str(made.dtype),
        fast=made.fast,
    )
    return fingerprints.fingerprint(identity, task, mode)
