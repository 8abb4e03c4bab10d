"""How fast a model is: the measurement behind ``test_speed``, and its figures on disk.

Layout, beside the scores, under the results folder::

    MODEL/speed/DEVICE-DTYPE-FAST.json    the latest figures of the model on a device, in a dtype, with fast paths
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptseg import prompts
from promptseg.datasets_registry import phantom
from promptseg.errors import ResultsError, UnsupportedPromptError
from promptseg.results import provenance
from promptseg.results.store import write_text
from promptseg.samples import target_of
from promptseg.segmenter import Image, Mask, Prompt, Request, Runtime, Segmenter
from promptseg.specs import PROMPT_KINDS

IMAGES_FROM = phantom.MRI  # in every installation, and the same everywhere
N_IMAGES = 4
ROUNDS = 3
SPEED_SCHEMA = 1
_FOLDER = "speed"
_NO_ENCODER = 10_000  # images in a second


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `measure` found, medians over the rounds.

    Attributes:
        model: its name.
        device: what it ran on: the name of the GPU, or the processor's architecture with the number of threads.
        dtype: of the encoder.
        fast: the fast paths that were asked for, sorted.
        images_per_second: encoded, ``n_images`` in a batch.
        ms_per_prompt: to decode ``n_prompts`` points and boxes handed over together, masks on the host.
        peak_memory: bytes; of the GPU while measuring, of the whole process where there is none.
        n_images, n_prompts: in each round.
        date: UTC, as in 2026-01-31.
        versions: of what may matter.
    """

    model: str
    device: str
    dtype: str
    fast: list[str]
    images_per_second: float
    ms_per_prompt: float
    peak_memory: int
    n_images: int
    n_prompts: int
    date: str
    versions: dict[str, str]


@dataclass
class Rounds:
    """A model at work on the same images and prompts again and again.

    Args:
        model: what is measured.
        device: that it runs on, as torch names it.
    """

    model: Segmenter
    device: str
    images: Sequence[Image] = field(init=False)
    encode: list[float] = field(default_factory=list, init=False)
    decode: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        samples = phantom.load(IMAGES_FROM, None)
        cases = samples.ids()[:N_IMAGES]
        self.images = [samples.image(case) for case in cases]
        targets = [target_of(IMAGES_FROM.tasks[0], samples.labels(case)) for case in cases]
        accepts = self.model.spec.accepts
        self._wants = [(i, t, p) for i, t in enumerate(targets) for p in _prompts(t, accepts)]
        if not self._wants:
            takes = " and ".join(sorted(accepts & set(PROMPT_KINDS)))
            raise UnsupportedPromptError(
                f"{self.model.spec.name} takes {takes}; speed is measured with a point and a box"
            )

    @property
    def n_prompts(self) -> int:
        """Number of prompts in a round."""
        return len(self._wants)

    def run(self) -> None:
        """Encode all images, decode all prompts, and note the seconds of each."""
        began = self._now()
        embeddings = self.model.embed(self.images)
        encoded = self._now()
        sees = self.model.spec.sees_target
        self.model.predict([Request(embeddings[i], p, target=t if sees else None) for i, t, p in self._wants])
        self.encode.append(encoded - began)
        self.decode.append(self._now() - encoded)

    def forget(self) -> None:
        """Begin the measurement anew."""
        self.encode.clear()
        self.decode.clear()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)

    def _now(self) -> float:
        """Return the time at which the device has done all that was asked of it."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _prompts(target: Mask, accepts: frozenset[str]) -> list[Prompt]:
    """Return a point and a box on a target, or what of the two a model takes."""
    rng = prompts.generator(0, IMAGES_FROM.name, "", 0)
    points = prompts.point_largest(target, rng) if "points" in accepts else ()
    return [*points, *(prompts.box_all(target, rng) if "boxes" in accepts else ())]


def measured(rounds: Rounds, runtime: Runtime) -> Speed:
    """Return the medians of the rounds so far, and where they were measured."""
    return Speed(
        model=rounds.model.spec.name,
        device=_device(runtime.device),
        dtype=runtime.dtype,
        fast=sorted(runtime.fast),
        images_per_second=len(rounds.images) / statistics.median(rounds.encode),
        ms_per_prompt=1000 * statistics.median(rounds.decode) / rounds.n_prompts,
        peak_memory=_peak_memory(runtime.device),
        n_images=len(rounds.images),
        n_prompts=rounds.n_prompts,
        date=provenance.today(),
        versions=provenance.versions(),
    )


def told(speed: Speed) -> str:
    """Return the figures in words."""
    images, prompts, memory = figures(speed)
    where = f"{speed.device}, {speed.dtype}"
    return f"{speed.model}: {images} images/s, {prompts} ms/prompt, peak memory {memory} ({where})"


def figures(speed: Speed) -> tuple[str, str, str]:
    """Return images per second, milliseconds per prompt and peak memory as they are shown.

    More images than any encoder takes say that there is none, and are given as a bound.
    """
    images = speed.images_per_second
    shown = _shown(images) if images <= _NO_ENCODER else f"over {_NO_ENCODER}"
    return shown, _shown(speed.ms_per_prompt), f"{speed.peak_memory / 2**30:.2f} GiB"


def _shown(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _device(device: str) -> str:
    name = provenance.device_name(device)
    if device.startswith("cuda"):
        return name
    import torch

    count = torch.get_num_threads()
    return f"{name}, {count} {'thread' if count == 1 else 'threads'}"


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def write(results: Path, speed: Speed) -> Path:
    """Keep the figures beside the model's scores and return the file."""
    words = re.sub(r"[^a-z0-9]+", "_", speed.device.lower()).strip("_")
    path = results / speed.model / _FOLDER / f"{'-'.join([words, speed.dtype, *speed.fast])}.json"
    document = {"schema": SPEED_SCHEMA, **dataclasses.asdict(speed)}
    write_text(path, json.dumps(document, indent=2) + "\n")
    return path


def files(results: Path) -> list[Path]:
    """Return the files with figures in a results folder, sorted."""
    return sorted(results.glob(f"*/{_FOLDER}/*.json"))


def read(path: Path) -> Speed:
    """Return the figures in a file that `write` has written.

    Raises:
        ResultsError: it holds anything else.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema") != SPEED_SCHEMA:
            raise ValueError("another schema")
        found = Speed(**document)
        if not (found.images_per_second > 0 and found.ms_per_prompt > 0 and found.model == path.parents[1].name):
            raise ValueError("no speed of this model")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(f"{path} holds no figures of speed ({error}); measure again with -k test_speed.") from error
    return found
