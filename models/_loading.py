"""What all adapters share: strict loading, checking options, packages and answers."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from promptseg.errors import ConfigError, ModelError, UnavailableError
from promptseg.models._file_kinds import Problem, refuse
from promptseg.segmenter import Runtime
from promptseg.specs import ModelSpec

_schemas: list[torch.library.Library] = []  # torch forgets a schema when its Library object goes
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_KEYS_SHOWN = 5
OTHER_ARCHITECTURE = "Check that the options of the model name the architecture of this checkpoint"


def import_torchvision() -> None:
    """Import torchvision, even if its compiled operators do not fit the installed torch.

    segment_anything and transformers import torchvision, but SAM needs none of its compiled operators. Beside a
    CPU-only torch, a torchvision wheel built against CUDA fails at import with "operator torchvision::nms does not
    exist", because it registers fake versions of operators whose library could not be loaded. Declaring the two
    schemas is enough for that import; nothing is declared where torchvision works.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision also warns about image codecs that are not used here
        try:
            import torchvision
        except RuntimeError as error:
            if "torchvision::" not in str(error) or _schemas:
                raise
            _declare_torchvision_operators()
            import torchvision  # noqa: F401


def _declare_torchvision_operators() -> None:
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(library)


def check_package(owner: str, package: str) -> None:
    """Raise `UnavailableError` unless a package is installed for which promptseg has an extra of the same name."""
    if find_spec(package) is None:
        raise UnavailableError(f"{owner} needs the package {package}: pip install 'pytest-promptseg[{package}]'")


def check_options(spec: ModelSpec, known: Collection[str]) -> None:
    """Raise `ConfigError` if the spec has an option that its adapter does not know."""
    unknown = sorted(set(spec.options) - set(known))
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"model {spec.name}: unknown option {', '.join(unknown)}. Known options: {names}.")


def option(spec: ModelSpec, key: str, choices: Sequence[str], default: str | None = None) -> str:
    """Return an option of the spec that must be one of ``choices``; without a default it must be given."""
    value = spec.options.get(key, default)
    if value not in choices:
        raise ConfigError(f"model {spec.name}: option {key} is {value!r}; it must be one of {', '.join(choices)}.")
    return str(value)


def file_of(spec: ModelSpec, files: Mapping[str, Path], role: str) -> Path:
    """Return the local path of the file with ``role``. Raises `ConfigError` if the spec names no such file."""
    if role not in files:
        roles = ", ".join(sorted(files)) or "none"
        raise ConfigError(f"model {spec.name}: its adapter needs a file with role {role!r}; found roles: {roles}.")
    return files[role]


class Misfit(dict[str, list[str]]):
    """What keeps tensors from being the weights of a network: a kind of problem to the names it concerns."""

    def __str__(self) -> str:
        """Return the numbers and the first few names, as in ``1 missing: bias; 2 unexpected: a, b``."""
        return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in self.items())


def misfit(module: torch.nn.Module, state: Mapping[str, Tensor]) -> Misfit:
    """Return what keeps ``state`` from being all weights of a network and nothing else; values are not looked at."""
    expected = module.state_dict()
    common = expected.keys() & state.keys()
    kinds = {
        "missing": [*expected.keys() - state.keys()],
        "unexpected": [*state.keys() - expected.keys()],
        "other shape": [
            f"{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}"
            for k in common
            if state[k].shape != expected[k].shape
        ],
        "not stored as plain numbers (quantised?)": [k for k in common if not _is_plain(state[k], expected[k])],
    }
    return Misfit({kind: names for kind, names in kinds.items() if names})


def _is_plain(tensor: Tensor, expected: Tensor) -> bool:
    """Whether a tensor holds numbers of the expected kind; floats of 8 bits need scales that are stored elsewhere."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    wide = tensor.itemsize > 1 or not tensor.is_floating_point()
    return wide and tensor.is_floating_point() == expected.is_floating_point() and not tensor.is_complex()


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], spec: ModelSpec, path: Path) -> None:
    """Put ``state`` into ``module``, all of it and nothing else, floating point tensors as float32.

    Copies of the tensors become the parameters themselves, so that the module may have been built on torch's meta
    device, without memory for weights that are thrown away. Copies, because torch aligns what it allocates: memory of
    NumPy or of a mapped file begins anywhere, matrix kernels round by that, and answers would differ from one process
    to the next.

    Raises:
        IntegrityError: missing or unexpected names, other shapes, quantised numbers, NaN or infinity; names the model,
            the file and the first few of each.
    """
    problems = misfit(module, state)
    if problems:
        raise refuse(spec, path, Problem(f"does not fit the architecture; {problems}", OTHER_ARCHITECTURE))
    weights = {name: _copied(tensor) for name, tensor in state.items()}
    unusable = [*_not_finite(module, weights)]
    if unusable:
        what = f"holds NaN or infinity in {len(unusable)} of {len(weights)} tensors: {_some(unusable)}"
        raise refuse(spec, path, Problem(what, "Save an earlier state of its training: this one has diverged"))
    module.load_state_dict(weights, strict=True, assign=True)


def _not_finite(module: torch.nn.Module, state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the names of weights with NaN or infinity; in a buffer, infinity may be meant, as in a mask."""
    parameters = {name for name, _ in module.named_parameters()}
    for name, tensor in state.items():
        bad = tensor.isfinite().logical_not() if name in parameters else tensor.isnan()
        if bool(bad.any()):
            yield name


def _copied(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules whose parameters take no memory, for `load_strict` to fill.

    Unlike ``with torch.device("meta")`` this leaves buffers alone: those that a module computes, and that no checkpoint
    holds, must have their values.
    """

    def without_memory(module: torch.nn.Module, name: str, parameter: Tensor | None) -> Any:  # noqa: ARG001
        return None if parameter is None else torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    handle = register_module_parameter_registration_hook(without_memory)
    try:
        yield
    finally:
        handle.remove()


def dtype_of(runtime: Runtime) -> torch.dtype:
    """Return the dtype that a run asks for. Raises `ConfigError` if it is none for a network."""
    if runtime.dtype not in _DTYPES:
        raise ConfigError(f"dtype {runtime.dtype!r} is not known; use one of {', '.join(_DTYPES)}.")
    return _DTYPES[runtime.dtype]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Let a network compute in a dtype below float32; with float32 nothing changes."""
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype if reduced else None, enabled=reduced)


def check_finite(spec: ModelSpec, device: torch.device, dtype: torch.dtype, *answers: Tensor) -> None:
    """Raise `ModelError` if what a network answered holds NaN or infinity."""
    if not bool(torch.stack([torch.isfinite(answer).all() for answer in answers]).all()):  # one wait for the device
        raise ModelError(
            f"model {spec.name!r} returned NaN or infinite logits ({str(dtype).removeprefix('torch.')} on {device}). "
            "Run it with --seg-dtype float32; if they stay, its weights or input are damaged."
        )


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_KEYS_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
