"""The project's scripts as modules, for tests of what is in them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from support.paths import ROOT

FOLDERS = (ROOT / "scripts", ROOT / "benchmarks")


def script_path(name: str) -> Path:
    """Return the one file ``NAME.py`` below ``scripts/`` or in ``benchmarks/``."""
    (path,) = (path for folder in FOLDERS for path in folder.rglob(f"{name}.py"))
    return path


def load_script(name: str) -> ModuleType:
    """Return a script or benchmark, in whatever folder it is, as the module NAME."""
    spec = importlib.util.spec_from_file_location(name, script_path(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
