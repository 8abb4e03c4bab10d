"""An honest model of a few lines, what models do that they must not, and pictures for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from promptseg.segmenter import Image, Mask, Prediction, Request
from promptseg.specs import ModelSpec

SPEC = ModelSpec(
    name="unruly", family="test", load="unruly:load", licence="none", accepts=frozenset({"points", "boxes"})
)


class Scans:
    """Noisy pictures of 1 to 3 bright bars, from a seed; each case has a size of its own or they all have one."""

    fingerprint = "scans"

    def __init__(self, n: int, *, same_size: bool = False) -> None:
        self._cases = {f"p{i}_{i}": _scan(i, (20, 26) if same_size else (18 + i, 28 - i)) for i in range(n)}

    def ids(self) -> list[str]:
        """Return all ids."""
        return sorted(self._cases)

    def subject(self, case_id: str) -> str:
        """Return the part before the underscore."""
        return case_id.split("_")[0]

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map."""
        return self._cases[case_id][1].copy()

    def image(self, case_id: str) -> Image:
        """Return the picture itself, as data sets do that keep theirs in memory."""
        return self._cases[case_id][0]


def _scan(seed: int, size_hw: tuple[int, int]) -> tuple[Image, npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    labels = np.zeros(size_hw, dtype=np.uint8)
    for bar in range(1 + seed % 3):
        labels[3 + 5 * bar : 6 + 5 * bar, 4 + seed % 4 : 9 + seed % 7] = 1
    grey = rng.integers(20, 90, size_hw) + 120 * labels * (rng.random(size_hw) < 0.8)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), labels


