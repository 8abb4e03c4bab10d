"""Find the spec of a name, among entry points and promptseg.toml.

A plugin that does not import, breaks the rules of a spec or claims a taken name is never dropped silently: it stays
listed with its problem, its cells fail by name, and everything else runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from promptseg.errors import BrokenPluginError, ConfigError, UnknownNameError
from promptseg.registry import config
from promptseg.specs import Cell, DatasetSpec, ModelSpec, PromptMode, TaskSpec, check_name

Spec = TypeVar("Spec", ModelSpec, DatasetSpec, PromptMode)

GROUPS = {"model": "promptseg.models", "data set": "promptseg.datasets", "prompt mode": "promptseg.prompt_modes"}


@dataclass(frozen=True)
class Registered(Generic[Spec]):
    """A registered name: its spec, or the problem that makes it unusable."""

    name: str
    provider: str
    spec: Spec | None = None
    problem: str = ""

    def get(self) -> Spec:
        """Return the spec. Raises `BrokenPluginError` with the problem."""
        if self.spec is None:
            raise BrokenPluginError(self.problem)
        return self.spec


@dataclass(frozen=True)
class RegisteredTask:
    """A task and its data set; a broken data set is listed as one task of the same name."""

    name: str
    dataset: Registered[DatasetSpec]
    task: TaskSpec | None = None
    problem: str = ""

    def get(self) -> tuple[DatasetSpec, TaskSpec]:
        """Return data set and task. Raises `BrokenPluginError` with the problem."""
        if self.task is None or self.problem:
            raise BrokenPluginError(self.problem or self.dataset.problem)
        return self.dataset.get(), self.task

    @property
    def modality(self) -> str:
        """The data set's modality, ``unknown`` for a broken one."""
        return self.dataset.spec.modality if self.dataset.spec else "unknown"


class Registry:
    """All models, data sets, tasks and prompt modes that are installed or configured."""

    def __init__(
        self,
        models: Iterable[Registered[ModelSpec]],
        datasets: Iterable[Registered[DatasetSpec]],
        modes: Iterable[Registered[PromptMode]],
    ) -> None:
        self.models = {m.name: m for m in sorted(models, key=lambda r: r.name)}
        self.datasets = {d.name: d for d in sorted(datasets, key=lambda r: r.name)}
        self.modes = {m.name: m for m in sorted(modes, key=lambda r: r.name)}
        self.tasks = _tasks(self.datasets.values())

    def model(self, name: str) -> ModelSpec:
        """Return a model's spec. Raises `UnknownNameError` or `BrokenPluginError`."""
        return _lookup("model", name, self.models).get()

    def dataset(self, name: str) -> DatasetSpec:
        """Return a data set's spec. Raises `UnknownNameError` or `BrokenPluginError`."""
        return _lookup("data set", name, self.datasets).get()

    def mode(self, name: str) -> PromptMode:
        """Return a prompt mode. Raises `UnknownNameError` or `BrokenPluginError`."""
        return _lookup("prompt mode", name, self.modes).get()

    def task(self, name: str) -> tuple[DatasetSpec, TaskSpec]:
        """Return a task and its data set. Raises `UnknownNameError` or `BrokenPluginError`."""
        if name not in self.tasks:
            raise UnknownNameError("task", name, self.tasks)
        return self.tasks[name].get()

    def cells(
        self,
        models: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        modes: Sequence[str] | None = None,
    ) -> list[Cell]:
        """Return the product of the named (None: all) models, tasks and modes, sorted.

        Raises `UnknownNameError` for a name that is not registered.
        """
        chosen_models = _chosen("model", models, self.models)
        chosen_tasks = _chosen("task", tasks, self.tasks)
        chosen_modes = _chosen("prompt mode", modes, self.modes)
        return [Cell(m, t, p) for m in chosen_models for t in chosen_tasks for p in chosen_modes]

    def is_embedded(self, cell: Cell) -> bool:
        """Whether a plain ``pytest`` runs the cell: model and data set need no download, and the mode is quick.

        A broken plugin counts as embedded, so that its cells fail instead of being left out.
        """
        model, dataset = self.models[cell.model].spec, self.tasks[cell.task].dataset.spec
        mode = self.modes[cell.mode].spec
        here = (model is None or model.embedded) and (dataset is None or dataset.embedded)
        return here and (mode is None or mode.when == "always")

    def problems(self) -> list[str]:
        """Return one line for each name that cannot be used."""
        broken = [r for group in (self.models, self.datasets, self.modes) for r in group.values() if not r.spec]
        return [r.problem for r in broken] + [t.problem for t in self.tasks.values() if t.problem]


