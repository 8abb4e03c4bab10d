"""Describe what is registered: rows for ``promptseg list``, facts for ``promptseg show``; downloads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from promptseg.errors import PromptsegError, UnknownNameError
from promptseg.files import models as model_files
from promptseg.preparation import fetch
from promptseg.registry.entries import Registered, RegisteredTask, Registry
from promptseg.specs import DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec
from promptseg.text import human_size

_SHORT = 12  # hex digits of a commit in a table


class Listing(NamedTuple):
    """A table, and the names that cannot be used: (name, problem)."""

    header: list[str]
    rows: list[list[str]]
    broken: list[tuple[str, str]]


class Facts(NamedTuple):
    """Everything about one registered name."""

    kind: str
    name: str
    values: dict[str, str]


def source(origin: Origin | None, *, short: bool = True) -> str:
    """Return where files come from."""
    if origin is None:
        return "built in"
    if origin.host == "local":
        return f"folder {origin.repo}"
    if origin.host == "web":
        return origin.repo
    if origin.revision is None:
        return f"{origin.host} {origin.repo} (not pinned yet)"
    revision = origin.revision[:_SHORT] if short else origin.revision
    return f"{origin.host} {origin.repo}@{revision}"


def named(origin: Origin) -> str:
    """Return a repository with its whole commit, if one is known."""
    return f"{origin.repo}@{origin.revision}" if origin.revision else origin.repo


def place(spec: DatasetSpec) -> str:
    """Return where the files of a data set come from: the owners' page if no program can download them."""
    if spec.origin is None and spec.original is not None:
        return spec.original.page.partition("://")[2]
    return source(spec.origin)


def status(spec: DatasetSpec) -> str:
    """Return in a few words what it takes to use a data set."""
    if spec.origin is None:
        return "prepare from download" if spec.layouts else "embedded"
    if spec.origin.host == "local":
        return "own folder"
    return "pinned" if spec.origin.revision else "on the Hub, not pinned yet"


def masks(spec: DatasetSpec, task: TaskSpec | None = None) -> str:
    """Return the published number of images with an object: of a task, or of the whole data set."""
    counts = [one.n_masks for one in ([task] if task else spec.tasks)]
    if None not in counts:
        return str(sum(count for count in counts if count is not None))
    if spec.n_masks is None:
        return "unknown"
    return f"{spec.n_masks} in {len(spec.tasks)} tasks" if task else str(spec.n_masks)


def _here(is_here: Callable[[], bool]) -> str:
    try:
        return "yes" if is_here() else "no"
    except (PromptsegError, OSError):
        return "unknown"


def _model_size(spec: ModelSpec) -> int | None:
    """Return the size of all weights in bytes, from the spec or from the files on this machine; None if unknown."""
    if spec.origin is None:
        return 0
    stated = [weight.size for weight in spec.weights]
    if None not in stated:
        return sum(size for size in stated if size is not None)
    try:
        stored = model_files.find(spec)
        return sum((stored[0] / weight.path).stat().st_size for weight in spec.weights) if stored else None
    except (PromptsegError, OSError):
        return None


# --- tables -------------------------------------------------------------------------------------------------


def models(registry: Registry) -> Listing:
    """Return the models."""
    header = ["name", "family", "licence", "size", "source", "here", "provider"]
    return _listing(header, registry.models.values(), _model_row)


def _model_row(entry: Registered[ModelSpec], spec: ModelSpec) -> list[str]:
    size = _model_size(spec)
    return [
        spec.name,
        spec.family,
        spec.licence,
        "-" if size == 0 else human_size(size),
        source(spec.origin),
        _here(lambda: model_files.model_is_here(spec)),
        entry.provider,
    ]


def datasets(registry: Registry) -> Listing:
    """Return the data sets."""
    header = ["name", "modality", "tasks", "masks", "status", "source", "here", "licence", "provider"]
    return _listing(header, registry.datasets.values(), _dataset_row)


