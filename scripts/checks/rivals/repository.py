"""Make the package of a click model's authors importable: old names put back, stand-ins for what is missing."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptseg.models._loading import import_torchvision

_ABSENT = ("albumentations", "easydict", "einops", "IPython", "mmcv", "torch.utils.tensorboard", "isegm.data.datasets")


class Anything:
    """Takes any call; as a decorator it changes nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *args: Any, **_: Any) -> Any:
        """Return what is decorated, or itself."""
        return args[0] if args and callable(args[0]) else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class BaseModule(torch.nn.Module):
    """mmcv's: a module with an ``init_cfg``."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()


class ConvModule(torch.nn.Module):
    """mmcv's, as far as inference needs it: a convolution, a norm where one is asked for, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__()
        norm = options.get("norm_cfg")
        shape = {name: options[name] for name in ("stride", "padding", "dilation", "groups") if name in options}
        self.conv = torch.nn.Conv2d(in_channels, out_channels, kernel_size, bias=norm is None, **shape)
        self.bn = torch.nn.BatchNorm2d(out_channels) if norm else torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, h, w) features."""
        return torch.nn.functional.relu(self.bn(self.conv(x)))


_REAL = {"BaseModule": BaseModule, "ConvModule": ConvModule}


class StandIn(types.ModuleType):
    """A module that has every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _REAL.get(name) or type(name, (Anything,), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `StandIn` for what is absent, or broken by the absence of what it needs."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for what shall be replaced."""
        absent = any(name == module or name.startswith(f"{module}.") for module in _ABSENT)
        return importlib.machinery.ModuleSpec(name, self) if absent else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def open_repository(path: Path) -> None:
    """Make the package ``isegm`` of a clone importable."""
    if not (path / "isegm").is_dir():
        raise SystemExit(f"{path} has no folder isegm; give --repo a clone of the authors' repository.")
    import_torchvision()
    for name, old in (("int", int), ("float", float), ("bool", bool)):
        if not hasattr(np, name):
            setattr(np, name, old)
    replace_roi_align()
    import timm.layers

    sys.modules["timm.models.layers"] = timm.layers
    sys.meta_path.insert(0, StandIns())
    sys.path.insert(0, str(path))


def replace_roi_align() -> None:
    """Where torchvision lacks its compiled operators, let its own slow ``roi_align`` stand for the fast one.

    It would take as many samples for each cell as a whole map has; with one, which is what FocalClick's crops come to,
    it needs no compiler either.
    """
    import torchvision

    if torchvision.extension._has_ops():
        return
    slow = importlib.import_module("torchvision.ops.roi_align")._roi_align.__wrapped__

    def roi_align(maps: Any, boxes: Any, size: Any, spatial_scale: float, aligned: bool) -> Any:  # noqa: FBT001
        return slow(maps, boxes, spatial_scale, *size, 1, aligned)

    torchvision.ops.roi_align = roi_align


def theirs(module: str, name: str) -> Any:
    """Return something of their package."""
    return getattr(importlib.import_module(f"isegm.{module}"), name)