class Honest:
    """The bright part of what the prompt points at, or all of it; the score of each is how bright it is.

    Args:
        keeps: what an embedding is: ``image``, ``array``, ``tensor``, ``inference`` (a tensor whose writes torch does
            not count) or ``dict``.
        spec: what it is.
    """

    def __init__(self, keeps: str = "image", spec: ModelSpec = SPEC) -> None:
        self.spec = spec
        self.keeps = keeps

    def embed(self, images: Sequence[Image]) -> Any:
        """Return one embedding for each image."""
        return [self.encode(image) for image in images]

    def encode(self, image: Image) -> Any:
        """Return the embedding of an image."""
        if self.keeps == "image":
            return image
        grey = image.mean(axis=2, dtype=np.float32)
        if self.keeps == "array":
            return grey
        with torch.inference_mode(self.keeps == "inference"):
            tensor = torch.tensor(grey)
        return {"grey": [grey], "size": grey.shape, "tensor": tensor} if self.keeps == "dict" else tensor

    def grey(self, embedding: Any) -> npt.NDArray[np.float32]:
        """Return (H, W) float32, what an embedding says about its image."""
        if self.keeps == "image":
            return np.asarray(embedding.mean(axis=2, dtype=np.float32))
        found = embedding["grey"][0] if self.keeps == "dict" else embedding
        return found.numpy().copy() if isinstance(found, torch.Tensor) else np.array(found)

    def predict(self, requests: Sequence[Request]) -> Any:
        """Answer each request by itself."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Any:
        """Return two candidates."""
        grey = self.grey(request.embedding)
        where = region(request, grey.shape)
        masks = np.stack([where & (grey > grey[where].mean()), where])
        bright = [float(grey[mask].mean()) / 255 if mask.any() else 0.0 for mask in masks]
        state = None if "feedback" not in self.spec.accepts else {"logits": np.where(masks, 1.0, -1.0)}
        return Prediction(masks, np.array(bright, dtype=np.float32), state)


def region(request: Request, size_hw: tuple[int, ...]) -> Mask:
    """Return (H, W) bool, the box or the surroundings of the foreground points, and what was fed back."""
    where = np.zeros(size_hw, dtype=np.bool_)
    if request.prompt.box_xyxy is not None:
        left, top, right, bottom = request.prompt.box_xyxy.astype(int)
        where[top : bottom + 1, left : right + 1] = True
    for (x, y), label in zip(request.prompt.points_xy.astype(int), request.prompt.labels, strict=True):
        where[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = label == 1
    if request.state is not None:
        where |= request.state["logits"][request.candidate] > 0
    where[0, 0] = True
    return where


Habit = Callable[["Unruly", Request, Prediction], Any]


class Unruly(Honest):
    """An honest model that now and then does what it must not.

    Args:
        habit: one of `HABITS`.
        how_often: part of its answers in which it does.
        seed: decides in which.
        keeps: as in `Honest`.
        spec: what it is.
    """

    def __init__(
        self, habit: str, how_often: float = 1.0, seed: int = 0, keeps: str = "image", spec: ModelSpec = SPEC
    ) -> None:
        super().__init__(keeps, spec)
        self.habit = habit
        self.how_often = how_often
        self.rng = np.random.default_rng(seed)
        self.buffers: dict[Any, Any] = {}
        self.embeddings: list[Any] = []

    def embed(self, images: Sequence[Image]) -> Any:
        """Return one embedding for each image, in the way of the habit."""
        if self.habit in OF_EMBED and self.rng.random() < self.how_often:
            return OF_EMBED[self.habit](self, images)
        found = super().embed(images)
        self.embeddings += found
        return found

    def predict(self, requests: Sequence[Request]) -> Any:
        """Answer each request, in the way of the habit."""
        answers = super().predict(requests)
        if self.habit in OF_BATCHES and self.rng.random() < self.how_often:
            return OF_BATCHES[self.habit](answers)
        return answers

    def answer(self, request: Request) -> Any:
        """Answer one request, in the way of the habit."""
        answer = super().answer(request)
        if self.habit in HABITS and self.rng.random() < self.how_often:
            return HABITS[self.habit](self, request, answer)
        return answer


# ---------------------------------------------------------------------------------------------- habits


def _draws_on_the_image(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    model.grey(request.embedding)
    if model.keeps == "image":
        request.embedding[answer.masks[0]] = 255
    return answer


def _draws_by_torch(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    for array in _numbers(request.embedding):
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
        with torch.inference_mode(tensor.is_inference()):
            tensor[:4].data.mul_(0)
    return answer


def _takes_the_flag_away(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    for array in (request.prompt.points_xy, request.prompt.labels, request.prompt.box_xyxy, request.embedding):
        if isinstance(array, np.ndarray):
            array.setflags(write=True)
            array[...] = 0
    return answer


def _scales_the_prompt(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    request.prompt.points_xy[:] += 2
    if request.prompt.box_xyxy is not None:
        request.prompt.box_xyxy[2:] += 1
    return answer


def _scales_the_prompt_by_torch(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    for array in (request.prompt.points_xy, request.prompt.box_xyxy):
        if array is not None:
            torch.from_numpy(array).mul_(0.5)
    return answer


def _changes_another_image(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    for array in _numbers(model.embeddings[int(model.rng.integers(len(model.embeddings)))]):
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
        with torch.inference_mode(tensor.is_inference()):
            tensor.data.copy_(tensor.roll(1, 0))
    return answer


def _one_buffer_of_masks(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    return dataclasses.replace(answer, masks=_buffered(model, answer.masks))


def _one_buffer_of_scores(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    return dataclasses.replace(answer, predicted_iou=_buffered(model, answer.predicted_iou))


def _buffered(model: Unruly, array: Any) -> Any:
    buffer = model.buffers.setdefault((array.shape, array.dtype), np.zeros_like(array))
    buffer[...] = array
    return buffer[:]


def _numbers(embedding: Any) -> Iterator[Any]:
    yield from [embedding["grey"][0], embedding["tensor"]] if isinstance(embedding, dict) else [embedding]


class Wish(np.ndarray):
    """An array that overlaps with whatever it is compared with."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Return what was handed in beside this one."""
        others = [np.asarray(i) for i in inputs if not isinstance(i, Wish)]
        for out in options.get("out", ()):
            out[...] = others[0] if others else True
        return options["out"][0] if "out" in options else others[0].copy() if others else np.asarray(inputs[0])


