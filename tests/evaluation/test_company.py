"""The same question in several kinds of company: who passes, who does not, and what is said."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from support.unruly import SPEC, Honest, Scans, Unruly

from promptseg import prompts
from promptseg.evaluation.company import Dissent, Question, Scene, difference, dissent
from promptseg.evaluation.reading import target_in
from promptseg.segmenter import Image, Prediction, Request
from promptseg.specs import TaskSpec

FED_BACK = dataclasses.replace(SPEC, accepts=SPEC.accepts | {"feedback"})


def scenes(*, same_size: bool = True) -> list[Scene]:
    """Return three pictures with a box and a point each."""
    samples = Scans(3, same_size=same_size)
    found = []
    for case_id in samples.ids():
        target = target_in(TaskSpec(name="bars", labels=(1,)), samples.labels(case_id)).mask
        rng = np.random.default_rng(0)
        [box], [point] = prompts.box_all(target, rng), prompts.point_largest(target, rng)
        asked = [Question(box, "box", target), Question(point, "point", target)]
        found.append(Scene(f"picture {case_id}", samples.image(case_id), asked))
    return found


class Keeping(Honest):
    """Keeps what it was given last, and answers from that."""

    kept: Any = None


class LastEmbedded(Keeping):
    """A predictor with set_image."""

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return nothing: the image is kept."""
        for image in images:
            self.kept = image
        return [None] * len(images)

    def answer(self, request: Request) -> Any:
        """Answer from the kept image."""
        return super().answer(dataclasses.replace(request, embedding=self.kept))


class LastPrompt(Keeping):
    """Goes on from the mask before, whatever that was of."""

    def answer(self, request: Request) -> Any:
        """Unite the mask with the one before, where that fits."""
        answer = super().answer(request)
        fits = self.kept is not None and self.kept.shape == answer.masks.shape
        self.kept = answer.masks | self.kept if fits else answer.masks
        return dataclasses.replace(answer, masks=self.kept.copy())


class BySize(Keeping):
    """Keeps embeddings by the size of the image, as if no two images had the same."""

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return what is kept for the size."""
        self.kept = self.kept or {}
        return [self.kept.setdefault(image.shape, image) for image in images]


class OverTheBatch(Honest):
    """Normalises scores over the batch."""

    def predict(self, requests: Sequence[Request]) -> Any:
        """Divide by the highest score of the batch."""
        answers = super().predict(requests)
        most = max(float(a.predicted_iou.max()) for a in answers)
        return [dataclasses.replace(a, predicted_iou=a.predicted_iou / np.float32(most)) for a in answers]


class OutOfOrder(Honest):
    """Sorts its batch and forgets that it did."""

    def predict(self, requests: Sequence[Request]) -> Any:
        """Answer boxes first."""
        return super().predict(sorted(requests, key=lambda r: r.prompt.box_xyxy is None))


class Drawing(Honest):
    """Draws at random, without a seed."""

    rng = np.random.default_rng(0)

    def answer(self, request: Request) -> Any:
        """Leave a fifth of the pixels out."""
        answer = super().answer(request)
        return dataclasses.replace(answer, masks=answer.masks & (self.rng.random(answer.masks.shape) < 0.8))


class StateOfTheModel(Honest):
    """Hands back a number in place of a state, and keeps the state of the last answer itself."""

    kept: Any = None

    def answer(self, request: Request) -> Any:
        """Answer from the state that is kept."""
        state = None if request.state is None else self.kept
        fits = state is None or state["logits"].shape[1:] == self.grey(request.embedding).shape
        answer = super().answer(dataclasses.replace(request, state=state if fits else None))
        self.kept = answer.state
        return dataclasses.replace(answer, state=1)


@pytest.mark.parametrize("keeps", ["image", "array", "tensor", "inference", "dict"])
@pytest.mark.parametrize("spec", [SPEC, FED_BACK], ids=["plain", "feedback"])
def test_an_honest_model_passes(keeps: str, spec: Any) -> None:
    """Each answer is compared twice: 3 pictures, 2 prompts, and as many with a state where there are any."""
    found = dissent(Honest(keeps, spec), scenes(), seed=0)
    assert found == Dissent(24 if spec is FED_BACK else 12, "")


@pytest.mark.parametrize("same_size", [True, False])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("model", [LastEmbedded, LastPrompt, OverTheBatch, Drawing])
def test_a_model_that_depends_on_company_is_found(model: Callable[[], Honest], seed: int, same_size: bool) -> None:
    """Whatever the order, and whether pictures have one size or not; the message says where and what differed."""
    found = dissent(model(), scenes(same_size=same_size), seed)
    assert found.problem.startswith(("box on picture", "point on picture"))
    assert "in a batch with others" in found.problem or "after other images and prompts" in found.problem


def test_embeddings_mixed_up_by_size_are_found() -> None:
    """Two pictures of one size show it; one picture may be kept as often as it is encoded."""
    assert "embed() returned the same memory for two images" in dissent(BySize(), scenes(), seed=0).problem
    assert dissent(BySize(), scenes(same_size=False), seed=0) == Dissent(12, "")


@pytest.mark.parametrize("seed", range(4))
def test_answers_out_of_order_are_found(seed: int) -> None:
    """Pictures of one size show it; others do not fit, and are asked alone, where there is no order."""
    assert "differ" in dissent(OutOfOrder(), scenes(), seed).problem


def test_a_state_that_the_model_keeps_itself_is_found() -> None:
    """A state that is handed back must be all that an answer goes on from."""
    assert "with a state" in dissent(StateOfTheModel(spec=FED_BACK), scenes(), seed=0).problem


@pytest.mark.parametrize("habit", ["one buffer of masks", "byte 255", "one by one", "scales the prompt by torch"])
def test_what_the_boundary_makes_harmless_passes(habit: str) -> None:
    """Only a model's answers count, as an evaluation sees them."""
    assert dissent(Unruly(habit), scenes(), seed=0) == Dissent(12, "")


