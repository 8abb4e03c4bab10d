"""A model's first evaluation on a machine: before its first cell counts, its answers must not depend on company.

An evaluation asks about several images and prompts at once, in an order that depends on the modes that run together. A
model that keeps a current image, a last prompt or a cache by something else than the pixels then answers differently,
and no answer by itself shows it. So the first case of the data set, its mirror image and a drawn scene are asked about
in three kinds of company (`promptseg.evaluation.company`): six images to encode. What came of it is kept for the
model's code, files and runtime in the cache, so that later runs do not ask again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptseg._scenes import TALL, WIDE
from promptseg.errors import ModelError
from promptseg.evaluation import company
from promptseg.evaluation.company import Dissent, Question, Scene
from promptseg.files import atomic, cache
from promptseg.runner.precision_guard import Probe, ProbeSet
from promptseg.segmenter import Mask, Prompt, Runtime, Segmenter
from promptseg.testing import check_spec, scene_of

FORMAT = 1  # of what is kept
N_CASES = 1  # of the data set that are asked about, each with its mirror image
MOST_QUESTIONS = 6  # about each image
BELOW_FLOAT32 = 10.0  # factor of the tolerances for other runtimes than float32 in eager mode


def dissent(model: Segmenter, probes: ProbeSet, runtime: Runtime, seed: int) -> Dissent:
    """Return what differs between a model's answers in several kinds of company, or that its spec cannot be right.

    Args:
        model: loaded for the runtime, without a cache of embeddings, which would hide its encoder.
        probes: prompts of the planned modes on the first cases; there may be none.
        runtime: of the run.
        seed: of the run.
    """
    spec = check_spec(model)
    if not spec.passed:
        return Dissent(0, spec.message, is_breach=True)
    scenes = [*(_cases(probes) or [scene_of(model, TALL)]), scene_of(model, WIDE)]
    noise = 1.0 if runtime == Runtime(device=runtime.device) else BELOW_FLOAT32
    return company.dissent(model, scenes, seed, noise=noise)


def _cases(probes: ProbeSet) -> list[Scene]:
    """Return the first cases and their mirror images: company of the same size, in which the same prompts say other."""
    scenes = []
    for case_id, image in probes.images.items():
        asked = _questions([probe for probe in probes.probes if probe.case_id == case_id])
        scenes.append(Scene(f"case {case_id!r}", image, asked))
        mirrored = [question._replace(target=_mirrored(question.target)) for question in asked]
        scenes.append(Scene(f"the mirror image of case {case_id!r}", np.ascontiguousarray(image[:, ::-1]), mirrored))
    return scenes


def _mirrored(target: Mask | None) -> Mask | None:
    return None if target is None else np.ascontiguousarray(target[:, ::-1])


def _questions(probes: Sequence[Probe]) -> list[Question]:
    """Return the different prompts of some probes, a few: of each cell its first one before the second of any."""
    found: dict[bytes, Question] = {}
    most = max((len(probe.prompts) for probe in probes), default=0)
    for i in range(most):
        for probe in probes:
            if i < len(probe.prompts) and len(found) < MOST_QUESTIONS:
                prompt: Prompt = probe.prompts[i]
                what = f"{probe.cell.task}, {probe.cell.mode}"
                found.setdefault(prompt.key, Question(prompt, what, probe.target))
    return list(found.values())


# ---------------------------------------------------------------------------------------------- what is kept


def key_of(identity: Mapping[str, Any]) -> str:
    """Return what changes when the outcome may: the model, its files, the runtime and machine, and how it is asked."""
    return hashlib.sha256(json.dumps(["conformance", FORMAT, identity], sort_keys=True).encode()).hexdigest()


def is_known(key: str) -> bool:
    """Say whether an earlier run found that the answers do not depend on company. What cannot be read is not known."""
    entry = atomic.read_json(_path(key))
    return entry.get("format") == FORMAT and entry.get("key") == key and entry.get("passed") is True


def settle(key: str, model: str, found: Dissent) -> None:
    """Keep that a model's answers do not depend on company.

    A model that answered nothing is asked again by the next run: its cells say why.

    Raises:
        ModelError: they do, or the model broke the contract; says what differed, or what it did.
    """
    if found.problem:
        what, advice = (
            "does not answer the same question the same way in any company",
            f" What to do: {company.ADVICE}.",
        )
        if found.is_breach:
            what, advice = "breaks the contract of a model", ""
        problem = found.problem.removesuffix(".")
        raise ModelError(
            f"model {model!r} {what}, so nothing was scored. {problem}.{advice} `promptseg validate --model {model}` "
            "tries more."
        )
    if found.compared:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            atomic.write_json(
                _path(key), {"format": FORMAT, "key": key, "model": model, "passed": True, "compared": found.compared}
            )


def _path(key: str) -> Path:
    return cache.cache_dir() / "conformance" / f"{key}.json"
