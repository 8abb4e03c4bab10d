"""Is a stored result still what an evaluation would give? Compares what it says of itself with what is installed.

Only specs and source are looked at: no model is loaded, no data set opened. So a changed file of a model or data set
shows where the spec pins it, or once its spec has another revision or version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from promptseg.errors import ResultsError
from promptseg.registry.entries import Registry
from promptseg.results import fingerprints
from promptseg.results.store import CellResult
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
    cell, about = result.cell, result.provenance
    model = registry.model(cell.model)
    dataset, task = registry.task(cell.task)
    mode = registry.mode(cell.mode)
    found = [*_of_run(about), *_of_model(model, about), *_of_dataset(dataset, about), *_of_mode(task, mode, about)]
    if not found and result.fingerprint != _fingerprint(result, model, dataset, task, mode):
        found = ["prompt mode or task"]
    return tuple(found)


def _of_run(about: Mapping[str, Any]) -> Iterator[str]:
    yield from _differing(fingerprints.of_run(), about, _OF_RUN)


def _of_model(model: ModelSpec, about: Mapping[str, Any]) -> Iterator[str]:
    was = _part(about, "model")
    files = _part(was, "sha256")
    pinned = {w.role: w.sha256 if w.sha256 is not None else files.get(w.role) for w in model.weights}
    yield from _differing({**fingerprints.of_model(model), "sha256": pinned}, was, _OF_MODEL)
    if any(weight.sha256 is None for weight in model.weights):  # else the sums say all there is to say
        yield from _moved(model.origin, was, "model's revision")


def _of_dataset(dataset: DatasetSpec, about: Mapping[str, Any]) -> Iterator[str]:
    was = _part(about, "dataset")
    told = {**fingerprints.of_dataset(dataset), "version": dataset.version}
    yield from _differing(told, was, {**_OF_DATASET, "version": "data set's version"})
    yield from _moved(dataset.origin, was, "data set's revision")


def _moved(origin: Origin | None, was: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the name if a result was made from another revision than the one that is pinned now."""
    if origin is not None and origin.revision is not None and was.get("repo") == origin.repo:
        yield from _differing({"revision": origin.revision}, was, {"revision": name})


def _of_mode(task: TaskSpec, mode: PromptMode, about: Mapping[str, Any]) -> Iterator[str]:
    labels = _part(about, "task").get("labels")
    if isinstance(labels, list | tuple) and sorted(labels) != sorted(task.labels):
        yield "task's labels"
    now = fingerprints.of_mode(mode)
    if any(True for _ in _differing(now, _part(about, "mode"), dict.fromkeys(_OF_MODE, ""))):
        yield "prompt mode"


def _differing(now: Mapping[str, Any], was: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of what a result tells and what is another now; what it does not tell is not compared."""
    for key, name in names.items():
        if key in was and was[key] is not None and _plain(was[key]) != _plain(now[key]):
            yield name


def _plain(value: Any) -> Any:
    """Return a value as a file gives it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _fingerprint(result: CellResult, model: ModelSpec, dataset: DatasetSpec, task: TaskSpec, mode: PromptMode) -> str:
    """Return the fingerprint that an evaluation with the same files, seed, device and dtype would have now."""
    about = result.provenance
    files = {"weights": _part(about, "model").get("sha256"), "data": _part(about, "dataset").get("fingerprint")}
    conditions = {key: about.get(key) for key in ("seed", "device", "dtype")}
    missing = [name for name, value in {**files, **conditions}.items() if value is None]
    if missing:
        raise ResultsError(f"The result of {result.cell.id} does not say its {' and '.join(missing)}.")
    identity = {
        **fingerprints.of_run(),
        "model": {**fingerprints.of_model(model), "sha256": files["weights"]},
        "dataset": {**fingerprints.of_dataset(dataset), "fingerprint": files["data"]},
        **conditions,
        **({"fast": about["fast"]} if about.get("fast") else {}),
    }
    return fingerprints.fingerprint(identity, task, mode)


def _part(about: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = about.get(key)
    return found if isinstance(found, Mapping) else {}
