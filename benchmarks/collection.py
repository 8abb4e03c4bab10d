"""Compare the time to collect every built-in cell with that of as many plain parametrized tests.

    python benchmarks/collection.py [--runs 9]

Both are whole ``pytest --collect-only -q`` processes, run in turn so that a machine that slows down slows both. The
plain run has the plugin switched off.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import pytest

@pytest.mark.parametrize("cell", range({count}), ids=lambda i: f"model_{{i}}-task_{{i}}-mode_{{i}}")
def test_plain(cell):
    assert cell >= 0
"""


def collect(folder: Path, *arguments: str) -> tuple[float, int]:
    """Return seconds and the number of tests of one ``pytest --collect-only -q``."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    return seconds, sum("::" in line for line in done.stdout.splitlines())


def main() -> None:
    """Print both medians and the median of the ratios of neighbouring runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    cells = ("--pyargs", "promptseg.benchmark", "-k", "test_iou")
    plain = ("-p", "no:promptseg.plugin", "test_plain.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, count = collect(folder, *cells)
        (folder / "test_plain.py").write_text(PLAIN.format(count=count))
        collect(folder, *plain)
        pairs = [(collect(folder, *cells)[0], collect(folder, *plain)[0]) for _ in range(runs)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{count} cells: {ours:.2f} s, as many plain tests: {theirs:.2f} s, ratio {ratio:.2f}; {runs} pairs, medians")


if __name__ == "__main__":
    main()
