"""Whether a model answers a question the same in any company: alone, in a batch, after other images and other prompts.

What a model keeps between its calls shows in no single answer. So the same questions are asked three times: one by one,
as soon as their image is encoded, alone; all images encoded and all questions asked together, in another order; and one
by one again, backwards, after everything else. A model that is a function of image and prompt gives the same three
times, but for the noise of floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from promptseg.errors import NoAnswerError
from promptseg.evaluation.batches import BatchSize, answered, is_out_of_memory
from promptseg.evaluation.boundary import Boundary, BoundaryError, Encoded, Query, State, torch_may_read
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Segmenter, sealed

SAME_PIXELS = 0.002  # part of the pixels that may flip with the batch: sums in another order near a threshold
SAME_OBJECT = 0.25  # part of two masks' union that may flip, of small objects in large images
_FEW = 16  # pixels that may flip, however small the object
SAME_IOU = 0.01  # how far a predicted IoU or a stability may move with the batch
ADVICE = (
    "an answer follows from the image and the prompt alone: keep nothing between calls, no current image and no last "
    "prompt; answer each request from its own embedding, and seed what is drawn at random in every call"
)
_TOGETHER = 32  # questions in a batch


class Question(NamedTuple):
    """A prompt, what to call it in a message, the target for a model that sees it, whether stability is asked for."""

    prompt: Prompt
    what: str
    target: Mask | None = None
    stability: bool = False


class Scene(NamedTuple):
    """An (H, W, 3) uint8 image, what to call it in a message, and what is asked about it."""

    name: str
    image: Image
    questions: Sequence[Question]


class Dissent(NamedTuple):
    """What came of it.

    Attributes:
        compared: number of answers that were compared; 0 for a model that answered nothing.
        problem: what differed, or broke the contract, in words; empty where nothing did.
        is_breach: whether the model broke the contract, and the problem says what to do; else its answers differ.
    """

    compared: int
    problem: str
    is_breach: bool = False


_Images = Sequence[Encoded | Exception]
"""By the index of the scene."""
_Answers = dict[tuple[int, int, bool], Prediction | Exception]
"""By the index of the scene, that of the question, and whether the state of an answer was handed back."""


@torch_may_read()
def dissent(model: Segmenter, scenes: Sequence[Scene], seed: int, *, noise: float = 1.0) -> Dissent:
    """Ask about some scenes in three kinds of company, and compare the answers.

    Questions that a model fails on in any company are left to the evaluation, which reports them; but for what
    `BoundaryError` is about, which it need not notice.

    Args:
        model: asked through the same boundary as in an evaluation. Each scene is encoded twice.
        scenes: at least two, or there is no company; two of one size find more.
        seed: of the order in company.
        noise: factor of the tolerances, for computations below float32.
    """
    asker = _Asker(Boundary(model), scenes)
    encoded: list[Encoded | Exception] = []
    alone: _Answers = {}
    for i in range(len(scenes)):
        encoded += asker.encoded([i])
        alone |= asker.one_by_one(encoded, [(i, j) for j in range(len(scenes[i].questions))])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(scenes)).tolist()
    beside = dict(zip(order, asker.encoded(order), strict=True))
    shuffled = [asker.all()[i] for i in rng.permutation(len(asker.all()))]
    company = asker.together([beside[i] for i in range(len(scenes))], shuffled)
    again = asker.one_by_one(encoded, asker.all()[::-1], states=alone)
    compared = 0
    for found, where in ((company, "in a batch with others"), (again, "alone again, after other images and prompts")):
        for key, first in alone.items():
            what = asker.name(key)
            outcome = found.get(key, first)
            if isinstance(first, Exception) or isinstance(outcome, Exception):
                if breach := _breach(first, outcome):
                    return Dissent(compared, f"{what}, {where}: {breach}", is_breach=True)
                if problem := _failing(first, outcome):
                    return Dissent(compared, f"{what}: {problem} ({where})")
                continue
            compared += 1
            if problem := difference(first, outcome, noise):
                return Dissent(compared, f"{what}: {problem} ({where}, against alone)")
    return Dissent(compared, "")


def _breach(*outcomes: Prediction | Exception) -> str:
    """Return what an answer broke the contract with, which an evaluation need not notice: the images may be others."""
    return next((str(outcome) for outcome in outcomes if isinstance(outcome, BoundaryError)), "")


def _failing(first: Prediction | Exception, outcome: Prediction | Exception) -> str:
    """Return what is said of a question that failed in one company alone."""
    errors = [found for found in (first, outcome) if isinstance(found, Exception)]
    if any(isinstance(error, NoAnswerError) for error in errors):  # nothing that could differ
        return ""
    if len(errors) == 2 or is_out_of_memory(errors[0]):  # memory is short in company, which is no fault of the answer
        return ""
    met = "fails, and is answered alone" if errors[0] is outcome else "is answered, and fails alone"
    return f"{met}: {type(errors[0]).__name__}: {errors[0]}"


class _Asker:
    """Asks the questions of some scenes."""

    def __init__(self, boundary: Boundary, scenes: Sequence[Scene]) -> None:
        self._boundary = boundary
        self._scenes = scenes

    def all(self) -> list[tuple[int, int]]:
        """Return all questions, by the index of the scene and their own."""
        return [(i, j) for i, scene in enumerate(self._scenes) for j in range(len(scene.questions))]

    def name(self, key: tuple[int, int, bool]) -> str:
        """Return what to call an answer in a message."""
        i, j, fed_back = key
        scene = self._scenes[i]
        return f"{scene.questions[j].what} on {scene.name}{', with a state' if fed_back else ''}"

    def encoded(self, scenes: Sequence[int]) -> list[Encoded | Exception]:
        """Encode scenes together."""
        images = [self._scenes[i].image for i in scenes]
        return answered(self._embed, images, BatchSize(len(images), len(images)))

    def _embed(self, images: Sequence[Image]) -> list[Encoded]:
        return self._boundary.embed([self._boundary.prepare(sealed(image)) for image in images])

    def _query(self, encoded: Encoded, i: int, j: int, state: State | None) -> Query:
        question, (height, width) = self._scenes[i].questions[j], self._scenes[i].image.shape[:2]
        target = question.target if self._boundary.sees_target else None
        return Query(encoded, (height, width), question.prompt, state, target, stability=question.stability)

    def one_by_one(
        self,
        encoded: _Images,
        questions: Sequence[tuple[int, int]],
        states: _Answers | None = None,
    ) -> _Answers:
        """Ask each question alone, then with the state that it has left, or with the one that it had left before."""
        found: _Answers = {}
        for i, j in questions:
            found |= self.together(encoded, [(i, j)], states)
        return found

    def together(
        self, encoded: _Images, questions: Sequence[tuple[int, int]], states: _Answers | None = None
    ) -> _Answers:
        """Ask questions together, then all again that left a state, with it."""
        found = self._asked(encoded, [(i, j, None) for i, j in questions])
        left = [(i, j, _state((found if states is None else states).get((i, j, False)))) for i, j in questions]
        return found | self._asked(encoded, [(i, j, state) for i, j, state in left if state is not None])

    def _asked(self, encoded: _Images, questions: Sequence[tuple[int, int, State | None]]) -> _Answers:
        """Return the answers to a batch; of an image that could not be encoded its error."""
        found: _Answers = {}
        queries: list[Query] = []
        for i, j, state in questions:
            image = encoded[i]
            if isinstance(image, Exception):
                found[i, j, state is not None] = image
            else:
                queries.append(self._query(image, i, j, state))
        keys = [(i, j, state is not None) for i, j, state in questions if not isinstance(encoded[i], Exception)]
        for start in range(0, len(queries), _TOGETHER):
            some = queries[start : start + _TOGETHER]
            answers = answered(self._boundary.predict, some, BatchSize(_TOGETHER, _TOGETHER))
            found.update(zip(keys[start : start + _TOGETHER], answers, strict=True))
        return found


def _state(answer: Prediction | Exception | None) -> State | None:
    return answer.state if isinstance(answer, Prediction) else None


def difference(one: Prediction, other: Prediction, noise: float = 1.0) -> str:
    """Return what differs between two answers to one question, in words; nothing where all is within the tolerances.

    Args:
        one: an answer.
        other: another one.
        noise: factor of the tolerances.
    """
    if one.masks.shape != other.masks.shape:
        return f"masks of shape {other.masks.shape} instead of {one.masks.shape}"
    for a, b in zip(one.masks, other.masks, strict=True):
        flipped = np.count_nonzero(a != b)
        of_object = max(_FEW, SAME_OBJECT * np.count_nonzero(a | b))
        if flipped > noise * min(SAME_PIXELS * a.size, of_object):
            return f"{flipped / a.size:.1%} of a mask's pixels ({flipped}) differ"
    for name in ("predicted_iou", "stability"):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None):
            return f"{name} is there once and once not"
        if a is not None and (moved := float(np.abs(a - b).max())) > noise * SAME_IOU:
            return f"{name} moves by {moved:.3f}"
    return ""
