"""What the study costs, on paper: 28 tasks and four models on one GPU and on 64, from stated assumptions.

    python scripts/studies/cost.py

Counts of images are the published ones (leaderboard/paper.toml). Seconds are arithmetic over an assumed speed; nothing
here was run on a GPU. Change the constants to those of your machine.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

PAPER = Path(__file__).resolve().parents[2] / "leaderboard" / "paper.toml"
GPUS = 64
TFLOPS = 30.0  # assumed: what large float32 kernels reach on one GPU, in 1e12 operations a second
LEAST_MS = 12.0  # assumed: a click model's forward pass of many small kernels, one question at a time
PROMPTS = 24  # measured: different SAM prompts for a case in five modes and nine clicks with three guides
FORWARDS = 11  # nine clicks (one candidate: the guides click alike) and two prompts of points
HOST_MS = 30.0  # put together from docs/speed.md: prompts, scores and journals of a case at 512 x 512, on one core
LOAD_S = 30.0  # assumed: start a process, read 2.5 GB of weights, warm up


class Model(NamedTuple):
    """A model's arithmetic: for each image, and for each prompt or click of a case; 1e12 operations."""

    name: str
    per_image: float
    per_question: float
    questions: int
    least_ms: float


# Assumed; SAM's prompt is the arithmetic of the rearranged decoder, at a tenth of the speed of large kernels.
MODELS = (
    Model("sam_vit_h", 3.0, 0.0021 * 10, PROMPTS, 0.0),
    Model("ritm_hrnet32", 0.0, 0.15, FORWARDS, LEAST_MS),
    Model("simpleclick_vit_h", 0.0, 1.4, FORWARDS, LEAST_MS),
    Model("focalclick_segformer_b3", 0.0, 0.05, FORWARDS, LEAST_MS),
)


def counts() -> dict[str, tuple[int, int]]:
    """Return images and cases of each data set; at most: as if each image had every object of its data set."""
    paper = tomllib.loads(PAPER.read_text())
    tasks = [task["dataset"] for task in paper["tasks"].values()]
    return {name: (images, images * tasks.count(name)) for name, images in paper["masks"].items()}


def gpu_hours(model: Model, images: int, cases: int) -> float:
    """Return what a model takes for so many images and cases."""
    question = max(model.per_question / TFLOPS, model.least_ms / 1e3)
    return (images * model.per_image / TFLOPS + cases * model.questions * question) / 3600


def main() -> None:
    """Print the table and what limits it."""
    sets = counts()
    images, cases = (sum(column) for column in zip(*sets.values(), strict=True))
    print(f"{images} images, at most {cases} cases in {len(sets)} data sets, {len(MODELS)} models")
    total = 0.0
    longest = ("", 0.0)
    for model in MODELS:
        hours = gpu_hours(model, images, cases)
        total += hours
        groups = {name: gpu_hours(model, *of_set) for name, of_set in sets.items()}
        name = max(groups, key=lambda key: groups[key])
        longest = max(longest, (f"{model.name} on {name}", groups[name]), key=lambda pair: pair[1])
        print(f"{model.name:26}{hours:7.1f} h on one GPU, longest group {name} {groups[name]:.1f} h")
    host = len(MODELS) * cases * HOST_MS / 3.6e6
    print(f"all: {total:.1f} h on one GPU; the host's {host:.1f} core hours hide behind them")
    spread = total / GPUS + LOAD_S * len(MODELS) / 3600
    print(f"{GPUS} GPUs, groups whole: {max(longest[1], spread):.1f} h, which is {longest[0]}")
    print(f"{GPUS} GPUs, groups split: {spread:.2f} h, {LOAD_S * len(MODELS) / 36 / spread:.0f} % of it loading models")


if __name__ == "__main__":
    main()
