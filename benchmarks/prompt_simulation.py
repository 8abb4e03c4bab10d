"""Time the simulation of prompts against a direct transcription of the paper's rule (plain_loop.py), object by object.

    python benchmarks/prompt_simulation.py --folder ../shared/data/us_breast --images 50

Known beforehand: the number of components, the prompts of the five modes and the first click of three guides. Click: a
corrective one, given a prediction that misses a strip of the object and has another beside it.
tests/dev/test_benchmarks.py shows that both give equal prompts. The figures are CPU times, of each call on each object
the least of five in a row: what else the machine does, and what other calls left in its caches, is then not in them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import plain_loop
import subjects

from promptseg import prompts
from promptseg.segmenter import Mask, Prompt

REPEATS = 5
STATIC = (prompts.point_largest, prompts.point_each, prompts.box_largest, prompts.box_each, prompts.box_all)


def simulated(target: Mask) -> list[object]:
    """Return what an evaluation asks of a target before any answer; it is read-only, so parts are found once."""
    rng, none = np.random.default_rng(0), Prompt()
    first = [prompts.next_click(target, None, none, rng) for _ in range(3)]
    return [prompts.count_components(target), *(simulate(target, rng) for simulate in STATIC), *first]


def transcribed(target: Mask, draw: plain_loop.Draw) -> list[object]:
    """Return the same, as the paper's rule says it."""
    return [*plain_loop.static_prompts(target, draw), *(plain_loop.centre(target, draw) for _ in range(3))]


def transcribed_click(target: Mask, prediction: Mask, draw: plain_loop.Draw) -> plain_loop.Centre:
    """Return the place of a corrective click."""
    return plain_loop.centre(np.bitwise_xor(target, prediction), draw)


def shifted(target: Mask) -> Mask:
    """Return a prediction with errors on both sides: the target, moved by a twentieth of the image."""
    return np.roll(target, target.shape[1] // 20, axis=1)


def cpu_seconds(what: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    began = time.process_time()
    what()
    return time.process_time() - began


def ratios(targets: list[Mask]) -> dict[str, tuple[float, float]]:
    """Return mean CPU seconds for a target, of ours and of the transcription, for both kinds of prompts."""
    ours, theirs, ours_click, theirs_click = np.mean([_least_of(target) for target in targets], axis=0)
    return {"known beforehand": (ours, theirs), "corrective click": (ours_click, theirs_click)}


def _least_of(target: Mask) -> npt.NDArray[np.float64]:
    """Return (4,) seconds: ours and theirs for what is known beforehand, ours and theirs for a corrective click."""
    rng, none, prediction = np.random.default_rng(0), Prompt(), shifted(target)
    calls: list[Callable[[Mask], object]] = [
        simulated,
        lambda _: transcribed(target, rng.integers),
        lambda alone: prompts.next_click(alone, prediction, none, rng),
        lambda _: transcribed_click(target, prediction, rng.integers),
    ]
    return np.array([min(cpu_seconds(partial(call, _alone(target))) for _ in range(REPEATS)) for call in calls])


def _alone(target: Mask) -> Mask:
    """Return a read-only copy, about which nothing is cached yet."""
    copy = target.copy()
    copy.setflags(write=False)
    return copy


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="images/ and masks/; drawn objects without it")
    parser.add_argument("--images", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--size", type=int, default=512, help="side of drawn images (default: 512)")
    given = parser.parse_args()
    cv2.setNumThreads(1)  # the others have nothing to do here, and what they spin while they wait counts as CPU time
    samples = subjects.Pictures(given.folder, given.images, (given.size, given.size))
    targets = [mask for mask in map(samples.mask, samples.ids()) if mask.any()]
    ratios(targets[:2])  # warms up
    for kind, (ours, theirs) in ratios(targets).items():
        print(f"{kind}: promptseg {ours * 1e3:.3f} ms, transcription {theirs * 1e3:.3f} ms, {theirs / ours:.1f} times")


if __name__ == "__main__":
    main()
