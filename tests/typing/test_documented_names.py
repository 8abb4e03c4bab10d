"""Names of promptseg in the documents exist, and its code in them is what is type-checked."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT
from support.script_modules import load_script

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# Files and folders (promptseg.toml), paths in the cache, and what ends in a wildcard are no names of Python.
_NAME = re.compile(r"(?<![\w./-])promptseg((?:\.[A-Za-z_]\w*)+)(?::([A-Za-z_]\w*))?(?![\w/*])")
_FILES = ("sbatch", "toml")
_GROUPS = ("models", "datasets", "prompt_modes")  # of entry points, which are no modules
guide_code = load_script("guide_code")


def _code(text: str) -> Iterator[str]:
    """Yield the code spans and the fenced blocks of a page."""
    fence = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    yield from fence.findall(text)
    yield from re.findall(r"`([^`\n]+)`", fence.sub("", text))


def names(text: str) -> set[str]:
    """Return the dotted names below `promptseg` that a page has in its code."""
    found = set()
    for code in _code(text):
        for dotted, name in _NAME.findall(code):
            parts = dotted.split(".")[1:]
            if parts[-1] not in _FILES and not (len(parts) == 1 and parts[0] in _GROUPS):
                found.add(".".join([*parts, *([name] if name else [])]))
        for names_of_import in re.findall(r"^from promptseg import (.+)$", code, re.MULTILINE):
            found |= {name.split(" as ")[0].strip(" ()") for name in names_of_import.split(",")}
    return found


def exists(name: str) -> bool:
    """Whether a dotted name below `promptseg` can be imported, or is an attribute of what can."""
    thing: object = importlib.import_module("promptseg")
    path = "promptseg"
    for part in name.split("."):
        path = f"{path}.{part}"
        try:
            thing = getattr(thing, part)
        except AttributeError:
            try:
                thing = importlib.import_module(path)
            except ModuleNotFoundError:
                return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_names_in_the_documents_exist(page: Path) -> None:
    """What a reader is told to import, to catch or to look at is there."""
    assert [name for name in sorted(names(page.read_text())) if not exists(name)] == []


def test_names_are_found_in_spans_and_blocks() -> None:
    """Attributes, references and imports; neither files nor entry point groups."""
    text = (
        "Raise `promptseg.ConfigError`, load `promptseg.datasets_registry.folder:load`, not promptseg.prose.\n"
        "In `promptseg.toml`, group `promptseg.models`, folder `a/promptseg.b`.\n"
        "```python\nfrom promptseg import Cell, load_results as load\nimport promptseg.testing\n```\n"
    )
    assert names(text) == {"ConfigError", "datasets_registry.folder.load", "Cell", "load_results", "testing"}
    assert exists("specs.ModelSpec.name") is exists("models.no_such_model") is False
    assert exists("ConfigError")
    assert exists("datasets_registry.folder.load")
    assert sum(len(names(page.read_text())) for page in PAGES) > 20


def test_blocks_of_guides_become_files(tmp_path: Path) -> None:
    """With the name that a block has, else by page and number; without annotations being asked for."""
    page = tmp_path / "my-guide.md"
    page.write_text("```python a/b.py\nx = 1\n```\n```toml\nn = 1\n```\n```python\ny = 2\n```\n")
    written = guide_code.write([page], tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == ["a/b.py", "guide_my_guide_2.py"]
    first, second = (path.read_text() for path in written)
    assert first.startswith("# mypy: allow-untyped-defs")
    assert first.endswith("\nx = 1\n")
    assert second.endswith("\ny = 2\n")
    page.write_text(page.read_text() * 2)
    with pytest.raises(ValueError, match=r"my-guide\.md has a second block named a/b\.py"):
        guide_code.write([page], tmp_path / "out")