def _dataset_row(entry: Registered[DatasetSpec], spec: DatasetSpec) -> list[str]:
    return [
        spec.name,
        spec.modality,
        str(len(spec.tasks)),
        masks(spec),
        status(spec),
        place(spec),
        _here(lambda: fetch.dataset_is_here(spec)),
        spec.licence,
        entry.provider,
    ]


def tasks(registry: Registry) -> Listing:
    """Return the tasks."""
    rows, broken = [], []
    for entry in registry.tasks.values():
        try:
            dataset, task = entry.get()
        except PromptsegError as error:
            broken.append((entry.name, str(error)))
            continue
        here = _here(lambda dataset=dataset: fetch.dataset_is_here(dataset))  # type: ignore[misc]
        target = task.target or "every label above 0"
        files = [masks(dataset, task), status(dataset), place(dataset), here, dataset.licence]
        rows.append([task.name, dataset.name, dataset.modality, target, *files])
    header = ["name", "data set", "modality", "target", "masks", "status", "source", "here", "licence"]
    return Listing(header, rows, broken)


def modes(registry: Registry) -> Listing:
    """Return the prompt modes."""
    header = ["name", "needs", "clicks", "description", "provider"]
    return _listing(header, registry.modes.values(), _mode_row)


def _mode_row(entry: Registered[PromptMode], spec: PromptMode) -> list[str]:
    return [spec.name, spec.needs, str(spec.steps or "-"), spec.description, entry.provider]


def _listing(header: list[str], entries: Iterable[Registered[Any]], row: Callable[[Any, Any], list[str]]) -> Listing:
    registered = list(entries)
    return Listing(
        header,
        [row(entry, entry.spec) for entry in registered if entry.spec is not None],
        [(entry.name, entry.problem) for entry in registered if entry.spec is None],
    )


# --- one name -----------------------------------------------------------------------------------------------


def find(registry: Registry, name: str) -> list[Facts]:
    """Return the facts of every model, data set, task and prompt mode of that name.

    Raises:
        UnknownNameError: there is none; suggests similar names.
    """
    facts = []
    if name in registry.models:
        facts.append(_facts("model", registry.models[name], _model_facts))
    if name in registry.datasets:
        facts.append(_facts("data set", registry.datasets[name], _dataset_facts))
    if name in registry.tasks and registry.tasks[name].dataset.spec is not None:
        facts.append(_task_facts(registry.tasks[name]))
    if name in registry.modes:
        facts.append(_facts("prompt mode", registry.modes[name], _mode_facts))
    if not facts:
        raise UnknownNameError("name", name, {*registry.models, *registry.datasets, *registry.tasks, *registry.modes})
    return facts


def _facts(kind: str, entry: Registered[Any], describe: Callable[[Any], dict[str, str]]) -> Facts:
    values = {"problem": entry.problem} if entry.spec is None else describe(entry.spec)
    return Facts(kind, entry.name, {"provider": entry.provider, **values})


def _yes_no(value: bool) -> str:  # noqa: FBT001 - the whole point of the function
    return "yes" if value else "no"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in options.items()) or "none"


def _model_facts(spec: ModelSpec) -> dict[str, str]:
    trained_on = "unknown" if spec.training_data is None else ", ".join(spec.training_data) or "nothing"
    return {
        "family": spec.family,
        "licence": spec.licence,
        "accepts": ", ".join(sorted(spec.accepts)),
        "source": source(spec.origin, short=False),
        "gated": _yes_no(spec.origin is not None and spec.origin.gated),
        "here": _here(lambda: model_files.model_is_here(spec)),
        **_by_hand(spec),
        **{f"file {w.role}": _file(w.path, w.size, w.sha256) for w in spec.weights},
        "options": _options(spec.options),
        "trained on": trained_on,
        "url": spec.url or "unknown",
        "loaded by": spec.load,
        "embedded": _yes_no(spec.embedded),
        "needs a GPU": _yes_no(spec.gpu),
        "sees the target": _yes_no(spec.sees_target),
    }


