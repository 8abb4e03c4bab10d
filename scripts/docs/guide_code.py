"""Write the Python blocks of the guides as files, so that mypy checks them against promptseg's types.

    python scripts/docs/guide_code.py FOLDER

A block with a file name gets it; the others of a page are modules of their own, as ``guide_results_1.py``. The guides
leave annotations out, which is all that mypy does not ask of them. `make types` runs this.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SETTINGS = "# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls\n"


def files(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each Python block of a page."""
    stem = page.stem.replace("-", "_").lower()
    for number, (name, text) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")), 1):
        yield name or f"guide_{stem}_{number}.py", text


def write(pages: list[Path], folder: Path) -> list[Path]:
    """Write the blocks of some pages into a new folder and return the files.

    Raises:
        ValueError: two blocks have the same file name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    written = []
    for page in pages:
        for name, text in files(page):
            path = folder / name
            if path in written:
                raise ValueError(f"{page.name} has a second block named {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_SETTINGS + text, encoding="utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    print(len(write([ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], Path(sys.argv[1]))), "blocks")
