"""Tests of `promptseg.registry.references`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from promptseg.registry.references import code_hash, source_files


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a plugin's package that can be imported."""
    folder = tmp_path / "some_plugin"
    (folder / "nets").mkdir(parents=True)
    for name in ("__init__.py", "model.py", "nets/__init__.py", "nets/net.py"):
        (folder / name).write_text("load = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("some_plugin", "some_plugin.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another test
    return folder


@pytest.mark.parametrize("reference", ["some_plugin.model:load", "some_plugin:load"])
def test_of_a_plugin_the_whole_package_counts(package: Path, reference: str) -> None:
    """A model's code may lie in any module of its package."""
    assert source_files(reference) == sorted(package.rglob("*.py"))
    before = code_hash(reference)
    (package / "nets" / "net.py").write_text("load = 1\n")
    code_hash.cache_clear()
    assert code_hash(reference) != before


def test_of_promptseg_a_module_counts_alone() -> None:
    """What lies in the same package is other code."""
    assert [path.name for path in source_files("promptseg.prompts:point_largest")] == ["prompts.py"]


def test_an_edited_grabcut_leaves_results_of_sam_valid() -> None:
    """Of a family of models its own package counts, and what all families share."""
    sam = {path.as_posix().rpartition("models/")[2] for path in source_files("promptseg.models.sam.sam:load")}
    grabcut = {
        path.as_posix().rpartition("models/")[2] for path in source_files("promptseg.models.classical.grabcut:load")
    }
    assert {"sam/sam.py", "sam/_segmenter.py", "_loading.py", "_fast.py"} <= sam
    assert "classical/_grabcut.py" in grabcut - sam
    assert {path for path in sam & grabcut if "/" in path} == set()
