"""The rooms of the package: imports go one way, down the floors, and modules do not import each other in a cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.script_modules import load_script

rooms = load_script("rooms")
MODULES: dict[str, Path] = rooms.sources()
IMPORTS: dict[str, set[str]] = {module: set(rooms.imported(path, MODULES)) for module, path in MODULES.items()}


def test_every_room_has_a_floor() -> None:
    """A new room needs a place in FLOORS of scripts/rooms.py, and a sentence in CONTRIBUTING.md."""
    assert {rooms.room_of(module) for module in MODULES if module} <= rooms.FLOOR.keys()
    assert {"cli", "leaderboard", "models", "specs"} <= {rooms.room_of(module) for module in MODULES}


def test_imports_go_down() -> None:
    """A module imports from its own room and from lower floors, lazily and for types too."""
    assert rooms.upward(IMPORTS) == []


def test_no_cycle_of_modules() -> None:
    """Not inside a room either, and not between rooms of one floor."""
    assert rooms.cycle(IMPORTS) == []


@pytest.mark.parametrize(
    "source",
    [
        "import promptseg.cli.main",
        "from promptseg.cli import main",
        "from promptseg import cli",
        "def f():\n    from promptseg.cli.main import app",
        "if TYPE_CHECKING:\n    from promptseg.cli.main import app",
    ],
)
def test_the_guard_sees_every_kind_of_import(tmp_path: Path, source: str) -> None:
    """At the top, in a function, for types; by each form of the statement."""
    file = tmp_path / "module.py"
    file.write_text(source)
    found = set(rooms.imported(file, MODULES))
    assert found & {"cli", "cli.main"}
    assert rooms.upward({"results.store": found}) != []


def test_the_guard_sees_cycles_in_a_room() -> None:
    """Two modules of one room that import each other."""
    assert rooms.cycle({"stats.a": {"stats.b"}, "stats.b": {"stats.a"}}) != []
