"""What is loaded when: nothing heavy before a cell runs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import promptseg

HEAVY = (
    "torch",
    "cv2",
    "numpy",
    "datasets",
    "transformers",
    "timm",
    "huggingface_hub",
    "pyarrow",
    "rich",
    "PIL",
    "skimage",
    "onnxruntime",
    "nilearn",
    "tabulate",
    "matplotlib",
    "ray",
    "pandas",
)
ALIASES = ("Image", "LabelMap", "Mask")  # of numpy's types, which know nothing of their home


@pytest.mark.parametrize(
    "code",
    ["import promptseg", "import promptseg.plugin", "from promptseg.registry.entries import build; build().cells()"],
    ids=["package", "plugin", "registry"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    """A run starts, and thousands of cells are collected, without any of these."""
    check = f"{code}\nimport sys\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_collecting_every_cell_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    """Neither for the parameters, nor for the marks, nor for the report at the end."""
    pytester.makeconftest(
        f"""
        import sys

        def pytest_unconfigure(config):
            print("heavy:", sorted(set({HEAVY!r}) & set(sys.modules)), "end")
        """
    )
    options = ("--seg-modes", "box_all,point_each", "--collect-only", "-q")
    result = pytester.runpytest_subprocess("--pyargs", "promptseg.benchmark", *options)
    result.stdout.fnmatch_lines(["*box_fill-us_kidney-box_all*", "heavy: [[][]] end"])


def test_every_public_name_can_be_imported() -> None:
    """``__all__`` tells the truth, each name once, sorted, and from the module that defines it."""
    assert list(promptseg.__all__) == sorted(set(promptseg.__all__))
    homes = {name: home for home, names in promptseg._HOME.items() for name in names}
    assert sorted(homes) == promptseg.__all__
    for name, home in homes.items():
        thing = getattr(promptseg, name)
        assert getattr(importlib.import_module(home), name) is thing
        if name not in ALIASES:
            assert thing.__module__ == home


def test_every_error_is_public() -> None:
    """Whoever is told of an error can catch it by name."""
    errors = {name for name in vars(importlib.import_module("promptseg.errors")) if name.endswith("Error")}
    assert errors
    assert errors <= set(promptseg.__all__)


def test_type_checkers_see_what_is_loaded_lazily() -> None:
    """The names imported for types are those of ``__all__``, from the same modules."""
    tree = ast.parse(Path(str(promptseg.__file__)).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        str(node.module): tuple(a.name for a in node.names) for node in block.body if isinstance(node, ast.ImportFrom)
    }
    assert typed == promptseg._HOME


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As for any module, so that hasattr and mistyped imports behave."""
    assert not hasattr(promptseg, "Sgementer")
    with pytest.raises(ImportError, match="Sgementer"):
        exec("from promptseg import Sgementer")  # noqa: S102
