"""One case in one prompt mode: what the model is asked, and the rows that its answers give.

A trajectory is a generator: it yields what it wants decoded, is sent the answers, and returns rows. It knows nothing of
batches, of other cases, or of where rows go.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from promptseg import prompts
from promptseg.errors import CaseError, ModelError, PromptsegError
from promptseg.evaluation import grid as everything
from promptseg.evaluation import metrics
from promptseg.evaluation.batches import is_out_of_memory
from promptseg.registry.references import resolve
from promptseg.results.rows import ResultRow
from promptseg.samples import Samples
from promptseg.segmenter import Mask, Prediction, Prompt
from promptseg.specs import PromptMode, TaskSpec


class Target(NamedTuple):
    """A task's object in one image: (H, W) bool, its number of components, and its part of the image's pixels.

    Without an object the mask is empty and both numbers are 0; only modes that ask by name are given such a target.
    """

    mask: Mask
    n_components: int
    area_fraction: float


class Ask(NamedTuple):
    """A prompt to decode, with the state and the candidate of the previous answer that it corrects; see `Request`."""

    prompt: Prompt
    state: Any = None
    candidate: int = 0
    stability: bool = False


class Answer(NamedTuple):
    """A checked prediction and the seconds it took."""

    prediction: Prediction
    seconds: float


_OUT_OF_MEMORY = (
    "(Not even this case alone fits into memory. End what else uses the device, or try --seg-dtype bfloat16, "
    "--seg-device cpu or a smaller model.)"
)
Trajectory = Generator[tuple[Ask, ...], tuple[Answer, ...], list[ResultRow]]
Keep = Callable[[int, Sequence[Prediction]], None]
"""Called with the number of the click (0 for static modes) and the answers to the prompts of one row."""


def trajectory(
    base: ResultRow, task: TaskSpec, mode: PromptMode, target: Target, seed: int, keep: Keep, repeat: int = 0
) -> Trajectory:
    """Yield questions, receive answers, return the rows of one case in one prompt mode.

    Args:
        base: case and subject; what the target tells is filled in here.
        task: its name, with the case and the seed, decides what prompts are drawn.
        mode: says which prompts.
        target: the object.
        seed: of the prompts.
        keep: given all answers.
        repeat: which drawing of the prompts; see `promptseg.prompts.generator`.

    Raises:
        ModelError: the mode simulates something that is no prompt.
    """
    base = dataclasses.replace(
        base, repeat=repeat, n_components=target.n_components, area_fraction=target.area_fraction
    )
    simulate = resolve(mode.simulate)

    def rng(step: int) -> np.random.Generator:
        return prompts.generator(seed, task.name, base.case_id, step, repeat)

    if mode.iterative:
        return (yield from _clicks(base, mode, target.mask, rng, simulate, keep))
    if mode.grid:
        return (yield from _everything(base, mode, target.mask, simulate, keep))
    return (yield from _static(base, mode, target.mask, rng, simulate, keep))


def failed(samples: Samples, case_id: str, error: Exception) -> ResultRow:
    """Return the row of a case that could not be scored, which says why."""
    problem = error.problem if isinstance(error, CaseError) else _in_words(error)
    return ResultRow(case_id=case_id, subject_id=samples.subject(case_id), error=problem)


def _in_words(error: Exception) -> str:
    if isinstance(error, PromptsegError):
        return str(error)
    words = f"{type(error).__name__}: {error}"
    return f"{words} {_OUT_OF_MEMORY}" if is_out_of_memory(error) else words


def _static(
    base: ResultRow,
    mode: PromptMode,
    target: Mask,
    rng: Callable[[int], np.random.Generator],
    simulate: Callable[..., tuple[Prompt, ...]],
    keep: Keep,
) -> Trajectory:
    """Ask once, for all prompts."""
    wants = _checked(mode, simulate(target, rng(0)))
    answers = yield tuple(map(Ask, wants))
    predictions = tuple(a.prediction for a in answers)
    keep(0, predictions)
    return [_row(base, wants, metrics.choose(predictions, target), _seconds(answers))]


def _clicks(
    base: ResultRow,
    mode: PromptMode,
    target: Mask,
    rng: Callable[[int], np.random.Generator],
    simulate: Callable[..., Prompt],
    keep: Keep,
) -> Trajectory:
    """Click after click; the guide says which mask shows the errors, and which one the model goes on from."""
    rows: list[ResultRow] = []
    guide = mode.guide or "first"
    clicks, choice, last = Prompt(), None, None
    for step in range(mode.steps):
        following = simulate(target, choice.masks[guide] if choice else None, clicks, rng(step))
        (following,) = _checked(mode, (following,))
        seconds = 0.0
        if choice is None or following.key != clicks.key:  # without an error left, the last answer stands
            answers = yield (Ask(following, last.state if last else None, choice.candidate[guide] if choice else 0),)
            last, seconds = answers[0].prediction, _seconds(answers)
            choice = metrics.choose((last,), target)
        keep(step + 1, (last,) if last else ())
        clicks = following
        rows.append(dataclasses.replace(_row(base, (clicks,), choice, seconds), click=step + 1))
    return rows


def _everything(
    base: ResultRow, mode: PromptMode, target: Mask, simulate: Callable[..., Iterable[Prompt]], keep: Keep
) -> Trajectory:
    """Ask for a whole grid, some points at a time. It is the same for all targets of an image: decoded once for all."""
    found, seconds = everything.GridMasks(), 0.0
    grid = iter(simulate(target.shape, mode.grid))
    while some := tuple(islice(grid, everything.TOGETHER)):
        answers = yield tuple(Ask(prompt, stability=True) for prompt in _checked(mode, some))
        seconds += _seconds(answers)
        for answer in answers:
            found.add(answer.prediction)
    prediction = found.prediction((target.shape[0], target.shape[1]))
    keep(0, (prediction,))
    row = _row(base, (), metrics.choose((prediction,), target), seconds)
    coverage = metrics.coverage(prediction.masks, target)
    return [dataclasses.replace(row, prompts=json.dumps([{"grid": mode.grid}]), coverage=coverage)]


def _checked(mode: PromptMode, wants: object) -> tuple[Prompt, ...]:
    """Return copies of the prompts that a mode simulated: what is asked, stored and compared is the same for good."""
    if not isinstance(wants, tuple) or not wants or not all(isinstance(p, Prompt) for p in wants):
        raise ModelError(f"prompt mode {mode.name!r} simulated {wants!r}; it must return promptseg.Prompt objects.")
    return tuple(prompt.sealed() for prompt in wants)


def _seconds(answers: tuple[Answer, ...]) -> float:
    return sum(answer.seconds for answer in answers)


def _row(base: ResultRow, wants: tuple[Prompt, ...], choice: metrics.Choice, seconds: float) -> ResultRow:
    asked = dataclasses.replace(base, prompts=json.dumps([_prompt_as_json(p) for p in wants]), seconds=seconds)
    if base.n_components == 0:  # no object, hence no overlap with it: such a row says that the model was asked
        return dataclasses.replace(asked, predicted_iou=choice.predicted_iou)
    return dataclasses.replace(
        asked,
        iou_first=choice.iou["first"],
        iou_confident=choice.iou["confident"],
        iou_oracle=choice.iou["oracle"],
        predicted_iou=choice.predicted_iou,
        candidate_iou=choice.candidate_iou if len(wants) == 1 else None,
    )


def _prompt_as_json(prompt: Prompt) -> dict[str, Any]:
    return {
        "points_xy": prompt.points_xy.tolist(),
        "labels": prompt.labels.tolist(),
        "box_xyxy": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
    }
