"""What is handed to a model and what comes back: one by one, where the loop is not needed to see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.unruly import Honest, Scans, Unruly

from promptseg.errors import ModelError
from promptseg.evaluation.boundary import Boundary, Query, torch_may_read
from promptseg.evaluation.witness import Witness, arrays_in, share_memory
from promptseg.segmenter import Prediction, Prompt, Request, sealed

BOX = Prompt(box_xyxy=np.array([2, 2, 9, 9], dtype=np.float32))


@torch_may_read()
def asked(model: Honest, prompts: list[Prompt]) -> list[Prediction]:
    """Ask about two pictures in one batch, each prompt of each."""
    boundary, samples = Boundary(model), Scans(2)
    images = [sealed(samples.image(case_id)) for case_id in samples.ids()]
    encoded = boundary.embed([boundary.prepare(image) for image in images])
    return boundary.predict(
        [Query(e, image.shape[:2], p) for p in prompts for e, image in zip(encoded, images, strict=True)]
    )


def test_everything_that_is_handed_out_is_read_only() -> None:
    """No flag and no base gives writability back."""
    seen: list[Request] = []

    class Looking(Honest):
        def answer(self, request: Request) -> Any:
            seen.append(request)
            return super().answer(request)

    asked(Looking(), [BOX, Prompt(np.ones((2, 2), np.float32), np.ones(2, np.int64))])
    for request in seen:
        for array in (request.embedding, request.prompt.points_xy, request.prompt.labels, request.prompt.box_xyxy):
            if array is not None:
                assert not array.flags.writeable
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.setflags(write=True)
                assert isinstance(array.base, bytes)


def test_a_prompt_is_copied_for_each_call() -> None:
    """Whoever simulated it, or asks again, keeps the values."""
    given = np.array([2, 2, 9, 9], dtype=np.float32)
    asked(Unruly("scales the prompt by torch"), [Prompt(box_xyxy=given)])
    np.testing.assert_array_equal(given, [2, 2, 9, 9])


def test_views_of_one_batch_are_fine() -> None:
    """Rows of one array, and candidates that lie between each other, share no byte."""

    class Batched(Honest):
        def predict(self, requests: Any) -> Any:
            answers = super().predict(requests)
            n, (_, height, width) = len(answers), answers[0].masks.shape
            together = np.zeros((2, height, width, n), dtype=bool)
            scores = np.zeros((n, 2), dtype=np.float32)
            for i, found in enumerate(answers):
                together[..., i], scores[i] = found.masks, found.predicted_iou
            return [Prediction(together[..., i], scores[i]) for i in range(n)]

    boundary, image = Boundary(Batched()), sealed(Scans(1).image("p0_0"))
    [encoded] = boundary.embed([boundary.prepare(image)])
    query = Query(encoded, (18, 28), BOX)
    batch = boundary.predict([query] * 4)
    for found in batch:
        np.testing.assert_array_equal(found.masks, Honest().answer(query.request()).masks)
        assert found.masks.flags.c_contiguous
        assert found.masks.flags.owndata


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ("one buffer of masks", "predict() returned masks and masks of two answers in the same memory; what was there"),
        (
            "one buffer of scores",
            "predict() returned predicted_iou and predicted_iou of two answers in the same memory",
        ),
        ("draws on the image", "predict() writes to what it was given or has returned (ValueError: assignment"),
        ("draws by torch", "an embedding was changed after embed() had returned it (itself); other prompts see it too"),
        ("embed writes", "embed() changed the image that it was given; other prompts see it too: work on a copy."),
        ("wish", "masks of type Wish; they must be a numpy array of bool itself, no subclass of it"),
        ("masked", "masks of type MaskedArray; they must be a numpy array of bool itself, no subclass"),
        ("scores of a subclass", "predicted_iou of type MaskedArray; it must be a float32 array itself, no subclass"),
        ("by number", "predict() returned dict, not a list of 4 answers."),
        ("none", "predict() returned NoneType, not a list of 4 answers."),
        ("for ever", "predict() returned more than 4 answers to 4 questions."),
    ],
)
def test_what_is_refused_names_the_model_and_the_remedy(habit: str, message: str) -> None:
    """A batch of two prompts on two pictures."""
    other = Prompt(box_xyxy=np.array([1, 1, 5, 9], dtype=np.float32))
    with pytest.raises(ModelError) as caught:
        asked(Unruly(habit), [BOX, other])
    assert str(caught.value).startswith("model 'unruly'")
    assert message in str(caught.value)


def test_an_image_is_no_mask() -> None:
    """One prompt on each of two pictures: no answer lies in another's memory, but each in that of its image."""
    with pytest.raises(ModelError, match="masks in the memory of the image that it was given"):
        asked(Unruly("image as mask"), [BOX])


