"""The project's scripts as modules, for tests of what is in them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

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


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in this process, where the libraries it needs are loaded, as ``python NAME.py ARGUMENTS`` does."""
    command = [str(script_path(name)), *arguments]
    printed, complained = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", command),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complained),
    ):
        status = load_script(name).main()
    return subprocess.CompletedProcess(command, status or 0, printed.getvalue(), complained.getvalue())
