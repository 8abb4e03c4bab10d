"""The prompt mode ``noc`` run by pytest on the same images and weights, in a project written for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rivals.clicking import Sample
from rivals.comparison import SLOWDOWN, Verdict

_IMPORTS = "import pytest, torch, promptseg.runner.run, promptseg.models.click._inference"


def write_project(folder: Path, family: str, checkpoint: Path, samples: Sequence[Sample]) -> None:
    """Write a project with the samples as data sets SET_sample and a model FAMILY_random, beside those it has."""
    for kind in (
        "weights",
        *(f"{sample.set_name}_sample/{part}" for sample in samples for part in ("images", "masks")),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "weights" / f"{family}.pth")
    for sample in samples:
        name = Path(sample.name).with_suffix(".png").name
        cv2.imwrite(str(folder / f"{sample.set_name}_sample" / "images" / name), sample.image[:, :, ::-1])
        cv2.imwrite(str(folder / f"{sample.set_name}_sample" / "masks" / name), sample.target.astype(np.uint8))
    sets = sorted(path.name for path in folder.glob("*_sample"))
    models = sorted(path.stem for path in (folder / "weights").glob("*.pth"))
    tables = [f'[datasets.{name}]\nfolder = "{name}"\nmodality = "{name.partition("_")[0]}"\n' for name in sets]
    tables += [
        f'[models.{name}_random]\nadapter = "{name}"\nfolder = "weights"\nfiles = {{checkpoint = "{name}.pth"}}\n'
        for name in models
    ]
    (folder / "promptseg.toml").write_text("\n".join(tables), encoding="utf-8")


def run_project(folder: Path, family: str, tasks: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Run ``noc`` of a family's model by pytest; return the cells by task, and the processor's seconds.

    What Python needs to import is not in them, nor is it in those of the authors' loop.
    """
    scores = folder / f"{family}.json"
    scores.unlink(missing_ok=True)
    cells = ("--seg-models", f"{family}_random", "--seg-tasks", ",".join(tasks), "--seg-modes", "noc")
    how = ("--seg-rerun", "--seg-device", "cpu", f"--seg-json={scores}")
    imports = children_seconds("-c", _IMPORTS)
    seconds = children_seconds("-m", "pytest", "--pyargs", "promptseg.benchmark", "-q", *cells, *how, cwd=folder)
    return {cell["task"]: cell for cell in json.loads(scores.read_text())["cells"]}, seconds - imports


def children_seconds(*arguments: str, cwd: Path | None = None) -> float:
    """Run this Python and return the processor's seconds it took."""
    before = os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, check=False, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}:\n{done.stdout.decode()}{done.stderr.decode()}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def compare_project(folder: Path, family: str, samples: Sequence[Sample], verdict: Verdict) -> list[str]:
    """Compare what pytest says with what our model said here, IoU after each click; return what is wrong."""
    names = sorted({sample.set_name for sample in samples})
    cells, seconds = run_project(folder, family, [f"{name}_sample" for name in names])
    problems = []
    for name in names:
        here = [run.ious for sample, run in zip(samples, verdict.runs, strict=True) if sample.set_name == name]
        found = cells[f"{name}_sample"]
        curve = np.array(found["iou_per_click"]["confident"])
        print(f"  by pytest, {name}: {found['noc']}")
        if len(curve) != len(here[0]) or not np.allclose(curve, np.mean(here, axis=0), rtol=0, atol=1e-9):
            problems.append(f"by pytest, {name}: other IoU, {curve}")
    print(f"  by pytest: {seconds:.2f} seconds, {seconds / verdict.theirs:.2f} times the time of the authors' loop")
    return problems + ["by pytest: too slow"] * (seconds > SLOWDOWN * verdict.theirs)
