"""How fast a model is: the figures of ``test_speed`` and their files.

Layout, beside the scores, under the results folder::

    MODEL/.speed/DEVICE-DTYPE-FAST.json    the latest figures of the model on a device, in a dtype, with fast paths
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ResultsError
from promptseg.files.atomic import read_file, write_text
from promptseg.results import rules
from promptseg.results.rules import FaultError

SPEED_SCHEMA = 1
SPEEDS = ".speed"
"""Folder beside the results of a model."""
_NO_ENCODER = 10_000  # images in a second


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a measurement found, medians over its rounds.

    Attributes:
        model: its name.
        device: that it ran on: the name of the GPU, or the processor's architecture with the number of threads.
        dtype: of the encoder.
        fast: the fast paths that were asked for, sorted.
        images_per_second: encoded, ``n_images`` in a batch.
        ms_per_prompt: to decode ``n_prompts`` points and boxes handed over together, masks on the host.
        peak_memory: bytes; of the GPU while measuring, of the whole process where there is none.
        n_images, n_prompts: in each round.
        date: UTC, as in 2026-01-31.
        versions: of the packages that may matter.
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


def text(speed: Speed) -> str:
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


def write(results: Path, speed: Speed) -> Path:
    """Write the figures beside the model's scores and return the file. Raises `OSError`."""
    path = results / _place(speed)
    document = {"schema": SPEED_SCHEMA, **dataclasses.asdict(speed)}
    write_text(path, json.dumps(document, indent=2) + "\n")
    return path


def _place(speed: Speed) -> Path:
    """Return where figures are stored, below the results folder."""
    words = re.sub(r"[^a-z0-9]+", "_", speed.device.lower()).strip("_")
    return Path(speed.model) / SPEEDS / f"{'-'.join([words, speed.dtype, *speed.fast])}.json"


def files(results: Path) -> list[Path]:
    """Return the files with figures in a results folder, sorted."""
    return sorted(results.glob(f"*/{SPEEDS}/*.json"))


def read(path: Path) -> Speed:
    """Return the figures in a file that `write` has written.

    Raises:
        ResultsError: it holds anything else, or cannot be read.
    """
    try:
        document: dict[str, Any] = rules.loads(read_file(path).decode())
        if document.pop("schema") != SPEED_SCHEMA:
            raise FaultError("another schema")
        found = Speed(**document)
        _check(found)
        if path.relative_to(path.parents[2]) != _place(found):
            raise FaultError(f"they are of {found.model} on {found.device}, in another place")
    except (OSError, RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(f"{path} holds no figures of speed ({error}); measure again with -k test_speed.") from error
    return found


def _check(speed: Speed) -> None:
    """Raise `FaultError` for a figure that cannot be one."""
    for name in ("model", "device", "dtype", "date"):
        if not isinstance(getattr(speed, name), str):
            raise FaultError(f"{name!r} is {rules.shown(getattr(speed, name))}, no text")
    if not isinstance(speed.fast, list) or not all(isinstance(name, str) for name in speed.fast):
        raise FaultError(f"'fast' is {rules.shown(speed.fast)}, no list of texts")
    if not isinstance(speed.versions, dict) or not all(isinstance(one, str) for one in speed.versions.values()):
        raise FaultError(f"'versions' is {rules.shown(speed.versions)}, no JSON object of texts")
    for name in ("images_per_second", "ms_per_prompt"):
        value = getattr(speed, name)
        if type(value) not in (int, float) or not (value > 0 and math.isfinite(value)):
            raise FaultError(f"{name!r} is {rules.shown(value)}, no finite number above 0")
    for name in ("peak_memory", "n_images", "n_prompts"):
        value = getattr(speed, name)
        if type(value) is not int or value < 0:
            raise FaultError(f"{name!r} is {rules.shown(value)}, no whole number from 0")
