"""A small project of a user: data, adapters of models, and pytest run in it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.inside import run_inside

ADAPTERS = '''
import json, os, sys, time
from pathlib import Path
import numpy as np
from promptseg import Prediction

LOG = Path(os.environ.get("ADAPTER_LOG", "calls.jsonl"))


def note(**entry):
    """Log a call of an evaluation; not those with which a new model is tried in company before its first one."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "dissent":
            return
        frame = frame.f_back
    with LOG.open("ab", buffering=0) as stream:
        stream.write((json.dumps(entry) + "\\n").encode())


class Bright:
    """Two candidates: the bright pixels, and all pixels. Counts its calls, and misbehaves where it is told to."""

    def __init__(self, spec, files, runtime):
        self.spec = spec
        self.options = spec.options

    def embed(self, images):
        time.sleep(self.options.get("sleep", 0))
        for image in images:
            note(call="embed", sum=int(image.astype(np.int64).sum()))
        return list(images)

    def predict(self, requests):
        return [self.answer(r.embedding, r.prompt) for r in requests]

    def answer(self, image, prompt):
        note(call="predict", sum=int(image.astype(np.int64).sum()), prompt=prompt.key.hex())
        fault = self.options.get("fault")
        bright = image[..., 0] > 127
        if fault == "raises" and bright[0, 0]:
            raise RuntimeError("out of patience")
        masks = np.stack([bright, np.ones_like(bright)])
        scores = np.array([0.9, 0.1], dtype=np.float32)
        if fault == "nan":
            scores = scores * np.nan
        if fault == "size":
            masks = masks[:, :-1]
        if fault == "dtype":
            masks = masks.astype(np.float32)
        return Prediction(masks, scores)


def load(spec, files, runtime):
    return Bright(spec, files, runtime)
'''


@dataclass
class Project:
    """A folder with data sets, adapters and a promptseg.toml, in which pytest is run as a user would."""

    pytester: pytest.Pytester

    def add_images(self, name: str, count: int, *, first: int = 0) -> Path:
        """Write ``count`` pairs of 32 x 48 images: a bright rectangle, its mask, and a little of it dark."""
        folder = self.pytester.path / name
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            mask = np.zeros((32, 48), dtype=np.uint8)
            mask[4 : 12 + i % 9, 6 : 20 + i % 13] = 1
            image = 40 + 180 * mask
            image[4 : 5 + i % 3, 6:10] = 30 + i % 90
            Image.fromarray(image).save(folder / "images" / f"case_{i:02}.png")
            Image.fromarray(mask).save(folder / "masks" / f"case_{i:02}.png")
        return folder

    def configure(self, *tables: str) -> None:
        """Write promptseg.toml: the data set ``squares``, the model ``bright``, and more tables."""
        text = """
            [datasets.squares]
            folder = "squares"
            modality = "phantom"
            [models.bright]
            adapter = "adapters:load"
        """
        whole = "\n".join([textwrap.dedent(text), *(textwrap.dedent(t) for t in tables)])
        (self.pytester.path / "promptseg.toml").write_text(whole)

    def run(self, *arguments: str, code: int | None = None, apart: bool = False) -> pytest.RunResult:
        """Run the shipped benchmark; ``code`` is the exit status that is expected.

        In this process (see `run_inside` for what that is not good for), or ``apart``, in one of its own, as always
        where xdist distributes.
        """
        apart = apart or "-n" in arguments
        run = self.pytester.runpytest_subprocess if apart else partial(run_inside, self.pytester)
        result = run("--pyargs", "promptseg.benchmark", *arguments)
        if code is not None:
            assert result.ret == code, result.stdout.str() + result.stderr.str()
        return result

    def scores(self, *arguments: str, name: str = "scores.json", apart: bool = False) -> dict[str, dict[str, Any]]:
        """Run and return the cells of ``--seg-json`` by their id."""
        path = self.pytester.path / name
        path.unlink(missing_ok=True)
        self.run(*arguments, "--seg-json", name, apart=apart)
        cells = json.loads(path.read_text())["cells"]
        return {f"{c['model']}-{c['task']}-{c['mode']}": c for c in cells}

    def means(self, *arguments: str) -> dict[str, float]:
        """Run and return the mean IoU of each cell."""
        return {name: cell["mean_iou"] for name, cell in self.scores(*arguments).items()}

    def calls(self, kind: str) -> list[dict[str, Any]]:
        """Return what the adapter wrote down, and forget it."""
        log = self.pytester.path / "calls.jsonl"
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return [entry for entry in entries if entry["call"] == kind]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the shipped benchmark in the background."""
        command = [sys.executable, "-m", "pytest", "--pyargs", "promptseg.benchmark", "-q", *arguments]
        return subprocess.Popen(command, cwd=self.pytester.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
