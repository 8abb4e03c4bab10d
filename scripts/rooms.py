"""Print the rooms of the package, what each imports from, arrows that run upwards, cycles, and the spine.

    python scripts/rooms.py

A room is a module or package right below `promptseg`. A module may import from its own room and from rooms on lower
floors, lazily and for types too; modules may not import each other in a cycle. Exit status 1 where one does.
`tests/test_rooms.py` asks the same.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FLOORS = (  # from the top
    ("cli",),
    ("api", "plugin", "benchmark"),
    ("session",),
    ("leaderboard",),
    ("runner",),
    ("verdicts",),
    ("models", "datasets_registry", "testing", "_scenes"),
    ("evaluation",),
    ("stats",),
    ("results",),
    ("preparation",),
    ("data",),
    ("files",),
    ("registry",),
    ("errors", "prompts", "progress", "samples", "segmenter", "specs", "text"),
)
FLOOR = {room: len(FLOORS) - 1 - i for i, rooms in enumerate(FLOORS) for room in rooms}
SPINE = (  # from `pytest` to the board
    "plugin",
    "session.selection",
    "session.fixtures",
    "runner.run",
    "evaluation.evaluate",
    "results.store",
    "verdicts.score",
    "session.report",
    "leaderboard.board",
)


def sources() -> dict[str, Path]:
    """Return the file of every module below `promptseg`, by its name without ``promptseg.``; that of the root is ''."""
    spec = importlib.util.find_spec("promptseg")
    folders = list((spec and spec.submodule_search_locations) or [])
    root = Path(folders[0])
    places = {name: root / name for name in ("", *sorted(path.name for path in root.iterdir() if path.is_dir()))}
    for mounted in ("datasets_registry", "leaderboard", "models"):
        found = importlib.util.find_spec(f"promptseg.{mounted}")
        places[mounted] = Path(next(iter((found and found.submodule_search_locations) or [])))
    modules = {}
    for name, folder in places.items():
        for path in sorted(folder.rglob("*.py") if name else folder.glob("*.py")):
            parts = (*([name] if name else []), *path.relative_to(folder).with_suffix("").parts)
            modules[".".join(part for part in parts if part != "__init__")] = path
    return modules


def imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules that a file imports anywhere: at its top, in functions, or for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "promptseg":
                continue
            below = name.removeprefix("promptseg").lstrip(".")
            yield below if below in modules else below.rpartition(".")[0]


def room_of(module: str) -> str:
    """Return the room that a module is in."""
    return module.split(".")[0]


def upward(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the pairs of modules of which the first imports from a floor above it."""
    return [
        (module, target)
        for module, targets in sorted(imports.items())
        for target in sorted(targets)
        if module and target and FLOOR[room_of(target)] > FLOOR[room_of(module)]
    ]


def cycle(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import each other in a cycle; empty if none do. A package's own names do not count."""
    graph = {
        module: {target for target in targets if target not in ("", module) and not module.startswith(f"{target}.")}
        for module, targets in imports.items()
        if module
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    """Print everything; return the exit status."""
    modules = sources()
    imports = {module: set(imported(path, modules)) for module, path in modules.items()}
    print("floor  room                modules   lines  imports from")
    for floor, rooms in zip(range(len(FLOORS) - 1, -1, -1), FLOORS, strict=True):
        for room in rooms:
            inside = [module for module in modules if room_of(module) == room]
            if not inside:
                continue
            lines = sum(len(modules[module].read_text(encoding="utf-8").splitlines()) for module in inside)
            targets = {room_of(target) for module in inside for target in imports[module] if target} - {room}
            arrows = " ".join(sorted((t for t in targets if FLOOR[t]), key=lambda t: -FLOOR[t]))
            print(f"{floor:5}  {room:18}  {len(inside):7}  {lines:6}  {arrows}")
    wrong, circle = upward(imports), cycle(imports)
    print("\narrows that run upwards:", "none" if not wrong else "")
    for module, target in wrong:
        print(f"  {module} -> {target}")
    print("cycles of modules:", " -> ".join(circle) or "none")
    print("\nthe spine, from `pytest` to the board:")
    total = 0
    for module in SPINE:
        lines = len(modules[module].read_text(encoding="utf-8").splitlines())
        total += lines
        print(f"  {lines:5}  {module}")
    print(f"  {total:5}  in {len(SPINE)} modules")
    return 1 if wrong or circle else 0


if __name__ == "__main__":
    sys.exit(main())
