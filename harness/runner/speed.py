"""How fast a model is: the measurement behind ``test_speed``."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptseg import prompts
from promptseg.errors import UnsupportedPromptError
from promptseg.registry.entries import Registry
from promptseg.registry.references import resolve
from promptseg.results import provenance
from promptseg.results.speed import Speed
from promptseg.runner.devices import device_name
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Image, Mask, Prompt, Request, Runtime, Segmenter
from promptseg.specs import PROMPT_KINDS

IMAGES_FROM = "phantom_mri"
"""The data set that every model is measured on: in every installation, and the same everywhere."""
N_IMAGES = 4
ROUNDS = 3


@dataclass
class Rounds:
    """A model at work on the same images and prompts again and again.

    Args:
        model: what is measured.
        device: that it runs on, as torch names it.
        registry: has the data set `IMAGES_FROM`.
    """

    model: Segmenter
    device: str
    registry: Registry
    images: Sequence[Image] = field(init=False)
    encode: list[float] = field(default_factory=list, init=False)
    decode: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        dataset = self.registry.dataset(IMAGES_FROM)
        samples: Samples = resolve(dataset.load)(dataset, None)
        cases = samples.ids()[:N_IMAGES]
        self.images = [samples.image(case) for case in cases]
        targets = [target_of(dataset.tasks[0], samples.labels(case)) for case in cases]
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
    rng = prompts.generator(0, IMAGES_FROM, "", 0)
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


def _device(device: str) -> str:
    name = device_name(device)
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