def _by_hand(spec: ModelSpec) -> dict[str, str]:
    """Return what a person has to do for files that are not here and that promptseg does not download."""
    if spec.origin is None or spec.origin.host != "web" or model_files.model_is_here(spec):
        return {}
    return {"to get it": model_files.by_hand(spec)}


def _file(path: str, size: int | None, sha256: str | None) -> str:
    length = f", {human_size(size)}" if size is not None else ""
    return f"{path}{length}, sha256 {sha256 or 'not pinned yet'}"


def _dataset_facts(spec: DatasetSpec) -> dict[str, str]:
    return {
        "modality": spec.modality,
        "status": status(spec),
        "licence": spec.licence + (" (no commercial use)" if spec.non_commercial else ""),
        "source": source(spec.origin, short=False) if spec.origin else place(spec),
        **({"seen": spec.origin.seen} if spec.origin and spec.origin.seen else {}),
        "files": ", ".join(spec.files) or "all",
        "gated": _yes_no(spec.gated),
        "here": _here(lambda: fetch.dataset_is_here(spec)),
        "tasks": ", ".join(task.name for task in spec.tasks),
        "masks": masks(spec),
        **(_preparation(spec) if spec.layouts else {}),
        **_numbered("known fault", spec.faults),
        "options": _options(spec.options),
        "citation": spec.citation or "unknown",
        "url": spec.url or "unknown",
        "loaded by": spec.load,
        "embedded": _yes_no(spec.embedded),
    }


def _preparation(spec: DatasetSpec) -> dict[str, str]:
    """Return the facts of a data set that is prepared before it is used."""
    original = {"published at": spec.original.page, "how to get it": spec.original.how} if spec.original else {}
    archives = spec.original.archives if spec.original else ()
    return {
        "in the study": spec.study or "no",
        **original,
        "prepared by": _how_prepared(spec),
        **_numbered("archive", [f"{a.name}, sha256 {a.sha256 or 'not known'}" for a in archives]),
        **_numbered("layout", [f"{layout.expects} ({layout.name})" for layout in spec.layouts]),
        **_numbered("mirror", [f"{named(mirror)}: {mirror.seen}" for mirror in spec.mirrors]),
        "other label ids": ", ".join(map(str, spec.other_labels)) or "none",
        "version of the preparation": str(spec.version),
        "may be shared": _yes_no(spec.shareable),
    }


def _how_prepared(spec: DatasetSpec) -> str:
    command = f"promptseg data prepare {spec.name}"
    return f"{command}, or {command} --from PATH" if spec.origin else f"{command} --from PATH"


def _numbered(what: str, lines: Sequence[str]) -> dict[str, str]:
    return {f"{what} {number}": line for number, line in enumerate(lines, 1)}


def _task_facts(entry: RegisteredTask) -> Facts:
    if entry.problem or entry.task is None:
        return Facts("task", entry.name, {"problem": entry.problem})
    dataset, task = entry.get()
    values = {
        "data set": dataset.name,
        "modality": entry.modality,
        "status": status(dataset),
        "source": place(dataset),
        "licence": dataset.licence,
        "target": task.target or "not described",
        "label ids": ", ".join(map(str, task.labels)) or "every id above 0",
        "masks": masks(dataset, task),
        "provider": entry.dataset.provider,
    }
    return Facts("task", entry.name, values)


def _mode_facts(spec: PromptMode) -> dict[str, str]:
    return {
        "description": spec.description or "not described",
        "needs": spec.needs,
        "clicks": str(spec.steps) if spec.iterative else "static: the prompt does not see a prediction",
        "grid": f"{spec.grid} x {spec.grid} points" if spec.grid else "none",
        "guided by": f"the {spec.guide} mask" if spec.guide else "nothing",
        "made by": spec.simulate,
    }