def _lookup(kind: str, name: str, known: Mapping[str, Registered[Spec]]) -> Registered[Spec]:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def _chosen(kind: str, names: Sequence[str] | None, known: Mapping[str, object]) -> list[str]:
    if names is None:
        return list(known)
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    return sorted(set(names))


def _tasks(datasets: Iterable[Registered[DatasetSpec]]) -> dict[str, RegisteredTask]:
    tasks: dict[str, RegisteredTask] = {}
    for dataset in datasets:
        if dataset.spec is None:
            tasks.setdefault(dataset.name, RegisteredTask(dataset.name, dataset))
            continue
        for task in dataset.spec.tasks:
            if task.name in tasks:
                other = tasks[task.name].dataset
                problem = (
                    f"Two data sets have a task named {task.name!r}: {other.name} ({other.provider}) and "
                    f"{dataset.name} ({dataset.provider}). Rename one, or uninstall one of the two."
                )
                tasks[task.name] = RegisteredTask(task.name, dataset, task, problem)
            else:
                tasks[task.name] = RegisteredTask(task.name, dataset, task)
    return dict(sorted(tasks.items()))


def from_entry_points(kind: str, spec_type: type[Spec], configured: Sequence[Spec]) -> list[Registered[Spec]]:
    """Return everything registered for ``kind`` by installed packages and by promptseg.toml."""
    claims: dict[str, list[Registered[Spec]]] = defaultdict(list)
    provider = cache(_provider)  # reading what a package says of itself takes longer than importing a spec
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda e: (e.name, e.value)):
        registered = _load(kind, entry, provider(entry.dist), spec_type)
        claims[registered.name].append(registered)
    for spec in configured:
        claims[spec.name].append(Registered(spec.name, "promptseg.toml", spec))
    return [_only(kind, name, claimed) for name, claimed in claims.items()]


def _usable_as_id(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", name.lower())


def _provider(package: Distribution | None) -> str:
    return f"{package.name} {package.version}" if package else "unknown distribution"


def _load(kind: str, entry: EntryPoint, provider: str, spec_type: type[Spec]) -> Registered[Spec]:
    try:
        check_name(kind, entry.name)
        spec = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything at its import
        problem = f"{kind} {entry.name!r} of {provider} ({entry.value}) cannot be imported: {error!r}"
        return Registered(_usable_as_id(entry.name), provider, problem=problem)
    if not isinstance(spec, spec_type):
        problem = f"{entry.value} of {provider} is a {type(spec).__name__}, not a {spec_type.__name__}."
        return Registered(entry.name, provider, problem=problem)
    if spec.name != entry.name:
        problem = f"{provider} registers the {kind} {spec.name!r} under the entry point {entry.name!r}: use one name."
        return Registered(entry.name, provider, problem=problem)
    return Registered(entry.name, provider, spec)


def _only(kind: str, name: str, claimed: list[Registered[Spec]]) -> Registered[Spec]:
    if len(claimed) == 1:
        return claimed[0]
    providers = " and ".join(sorted(r.provider for r in claimed))
    problem = f"The {kind} name {name!r} is claimed by {providers}. Rename one, or uninstall one of the two."
    return Registered(name, providers, problem=problem)


def build(config_file: Path | None = None) -> Registry:
    """Return the registry of all installed plugins and of ``promptseg.toml``, if there is one.

    Raises `ConfigError` for a configuration file that cannot be used.
    """
    configured = config.read(config_file) if config_file else config.Configured()
    models = from_entry_points("model", ModelSpec, configured.models)
    for name in configured.folders:
        if name not in {m.name for m in models}:
            problem = UnknownNameError("model", name, (m.name for m in models))
            raise ConfigError(f"{config_file} [models.{name}] has no adapter, and {problem}")
    configured = configured.shared([m.spec for m in models if m.spec])
    return Registry(
        models=[dataclasses.replace(m, spec=configured.located(m.spec)) if m.spec else m for m in models],
        datasets=from_entry_points("data set", DatasetSpec, configured.datasets),
        modes=from_entry_points("prompt mode", PromptMode, ()),
    )
