"""Show that cost grows with the number of cases and memory does not, and what keeping results costs.

    python benchmarks/scaling.py --cases 10 100 1000 10000

A model that costs nothing is evaluated on drawn objects of 64 x 64 pixels: all that is left is promptseg's own work.
Without ``--modes`` in the whole protocol, eight cells with 32 rows for each case. Each number of cases is a run with
journals of its own; afterwards the results are stored as Parquet and read, with the journals, as a later run does. Peak
memory is that of NumPy and Python (tracemalloc) in a second run of at most 1000 cases, since that costs time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import protocol
import subjects

from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob, sorted_rows
from promptseg.results.rows import CellResult
from promptseg.results.store import ResultStore
from promptseg.segmenter import Image, Prediction, Request
from promptseg.specs import Cell, ModelSpec, PromptMode, TaskSpec

SPEC = ModelSpec(
    name="free", family="test", load="free:load", licence="none", accepts=frozenset({"points", "boxes"}), embedded=True
)
SIDE = 64
TASK = TaskSpec(name="object", labels=(1,))


class Free:
    """Answers every prompt with the same three masks."""

    spec = SPEC

    def __init__(self) -> None:
        self._answer = Prediction(np.ones((3, SIDE, SIDE), dtype=np.bool_), np.array([0.5, 0.4, 0.3], dtype=np.float32))

    def embed(self, images: Sequence[Image]) -> list[None]:
        """Return nothing for each."""
        return [None] * len(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Return the same for each."""
        return [self._answer] * len(requests)


class Timed:
    """A journal that adds up the CPU time of its thread."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self.seconds = 0.0

    def append(self, *case: Any) -> None:
        """Append, and add."""
        began = time.thread_time()
        self._journal.append(*case)
        self.seconds += time.thread_time() - began


def run(n: int, some: Sequence[PromptMode], folder: Path) -> tuple[float, float, float, float]:
    """Return CPU seconds of evaluation, of its journals, of writing Parquet, and of reading all again."""
    store, samples = ResultStore(folder), subjects.Pictures(None, n, (SIDE, SIDE))
    cells = {Cell("free", "object", mode.name): mode for mode in some}
    jobs = {CellJob(TASK, mode): Timed(store.journal(cell, "f" * 64)) for cell, mode in cells.items()}
    began = time.process_time()
    order = samples.ids()
    done = evaluate(
        Free(),
        samples,
        list(jobs),
        lambda job, case_id, rows, _: jobs[job].append(case_id, rows),
        order=order,
        seed=0,
        limit=None,
        batch_size=8,
    )
    evaluated = time.process_time()
    reading = 0.0
    for cell, cases in zip(cells, done.cases, strict=True):
        started = time.process_time()
        found = store.finished_cases(cell, "f" * 64)
        reading += time.process_time() - started
        if len(found) != n:
            raise SystemExit(f"the journal of {cell.mode} holds {len(found)} of {n} cases")
        store.save(CellResult(cell=cell, fingerprint="f" * 64, rows=sorted_rows(cases), n_examined=n))
    stored = time.process_time()
    for cell in cells:
        store.load(cell, "f" * 64)
    loaded = time.process_time()
    journals = sum(timed.seconds for timed in jobs.values())
    return evaluated - began, journals, stored - evaluated - reading, reading + loaded - stored


def peak(n: int, some: Sequence[PromptMode], folder: Path) -> float:
    """Return the largest memory of an evaluation, in MB, without what its rows take."""
    samples = subjects.Pictures(None, n, (SIDE, SIDE))
    store = ResultStore(folder)
    cells = [Cell("free", "object", mode.name) for mode in some]
    jobs = {CellJob(TASK, mode): store.journal(cell, "e" * 64) for cell, mode in zip(cells, some, strict=True)}
    tracemalloc.start()
    try:
        evaluate(
            Free(),
            samples,
            list(jobs),
            lambda job, case_id, rows, _: jobs[job].append(case_id, rows),
            order=samples.ids(),
            seed=0,
            limit=None,
            batch_size=8,
        )
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (most - left) / 1e6


def main() -> None:
    """Print a line for each number of cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 100, 1000, 10000], help="numbers of cases")
    parser.add_argument("--modes", nargs="+", default=[mode.name for mode in protocol.MODES], help="prompt modes")
    given = parser.parse_args()
    some = [mode for mode in protocol.MODES if mode.name in given.modes]
    columns = ("evaluation", "of it journals", "Parquet", "read again", "peak MB beside rows")
    print("cases   " + "".join(f"{name:>20}" for name in columns) + "    (CPU ms for each case)")
    for n in given.cases:
        with tempfile.TemporaryDirectory() as folder:
            seconds = run(n, some, Path(folder))
            megabytes = peak(min(n, 1000), some, Path(folder))
        print(f"{n:<8}" + "".join(f"{1e3 * s / n:>20.3f}" for s in seconds) + f"{megabytes:>20.1f}", flush=True)


if __name__ == "__main__":
    main()