def test_one_embedding_for_two_images_is_refused() -> None:
    """What it holds is the last image's; what all embeddings share beside what is their own does not matter."""

    class Same(Honest):
        def encode(self, image: Any) -> Any:
            return SHARED

    with pytest.raises(ModelError, match=r"embed\(\) returned the same memory for two images"):
        asked(Same("array"), [BOX])

    class Positions(Honest):
        def encode(self, image: Any) -> Any:
            return {**super().encode(image), "positions": SHARED}

    assert len(asked(Positions("dict"), [BOX])) == 2


SHARED = np.ones((20, 30), dtype=np.float32)


class Slotted:
    """An object without a dict."""

    __slots__ = ("features",)

    def __init__(self) -> None:
        self.features = np.zeros(3)


def test_a_witness_sees_writes_wherever_the_arrays_are() -> None:
    """In containers and objects, by whatever way; what is added later, and equal copies, are nothing to see."""
    thing: dict[str, Any] = {
        "a": [np.zeros((40, 50)), (torch.zeros(3, 4, dtype=torch.bfloat16),)],
        "b": Slotted(),
        "c": np.array([np.zeros(2), None], dtype=object),
        "n": 3,
        "network": torch.nn.Linear(2, 2),
        "itself": None,
    }
    thing["itself"] = thing
    assert [path for path, _ in arrays_in(thing)] == ["['a'][0]", "['a'][1][0]", "['b'].features", "['c'][0]"]
    witness = Witness(thing)
    thing["later"] = np.zeros(2)
    thing["a"][0] = thing["a"][0].copy()
    assert witness.changed() is None
    writes: list[tuple[Callable[[], object], str]] = [
        (lambda: thing["a"][0].__setitem__((3, 4), 1), "['a'][0]"),
        (lambda: thing["a"][1][0].data.mul_(0).add_(1), "['a'][1][0]"),
        (lambda: thing["b"].features.__iadd__(1), "['b'].features"),
        (lambda: thing.pop("c"), "['c'][0]"),
    ]
    for write, where in writes:
        witness = Witness(thing)
        write()
        assert witness.changed() == where


@pytest.mark.parametrize("shape", [(5,), (64, 64, 3), (3, 301, 253)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_witness_sees_rows_that_change_places(shape: tuple[int, ...], dtype: Any) -> None:
    """A sum would be the same."""
    array = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    for view in (array, array.T, array[::-1], array[..., ::2]):
        witness = Witness(view)
        array[...] = array[::-1].copy()
        assert witness.changed() == "itself"


def test_a_write_that_torch_counts_is_seen_in_a_large_tensor() -> None:
    """Of one element, where a large tensor is looked at in parts only."""
    tensor = torch.zeros(4, 1 << 20)
    witness = Witness([tensor])
    tensor[1, 77] = 1
    assert witness.changed() == "[0]"


def test_memory_that_is_shared() -> None:
    """By the byte, not by the range; torch and NumPy alike."""
    whole = np.zeros((4, 6, 8), dtype=bool)
    assert not share_memory(whole[::2], whole[1::2])
    assert not share_memory(whole[..., 0], whole[..., 1])
    assert share_memory(whole[0], whole[:, 5])
    assert share_memory(torch.from_numpy(whole)[2], whole[2])
    assert share_memory(torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4)) is False
    assert not share_memory(whole[:0], whole)
