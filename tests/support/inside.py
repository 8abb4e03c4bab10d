"""Run pytest within the process of a test, where the libraries that earlier runs have loaded stay loaded."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from promptseg.registry.references import code_hash

_REWRITTEN = ("promptseg.benchmark", "harness.benchmark")  # the latter in a checkout, by pytest's way to name a test


def run_inside(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in this process: it takes a tenth of what a process takes that loads torch and OpenCV anew.

    Not for tests that look at what is loaded, at how a process ends, or at variables that libraries read when they are
    imported. What may differ between two runs is forgotten: the test's own modules, and hashes of code. Warnings are
    those of a process of its own, not errors.
    """
    code_hash.cache_clear()
    stay = _Stay(pytester.path)
    # No bytecode: it would be taken for that of a file that is written again within the second, with as many letters.
    with warnings.catch_warnings(), patch.object(sys, "dont_write_bytecode", new=True):
        warnings.simplefilter("default")
        try:
            return pytester.runpytest_inprocess(*arguments, plugins=[stay])
        finally:
            sys.modules.update(stay.loaded)
            code_hash.cache_clear()


class _Stay:
    """A plugin of the run inside: remembers what is loaded, before pytester unloads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.loaded: dict[str, ModuleType] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.loaded = libraries(self._folder)


def libraries(folder: Path) -> dict[str, ModuleType]:
    """Return what is loaded, but for a test's own modules in its folder, and the benchmark, which each run rewrites."""
    own = f"{folder}/"
    return {
        name: module
        for name, module in sys.modules.items()
        if name not in _REWRITTEN and not str(getattr(module, "__file__", None)).startswith(own)
    }
