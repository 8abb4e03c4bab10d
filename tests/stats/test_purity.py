"""The statistics know arrays and numbers alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

MODULES = sorted((ROOT / "harness/stats").rglob("*.py"))


def test_there_is_something_to_look_at() -> None:
    """The folder is the one that is meant."""
    assert {"__init__.py", "betting.py", "bootstrap.py", "means.py", "paired.py", "ranks.py"} <= {
        path.name for path in MODULES
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_stats_import_numpy_and_scipy_alone(path: Path) -> None:
    """Nothing of promptseg but stats itself, so that each can be used and checked without the rest."""
    allowed = {*sys.stdlib_module_names, "numpy", "scipy"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}"]
        else:
            continue
        for name in names:
            assert name.split(".")[0] in allowed or f"{name}.".startswith("promptseg.stats."), name