def test_what_fails_in_any_company_is_left_to_the_evaluation() -> None:
    """Nothing is compared, and nothing said: the rows of the cases say it."""
    assert dissent(Unruly("gives up"), scenes(), seed=0) == Dissent(0, "")
    assert dissent(Unruly("too few embeddings"), scenes(), seed=0) == Dissent(0, "")


@pytest.mark.parametrize(
    ("habit", "problem"),
    [
        ("scales the prompt", r"predict\(\) writes to what it was given .*: work on a copy\.$"),
        ("draws by torch", r"an embedding was changed after embed\(\) had returned it .*: work on a copy\.$"),
    ],
)
def test_what_breaks_the_contract_is_told_apart(habit: str, problem: str) -> None:
    """It is no question of company, and says itself what to do."""
    found = dissent(Unruly(habit), scenes(), seed=0)
    assert found.is_breach
    assert re.search(problem, found.problem)


def test_what_fails_in_company_alone_is_found() -> None:
    """The error is part of the message."""

    class Once(Honest):
        asked = 0

        def answer(self, request: Request) -> Any:
            self.asked += 1
            if self.asked > 7:
                raise RuntimeError("the licence has expired")
            return super().answer(request)

    problem = dissent(Once(), scenes(), seed=0).problem
    assert "fails, and is answered alone: RuntimeError: the licence has expired" in problem


def answer(masks: Any, scores: Any = None, stability: Any = None) -> Prediction:
    """Return an answer with float32 scores."""
    numbers = [None if n is None else np.array(n, dtype=np.float32) for n in (scores, stability)]
    return Prediction(np.asarray(masks), numbers[0], None, numbers[1])


def test_noise_is_no_difference_and_a_small_object_elsewhere_is_one() -> None:
    """A few pixels at a boundary may flip; of an object that is small in its image not most of it."""
    whole = np.zeros((1, 200, 200), dtype=bool)
    whole[0, 20:80, 20:80] = True
    shifted = whole.copy()
    shifted[0, 20, 20:50] = False
    assert difference(answer(whole), answer(shifted)) == ""
    small, elsewhere = np.zeros_like(whole), np.zeros_like(whole)
    small[0, 5:10, 5:10], elsewhere[0, 50:55, 50:55] = True, True
    assert difference(answer(small), answer(elsewhere)) == "0.1% of a mask's pixels (50) differ"
    assert difference(answer(whole), answer(small)).endswith("differ")


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (answer(np.ones((1, 4, 4), bool)), answer(np.ones((2, 4, 4), bool)), "masks of shape (2, 4, 4) instead of"),
        (answer(np.ones((1, 4, 4), bool), [0.5]), answer(np.ones((1, 4, 4), bool)), "predicted_iou is there once"),
        (answer(np.ones((1, 4, 4), bool), [0.5]), answer(np.ones((1, 4, 4), bool), [0.6]), "moves by 0.100"),
        (
            answer(np.ones((1, 4, 4), bool), None, [0.9]),
            answer(np.ones((1, 4, 4), bool), None, [0.8]),
            "stability moves",
        ),
    ],
)
def test_differences_are_said_in_words(one: Prediction, other: Prediction, words: str) -> None:
    """Of masks, predicted IoUs and stabilities."""
    assert words in difference(one, other)
