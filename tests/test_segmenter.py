"""The contract of a model: prompts that compare, the base class, and answers that are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptseg.errors import ModelError
from promptseg.segmenter import (
    Image,
    Prediction,
    Prompt,
    Request,
    Runtime,
    Segmenter,
    SingleImageSegmenter,
    check_prediction,
)
from promptseg.specs import ModelSpec

SPEC = ModelSpec(name="m", family="toy", load="toy:load", licence="MIT", accepts=frozenset({"points"}))
MASKS = np.zeros((3, 4, 5), dtype=bool)
SCORES = np.array([0.1, 0.2, 0.3], dtype=np.float32)


def prompt(*points: tuple[float, float], labels: list[int] | None = None, box: list[float] | None = None) -> Prompt:
    """Return a prompt."""
    return Prompt(
        points_xy=np.array(points, dtype=np.float32).reshape(-1, 2),
        labels=np.array([1] * len(points) if labels is None else labels, dtype=np.int64),
        box_xyxy=None if box is None else np.array(box, dtype=np.float32),
    )


def test_an_empty_prompt() -> None:
    """No point, no label, no box, with the shapes and dtypes of the contract."""
    empty = Prompt()
    assert empty.points_xy.shape == (0, 2)
    assert empty.points_xy.dtype == np.float32
    assert empty.labels.shape == (0,)
    assert empty.labels.dtype == np.int64
    assert empty.box_xyxy is None


def test_equal_prompts_have_equal_keys_and_only_these() -> None:
    """Order, labels, points and boxes all count."""
    prompts = [
        prompt(),
        prompt((1, 2)),
        prompt((2, 1)),
        prompt((1, 2), labels=[0]),
        prompt((1, 2), (3, 4)),
        prompt((3, 4), (1, 2)),
        prompt((1, 2), (3, 4), labels=[1, 0]),
        prompt((1, 2), (3, 4), labels=[0, 1]),
        prompt(box=[1, 2, 3, 4]),
        prompt(box=[0, 0, 0, 0]),
        prompt((1, 2), box=[1, 2, 3, 4]),
    ]
    assert len({p.key for p in prompts}) == len(prompts)
    assert prompt((1, 2), box=[1, 2, 3, 4]).key == prompts[-1].key


class Toy(SingleImageSegmenter):
    """Answers with the state it was given."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return one mask that is as dark as the image and remember how often."""
        return Prediction((image[..., 0] > 0)[None], None, (state or 0) + 1)


def test_the_base_class_gives_the_batching() -> None:
    """One image at a time is enough: embed passes through, predict asks for each, state is handed on."""
    images = [np.full((2, 3, 3), value, dtype=np.uint8) for value in (0, 9)]
    toy: Segmenter = Toy(SPEC)
    assert toy.spec is SPEC
    embeddings = toy.embed(images)
    assert all(a is b for a, b in zip(embeddings, images, strict=True))
    answers = toy.predict([Request(e, prompt((0, 0)), state=s) for e, s in zip(embeddings, (None, 5), strict=True)])
    assert [a.masks.all() for a in answers] == [False, True]
    assert [a.state for a in answers] == [1, 6]
    assert toy.predict([]) == []


def test_the_base_class_is_abstract() -> None:
    """A model without segment() is told at once."""
    with pytest.raises(TypeError, match="abstract"):
        SingleImageSegmenter(SPEC)  # type: ignore[abstract]


def test_the_runtime_is_the_reference_by_default() -> None:
    """CPU and float32."""
    assert Runtime() == Runtime(device="cpu", dtype="float32")


@pytest.mark.parametrize("scores", [None, SCORES, SCORES.astype(np.float64), SCORES * -10])
def test_a_good_answer_passes(scores: Any) -> None:
    """With or without predicted IoU, whose range is the model's affair."""
    answer = Prediction(MASKS, scores, state=object())
    same(check_prediction("m", answer, (4, 5)), answer)
    single = Prediction(MASKS[:1], None if scores is None else scores[:1])
    same(check_prediction("m", single, (4, 5)), single)


def same(found: Prediction, answer: Prediction) -> None:
    """An answer that was checked is a copy: equal, in memory of its own, with the very same state."""
    assert found.state is answer.state
    for one, other in ((found.masks, answer.masks), (found.predicted_iou, answer.predicted_iou)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one, other, strict=True)
            assert not np.shares_memory(one, other)


WRONG: list[tuple[Any, str]] = [
    (None, "model 'm' returned NoneType, not promptseg.Prediction."),
    (MASKS, "model 'm' returned ndarray, not promptseg.Prediction."),
    (Prediction(MASKS.astype(np.uint8)), "masks of type uint8; they must be a numpy array of bool."),
    (Prediction(MASKS.astype(np.float32)), "masks of type float32; they must be a numpy array of bool."),
    (Prediction([MASKS[0]]), "masks of type list; they must be a numpy array of bool."),  # type: ignore[arg-type]
    (Prediction(MASKS[0]), "masks of shape (4, 5); for this image they must be (M, 4, 5) with M of at least 1."),
    (Prediction(MASKS[:0]), "masks of shape (0, 4, 5); for this image they must be (M, 4, 5)"),
    (Prediction(MASKS.transpose(0, 2, 1)), "masks of shape (3, 5, 4); for this image they must be (M, 4, 5)"),
    (Prediction(MASKS[None]), "masks of shape (1, 3, 4, 5)"),
    (Prediction(MASKS, SCORES[:2]), "predicted_iou of shape (2,) for 3 candidate masks."),
    (Prediction(MASKS, SCORES[None]), "predicted_iou of shape (1, 3) for 3 candidate masks."),
    (Prediction(MASKS, SCORES.tolist()), "predicted_iou of type list; it must be a float32 array."),
    (Prediction(MASKS, SCORES.astype(object)), "predicted_iou of type object; it must be a float32 array."),
    (Prediction(MASKS, np.arange(3)), "predicted_iou of type int64; it must be a float32 array."),  # type: ignore[arg-type]
    (Prediction(MASKS, SCORES * np.nan), "predicted_iou with NaN or infinity: [nan, nan, nan]."),
    (Prediction(MASKS, SCORES * np.inf), "predicted_iou with NaN or infinity: [inf, inf, inf]."),
]


@pytest.mark.parametrize(("answer", "message"), WRONG)
def test_a_wrong_answer_is_told(answer: Any, message: str) -> None:
    """Each names the model, what came and what has to come."""
    with pytest.raises(ModelError) as caught:
        check_prediction("m", answer, (4, 5))
    assert message in str(caught.value)
    assert str(caught.value).startswith("model 'm' returned ")
