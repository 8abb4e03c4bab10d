"""Read checkpoints of RITM, SimpleClick and ClickSEG as their authors publish them, without running their pickles.

Such a file is a pickle of ``{"state_dict": ..., "config": ...}``; the config names the class to build and its
arguments, one of which may be an object of the authors' code (a loss). torch's weights-only reader builds the tensors
and plain containers; every other global becomes an inert placeholder and is never imported. The result is kept in the
cache as safetensors and JSON under the sha256 of the file, and later loads read that alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptseg.errors import ConfigError, IntegrityError
from promptseg.files.atomic import read_json
from promptseg.files.cache import cache_dir, check_sha256, disk_space, scratch, sha256_of
from promptseg.models._file_kinds import Problem, check_weights, refuse
from promptseg.models._pickles import look_into
from promptseg.models._weights import damaged, problem_of_pickle, read_torch
from promptseg.specs import ModelSpec

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a file of the authors holds.

    Attributes:
        state: parameter names, as in the file, to tensors; floating point ones are float32.
        class_name: the class that its authors build from it, for example ``isegm.model.is_hrnet_model.HRNetModel``.
        params: the arguments of that class, plain JSON values; ``{"object": "module.name"}`` for anything else.
        path: the file.
    """

    state: dict[str, Tensor]
    class_name: str
    params: dict[str, Any]
    path: Path


class _Inert:
    """Stands for a class or function that a pickle names; does nothing, whatever the pickle does with it."""

    names: str

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(spec: ModelSpec, path: Path, class_name: str) -> Checkpoint:
    """Return what a checkpoint holds, converting it on the first call.

    Args:
        spec: the model, for the messages.
        path: a file of the authors' code.
        class_name: last part of the class that it must be of, for example ``HRNetModel``.

    Raises:
        IntegrityError: unreadable, truncated, a pickle that names code, not such a checkpoint, or of another class.
        UnavailableError: the conversion does not fit on the disk or the cache cannot be written.
    """
    checkpoint = _converted(spec, path)
    if checkpoint.class_name.rpartition(".")[2] != class_name:
        what = f"holds a {checkpoint.class_name}, this model is a {class_name}"
        raise refuse(spec, path, Problem(what, "Use the adapter, or the model, of that class"))
    return checkpoint


def check_architecture(checkpoint: Checkpoint, spec: ModelSpec, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise unless a checkpoint is of the ``architecture`` that a spec names; a spec need not name one.

    Args:
        checkpoint: what was read.
        spec: of the model.
        known: name of each architecture to those arguments of its class that make it.

    Raises:
        ConfigError: no such architecture.
        IntegrityError: the checkpoint is of another one.
    """
    name = spec.options.get("architecture")
    if name is None:
        return
    if name not in known:
        raise ConfigError(
            f"model {spec.name}: option architecture is {name!r}; it must be one of {', '.join(sorted(known))}."
        )
    held = _same_keys(known[name], checkpoint.params)
    if held != known[name]:
        raise IntegrityError(
            f"{spec.name}: {checkpoint.path} has {held}, {name} has {dict(known[name])}. "
            f"Download the file that `promptseg show {spec.name}` names."
        )


def _same_keys(pattern: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``values`` that has the keys of ``pattern``, level by level."""
    values_of = {}
    for key, inner in pattern.items():
        value = values.get(key)
        deeper = isinstance(inner, Mapping) and isinstance(value, Mapping)
        values_of[key] = _same_keys(inner, value) if deeper else value  # type: ignore[arg-type]
    return values_of


def _converted(spec: ModelSpec, path: Path) -> Checkpoint:
    folder = cache_dir() / "converted" / sha256_of(path)
    config = read_json(folder / _CONFIG)
    if not config or not (folder / _WEIGHTS).is_file():
        _convert(spec, path, folder)
        config = read_json(folder / _CONFIG)
    check_sha256(folder / _WEIGHTS, config["sha256"], owner=spec.name, remedy=f"Remove {folder}; it is made again.")
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / _WEIGHTS).items()}
    return Checkpoint(state, config["class"], config["params"], path)


def _convert(spec: ModelSpec, path: Path, folder: Path) -> None:
    """Write the safetensors and the JSON of a file; the folder appears whole or not at all."""
    state, config = _parts(spec, _unpickled(spec, path), path)
    with disk_space(spec.name), scratch() as temporary:
        made = temporary / "made"
        made.mkdir()
        save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, made / _WEIGHTS)
        config["sha256"] = sha256_of(made / _WEIGHTS)
        (made / _CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _into_place(made, folder)


def _into_place(made: Path, folder: Path) -> None:
    """Move a conversion to its place, unless another process was faster: then both are the same."""
    try:
        made.rename(folder)
    except OSError:
        if not (folder / _CONFIG).is_file():
            raise


def _parts(spec: ModelSpec, raw: object, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the plain config, or say what was found instead."""
    state, config = (raw.get(key) for key in ("state_dict", "config")) if isinstance(raw, Mapping) else (None, None)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _not_theirs(spec, path, "no state_dict of tensors")
    if not isinstance(config, Mapping) or not isinstance(config.get("class"), str):
        raise _not_theirs(spec, path, "no config that names its class")
    params = config.get("params")
    if not isinstance(params, Mapping) or not all(isinstance(p, Mapping) and "value" in p for p in params.values()):
        raise _not_theirs(spec, path, "a config without params")
    expanded = [str(name) for name, tensor in state.items() if tensor.nbytes > tensor.untyped_storage().nbytes()]
    if expanded:
        raise _not_theirs(spec, path, f"tensors that claim more than is stored ({', '.join(expanded[:3])})")
    plain = {str(name): _plain(param["value"]) for name, param in params.items()}
    return {str(k): v for k, v in state.items()}, {"class": config["class"], "params": plain}


def _not_theirs(spec: ModelSpec, path: Path, held: str) -> IntegrityError:
    what = f"is not a checkpoint as its authors publish it: it holds {held}"
    remedy = 'Name a file as the training of their code saves it: {"state_dict": ..., "config": ...}'
    return refuse(spec, path, Problem(what, remedy))


def _plain(value: object) -> Any:
    """Return a value of the config as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = value if isinstance(value, type) else type(value)
    return {"object": kind.names if issubclass(kind, _Inert) else f"{kind.__module__}.{kind.__qualname__}"}


# ---------------------------------------------------------------------------------------------- the pickle


def _unpickled(spec: ModelSpec, path: Path) -> object:
    """Read a file of torch.save; nothing that it names is imported or called."""
    check_weights(spec, path)
    problem = problem_of_pickle(path, foreign=True)
    if problem:
        raise refuse(spec, path, problem)
    try:
        with torch.serialization.safe_globals(_placeholders(look_into(path).names)):
            return read_torch(path)
    except Exception as error:  # noqa: BLE001 - torch raises whatever a damaged file leads it to
        raise refuse(spec, path, damaged(error)) from None


def _placeholders(names: Iterable[tuple[str, str]]) -> list[Any]:
    """Return what torch's reader shall put where it meets a name; names that it knows itself keep their meaning."""
    full = [".".join(name) for name in names]
    return [(type("_Inert", (_Inert,), {"names": name}), name) for name in full]