class Wavering(Prediction):
    """An answer that is another one each time it is looked at."""

    @property
    def masks(self) -> Any:
        """Return the masks, upside down from the second time on."""
        seen = self.__dict__.setdefault("_seen", [])
        seen.append(None)
        masks = self.__dict__["_masks"]
        return masks if len(seen) == 1 else masks[:, ::-1]


def _wavering(model: Unruly, request: Request, answer: Prediction) -> Prediction:
    changed = Wavering.__new__(Wavering)
    changed.__dict__.update({**answer.__dict__, "_masks": answer.masks})
    return changed


class Few(list[Any]):
    """A list that understates its length."""

    def __len__(self) -> int:
        """Return one."""
        return 1


HABITS: dict[str, Habit] = {
    "draws on the image": _draws_on_the_image,
    "draws by torch": _draws_by_torch,
    "takes the flag away": _takes_the_flag_away,
    "scales the prompt": _scales_the_prompt,
    "scales the prompt by torch": _scales_the_prompt_by_torch,
    "changes another image": _changes_another_image,
    "one buffer of masks": _one_buffer_of_masks,
    "one buffer of scores": _one_buffer_of_scores,
    "wish": lambda model, request, answer: Prediction(answer.masks.view(Wish), answer.predicted_iou),
    "masked": lambda model, request, answer: Prediction(np.ma.array(answer.masks, mask=answer.masks)),
    "scores of a subclass": lambda model, request, answer: Prediction(answer.masks, np.ma.array([0.1, 0.9])),
    "byte 255": lambda model, request, answer: dataclasses.replace(
        answer, masks=(answer.masks.view(np.uint8) * 255).view(np.bool_)
    ),
    "wavering": _wavering,
    "not finite": lambda model, request, answer: dataclasses.replace(
        answer, predicted_iou=np.array([np.nan, 1], dtype=np.float32)
    ),
    "half": lambda model, request, answer: Prediction(answer.masks[:, ::2, ::2]),
    "logits": lambda model, request, answer: Prediction(np.where(answer.masks, 1.0, -1.0)),
    "a tuple": lambda model, request, answer: (answer.masks, answer.predicted_iou),
    "image as mask": lambda model, request, answer: dataclasses.replace(
        answer,
        masks=np.broadcast_to(request.embedding[..., 0].view(np.bool_), answer.masks.shape)
        if model.keeps == "image"
        else answer.masks,
    ),
    "gives up": lambda model, request, answer: 1 / 0,
    "stops": lambda model, request, answer: next(iter(())),
}
OF_BATCHES: dict[str, Callable[[list[Any]], Any]] = {
    "lies about its length": lambda answers: Few(answers),
    "one too many": lambda answers: [*answers, answers[0]],
    "none": lambda answers: None,
    "the last is lost": lambda answers: answers[:-1],
    "for ever": lambda answers: (answer for _ in iter(int, 1) for answer in answers),
    "one by one": lambda answers: iter(answers),
    "by number": lambda answers: dict(enumerate(answers)),
    "the same for all": lambda answers: [answers[0]] * len(answers),
}


def _one_embedding(model: Unruly, images: Sequence[Image]) -> list[Any]:
    found = []
    for embedding in Honest.embed(model, images):
        whole = embedding if not isinstance(embedding, dict) else embedding["grey"][0]
        buffer = model.buffers.setdefault(tuple(whole.shape), whole * 0)
        with torch.inference_mode(isinstance(buffer, torch.Tensor) and buffer.is_inference()):
            buffer[...] = whole
        found.append(buffer if not isinstance(embedding, dict) else {**embedding, "grey": [buffer]})
    return found


def _embed_writes(model: Unruly, images: Sequence[Image]) -> list[Any]:
    found: list[Any] = Honest.embed(model, images)
    for image in images:
        torch.from_numpy(image).fill_(7)
    return found


OF_EMBED: dict[str, Callable[[Unruly, Sequence[Image]], Any]] = {
    "one embedding for all": _one_embedding,
    "embed writes": _embed_writes,
    "too few embeddings": lambda model, images: Honest.embed(model, images)[1:],
}
EVERY_HABIT = (*HABITS, *OF_BATCHES, *OF_EMBED)
