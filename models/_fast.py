"""Fast paths: ways to run a network faster that may change its numbers by rounding, where available.

Each is switched on by name (``--seg-fast``, `promptseg.runner.options.FAST_PATHS`); none is on by default.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from promptseg.errors import ConfigError
from promptseg.segmenter import Runtime
from promptseg.specs import ModelSpec

ENCODER_PATHS = ("channels_last", "compile", "cuda_graphs", "sdpa", "tf32")
"""What an encoder of torch modules can have; ``sdpa`` only if its attention has such a form."""

_TF32_CAPABILITY = (8, 0)  # NVIDIA's Ampere


def check_fast(
    spec: ModelSpec, runtime: Runtime, known: Collection[str], absent: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Raise `ConfigError` if the run asks for a fast path that this model or this device does not have.

    Args:
        spec: the model.
        runtime: of the run.
        known: the paths that the adapter can apply.
        absent: those of them that it cannot have here, and why; beside what the device says.
    """
    obstacles = {name: absent.get(name) or _obstacle(name, runtime.device) for name in sorted(known)}
    for name in sorted(runtime.fast):
        if obstacle := obstacles.get(name, "this model has no use for it"):
            here = ", ".join(name for name, found in obstacles.items() if not found) or "none"
            raise ConfigError(
                f"model {spec.name}: fast path {name} is not available: {obstacle}. "
                f"Available to --seg-fast for this model on {runtime.device}: {here}."
            )


def _obstacle(name: str, device: str) -> str:
    """Return why a device cannot have a path; empty if it can."""
    on_cuda = device.startswith("cuda")
    if name == "cuda_graphs" and not on_cuda:
        return "it needs an NVIDIA GPU"
    if name == "tf32" and not (on_cuda and torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY):
        return "it needs an NVIDIA GPU of compute capability 8.0 or newer"
    if name == "compile":
        return _no_compiler(on_cuda=on_cuda)
    return ""


def _no_compiler(*, on_cuda: bool) -> str:
    if on_cuda:
        return "" if find_spec("triton") else "it needs the package triton"
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    return "" if shutil.which(compiler) else f"it needs a C++ compiler, and there is no {compiler} (CXX names another)"


def speed_up(encoder: nn.Module, runtime: Runtime) -> None:
    """Apply what the run asks for to a module, in place: memory layout, compilation, CUDA graphs."""
    if "channels_last" in runtime.fast:
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's types
    if how := _compilation(runtime.fast):
        encoder.compile(dynamic=False, **how)


def _compilation(fast: Collection[str]) -> dict[str, Any]:
    """Return the arguments of ``torch.compile``; graphs without ``compile`` replay the kernels of eager mode."""
    if "cuda_graphs" not in fast:
        return {"backend": "inductor"} if "compile" in fast else {}
    return {"mode": "reduce-overhead"} if "compile" in fast else {"backend": "cudagraphs"}
