"""Read promptseg.toml: data sets and models registered by a few lines instead of a plugin.

[datasets.NAME]                       [models.NAME]
folder = "path"                       adapter = "sam" | "ritm" | ... (see ADAPTERS) | "package.module:function"
modality = "ultrasound"               folder = "path"        # or: repo = "org/name", revision = "40-hex commit"
labels = {tumor = 1}                  files = {checkpoint = "file"}; sha256 = {checkpoint = "64 hex"}

An adapter of your own may do without files; then neither folder nor repo is given.
A ``[models.NAME]`` table without ``adapter`` says in which folder the files of a registered model are; it applies to
all models with the same files.
Paths are relative to the file. Labels may be lists of ids; without ``labels`` every id above 0 is the object.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError, RegistryError, UnknownNameError
from promptseg.registry.modalities import modality
from promptseg.specs import DatasetSpec, ModelSpec, Origin, TaskSpec, WeightFile

FILE_NAME = "promptseg.toml"
ADAPTERS = {
    "sam": "promptseg.models.sam.sam:load",
    "sam_hf": "promptseg.models.sam.sam_hf:load",
    "sam2_hf": "promptseg.models.sam.sam2_hf:load",
    "mobile_sam": "promptseg.models.sam.mobile_sam:load",
    "sam_onnx": "promptseg.models.sam.sam_onnx:load",
    "ritm": "promptseg.models.click.ritm:load",
    "simpleclick": "promptseg.models.click.simpleclick:load",
    "focalclick": "promptseg.models.click.focalclick:load",
}
# Other adapters accept points and boxes.
_ACCEPTS = dict.fromkeys(("ritm", "simpleclick", "focalclick"), ("points", "feedback"))
_WORDS = {str: "a string", dict: "a table", list: "an array", bool: "true or false"}
DATASET_KEYS = {
    "folder": str,
    "modality": str,
    "labels": dict,
    "licence": str,
    "citation": str,
    "url": str,
    "non_commercial": bool,
}
MODEL_KEYS = {
    "adapter": str,
    "folder": str,
    "repo": str,
    "revision": str,
    "files": dict,
    "sha256": dict,
    "accepts": list,
    "options": dict,
    "family": str,
    "licence": str,
    "training_data": list,
    "url": str,
    "gpu": bool,
}


@dataclass(frozen=True)
class Configured:
    """What promptseg.toml registers, and the folders it names for models registered elsewhere."""

    models: tuple[ModelSpec, ...] = ()
    datasets: tuple[DatasetSpec, ...] = ()
    folders: Mapping[str, Origin] = field(default_factory=dict)

    def shared(self, specs: Sequence[ModelSpec]) -> Configured:
        """Return a copy in which the folder of one model applies to all of ``specs`` that have the same files.

        So the files of NAME_feedback are found with those of NAME. A model with a folder of its own keeps it.
        """
        of_files = {(s.origin, s.weights): self.folders[s.name] for s in specs if s.weights and s.name in self.folders}
        folders = {s.name: of_files[s.origin, s.weights] for s in specs if (s.origin, s.weights) in of_files}
        return dataclasses.replace(self, folders={**folders, **self.folders})

    def located(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with its files in the folder that promptseg.toml gives for it, if it gives one.

        A file is looked for there under its path in the package or repository, then under its bare name.
        """
        origin = self.folders.get(spec.name)
        if origin is None:
            return spec
        folder = Path(origin.repo)
        weights = tuple(
            w if (folder / w.path).exists() else dataclasses.replace(w, path=Path(w.path).name) for w in spec.weights
        )
        return dataclasses.replace(spec, origin=origin, weights=weights)


