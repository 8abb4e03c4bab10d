"""Run the public repository of a click model's authors beside ours, on the same weights, and compare.

    git clone https://github.com/SamsungLabs/ritm_interactive_segmentation ../ritm
    python scripts/checks/compare_rivals.py --family ritm --repo ../ritm --data ../shared/data

The weights are random, drawn with NumPy, but for the last layer, which is fitted to the images by least squares, so
that masks follow objects. They are saved in the authors' own format, which ours then reads. For each image the authors'
evaluation loop clicks; compared are

- the probability maps after each click, ours given the authors' clicks where it would click elsewhere,
- clicks, IoU and number of clicks to each IoU when ours clicks for itself, by the rule of the prompt mode ``noc``,
- the processor's seconds that both loops take,
- with ``--project FOLDER``: the prompt mode ``noc`` run by pytest on the same images and weights, in a project that is
  written for it and left there, so that other prompt modes can be run by hand.

Exit status 1 if a map differs by 1e-4 or more, a click or a number differs, or ours takes more than 1.3 times as long.

The repositories were written for older libraries. What they miss of NumPy and timm is put back under the old names;
mmcv, albumentations and others, which their inference does not need, are replaced by stand-ins.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rivals.clicking import Sample, read_samples
from rivals.comparison import Forgetful, compare, predictor_of
from rivals.families import FAMILIES, Family, build
from rivals.project import compare_project, write_project
from rivals.repository import open_repository
from rivals.tiny import golden
from rivals.weights import draw_weights, fit_last_layer

from promptseg.models.click._specs import PAPER_2023
from promptseg.registry.entries import build as registered
from promptseg.registry.references import resolve
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import ModelSpec


def compare_architecture(family: Family, architecture: str, samples: Sequence[Sample], options: Any) -> list[str]:
    """Compare both profiles of an architecture; return what is wrong."""
    network = build(family, architecture)
    draw_weights(network, options.seed)
    first, second = (predictor_of(family, network, mode, family.zoom_in, options.cascade) for mode in family.modes)
    fit_last_layer(network, family, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save({"state_dict": network.state_dict(), "config": network._config}, path)
        models = [ours(spec, path, options.cascade) for spec in profiles(family.specs[architecture])]
        if options.project:
            write_project(options.project, options.family, path, samples)
    problems = []
    for model, reference in zip(models, (first, Forgetful(second)), strict=True):
        print(f"{model.spec.name}: {len(samples)} images, {options.clicks} clicks", flush=True)
        initial = options.initial_mask and "feedback" in model.spec.accepts
        verdict = compare(reference, model, samples, options.clicks, initial=initial, **family.evaluate)
        print(f"  {verdict}, {verdict.ours / verdict.theirs:.2f} times their time")
        problems += [f"{model.spec.name}: {problem}" for problem in verdict.problems()]
        if options.project and model is models[0]:
            problems += compare_project(options.project, options.family, samples, verdict)
    return problems


def profiles(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """Return a model as its authors and as the study of 2023 evaluate it."""
    return spec, registered().model(f"{spec.name}{PAPER_2023}")


def ours(spec: ModelSpec, path: Path, cascade: int) -> Segmenter:
    """Return our model with the weights of a file."""
    extra = {"cascade_passes": cascade, "cascade_adaptive": True} if cascade > 1 else {}
    spec = dataclasses.replace(spec, options={**spec.options, **extra})
    model: Segmenter = resolve(spec.load)(spec, {"checkpoint": path}, Runtime())
    return model


def read_options() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(FAMILIES), required=True)
    parser.add_argument("--repo", type=Path, required=True, help="clone of the authors' repository")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--data", type=Path, help="compare on this folder of SET/images and SET/masks")
    work.add_argument("--golden", type=Path, help="write the numbers that the tests hold us to into this file")
    parser.add_argument("--architecture", action="append", help="one of the family's; default: all, repeat for several")
    parser.add_argument("--per-set", type=int, default=1, help="images of each set (default: 1)")
    parser.add_argument(
        "--sets", type=lambda text: text.split(","), default=[], help="only these sets, separated by commas"
    )
    parser.add_argument("--clicks", type=int, default=9, help="clicks on each image (default: 9)")
    parser.add_argument("--cascade", type=int, default=1, help="passes for the first click, with CFR-ICL's repository")
    parser.add_argument("--initial-mask", action="store_true", help="begin with a mask (only family focalclick)")
    parser.add_argument("--project", type=Path, help="also run noc by pytest, in this folder (needs --clicks 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    return parser.parse_args()


def main() -> int:
    """Compare and report."""
    options = read_options()
    warnings.simplefilter("ignore")  # of their repositories, about their age
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    open_repository(options.repo)
    family = FAMILIES[options.family]
    if options.golden:
        options.golden.write_text(json.dumps(golden(family), indent=1) + "\n")
        return 0
    samples = list(read_samples(options.data, options.per_set, options.sets))
    if not samples:
        raise SystemExit(f"{options.data} has no images with masks of the same name.")
    problems = []
    with private_cache():
        for architecture in options.architecture or family.specs:
            problems += compare_architecture(family, architecture, samples, options)
    print("\n".join(problems) or "all equal")
    return 1 if problems else 0


@contextlib.contextmanager
def private_cache() -> Iterator[None]:
    """Keep conversions of random weights out of the user's cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMPTSEG_CACHE"] = folder
        yield


if __name__ == "__main__":
    raise SystemExit(main())