def read(path: Path) -> Configured:
    """Return what ``path`` registers.

    Raises:
        ConfigError: not TOML, an unknown key (with suggestions), a wrong type or an unusable value; the
            message names the file and the table.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:  # TOML's own errors are ValueErrors
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    _check_keys(f"{path}", tables, {"datasets": dict, "models": dict})
    base = path.parent
    models, folders = [], {}
    for name, table in tables.get("models", {}).items():
        where = f"{path} [models.{name}]"
        _check_keys(where, table, MODEL_KEYS)
        if "adapter" in table:
            models.append(_model(where, name, table, base))
        else:
            folders[name] = _folder_alone(where, table, base)
    datasets = [
        _dataset(f"{path} [datasets.{name}]", name, table, base) for name, table in tables.get("datasets", {}).items()
    ]
    return Configured(tuple(models), tuple(datasets), folders)


def _check_keys(where: str, table: object, known: Mapping[str, type]) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, not {table!r}.")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{where}: {UnknownNameError('key', key, known)}")
        if not isinstance(value, known[key]):
            raise ConfigError(f"{where}: {key} must be {_WORDS[known[key]]}, not {value!r}.")


def _check_strings(where: str, key: str, values: Iterable[object]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} must hold strings, not {value!r}.")


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise ConfigError(f"{where}: {error}") from error


def _folder(where: str, table: Mapping[str, Any], base: Path) -> Origin:
    if "folder" not in table:
        raise ConfigError(f"{where} needs a folder.")
    folder = (base / Path(table["folder"]).expanduser()).resolve()
    return Origin(host="local", repo=str(folder), named_in=where)


def _folder_alone(where: str, table: Mapping[str, Any], base: Path) -> Origin:
    """Return the folder of a table without adapter: of a model registered elsewhere, only the folder can be set."""
    if others := sorted(set(table) - {"folder"}):
        raise ConfigError(f"{where} has no adapter; without one it may give a folder, but not {', '.join(others)}.")
    return _folder(where, table, base)


def _dataset(where: str, name: str, table: Mapping[str, Any], base: Path) -> DatasetSpec:
    _check_keys(where, table, DATASET_KEYS)
    if "modality" not in table:
        raise ConfigError(f'{where} needs a modality, for example modality = "ultrasound".')
    with _blaming(where):
        return DatasetSpec(
            name=name,
            modality=modality(table["modality"]),
            load="promptseg.datasets_registry.folder:load",
            tasks=_tasks(where, name, table.get("labels", {})),
            licence=table.get("licence", "unknown"),
            origin=_folder(where, table, base),
            citation=table.get("citation", ""),
            url=table.get("url", ""),
            non_commercial=table.get("non_commercial", False),
        )


def _tasks(where: str, name: str, labels: Mapping[str, Any]) -> tuple[TaskSpec, ...]:
    """Return the tasks of a data set: NAME for a single label, NAME_LABEL for each of several."""
    if not labels:
        return (TaskSpec(name=name),)
    single = len(labels) == 1
    return tuple(
        TaskSpec(name=name if single else f"{name}_{label}", labels=_ids(where, label, ids), target=label)
        for label, ids in labels.items()
    )


def _ids(where: str, label: str, ids: object) -> tuple[int, ...]:
    listed = ids if isinstance(ids, list) else [ids]
    if not listed or not all(isinstance(i, int) and not isinstance(i, bool) for i in listed):
        raise ConfigError(f"{where}: label {label} must be an id or a list of ids, not {ids!r}.")
    return tuple(listed)


def _model(where: str, name: str, table: Mapping[str, Any], base: Path) -> ModelSpec:
    files, hashes = table.get("files", {}), table.get("sha256", {})
    located = "folder" in table or "repo" in table
    if located and not files:
        raise ConfigError(f'{where} needs files, for example files = {{checkpoint = "model.pth"}}.')
    _check_strings(where, "files", files.values())
    _check_strings(where, "sha256", hashes.values())
    for key in ("accepts", "training_data"):
        _check_strings(where, key, table.get(key, ()))
    if unknown := set(hashes) - set(files):
        raise ConfigError(f"{where}: sha256 names {sorted(unknown)}, files has {sorted(files)}.")
    with _blaming(where):
        return ModelSpec(
            name=name,
            family=table.get("family", table["adapter"]),
            load=_adapter(table["adapter"]),
            licence=table.get("licence", "unknown"),
            accepts=frozenset(table.get("accepts", _ACCEPTS.get(table["adapter"], ("points", "boxes")))),
            origin=_origin(where, table, base) if located or files else None,
            weights=tuple(WeightFile(role=r, path=p, sha256=hashes.get(r)) for r, p in files.items()),
            options=table.get("options", {}),
            training_data=tuple(table["training_data"]) if "training_data" in table else None,
            url=table.get("url", ""),
            gpu=table.get("gpu", False),
        )


def _adapter(name: str) -> str:
    if ":" in name:
        return name
    if name not in ADAPTERS:
        raise UnknownNameError("adapter", name, [*ADAPTERS, "package.module:function"])
    return ADAPTERS[name]


def _origin(where: str, table: Mapping[str, Any], base: Path) -> Origin:
    if ("folder" in table) == ("repo" in table):
        raise ConfigError(f"{where} needs a folder or a repo (Hub), one of the two.")
    if "revision" in table and "repo" not in table:
        raise ConfigError(f"{where}: a revision belongs to a repo; a folder has none.")
    if "repo" in table:
        return Origin(host="hub", repo=table["repo"], revision=table.get("revision"))
    return _folder(where, table, base)
