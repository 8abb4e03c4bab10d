"""The contract of a model: what it gets and what it returns.

Coordinates are pixels of the image with the origin at the centre of the top left pixel, x to the right, y down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from promptseg.errors import ModelError
from promptseg.specs import ModelSpec

Image = npt.NDArray[np.uint8]
"""An image: (H, W, 3) uint8, RGB."""
Mask = npt.NDArray[np.bool_]
"""A mask: (H, W) bool."""


def sealed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy that stays read-only: no flag can make it writable, as its memory is a bytes object."""
    return np.ndarray(array.shape, array.dtype, array.tobytes())


def _no_points() -> npt.NDArray[np.float32]:
    return np.zeros((0, 2), dtype=np.float32)


def _no_labels() -> npt.NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a user would mark in an image: points, a box, or both.

    Attributes:
        points_xy: (N, 2) float32, pixel centres; N = 0 for a box alone.
        labels: (N,) int, 1 for foreground, 0 for background.
        box_xyxy: (4,) float32, first and last column and row of the box, both inclusive; None for points alone.
    """

    points_xy: npt.NDArray[np.float32] = field(default_factory=_no_points)
    labels: npt.NDArray[np.int64] = field(default_factory=_no_labels)
    box_xyxy: npt.NDArray[np.float32] | None = None

    @property
    def key(self) -> bytes:
        """Bytes that are equal for equal prompts, and for no others."""
        box = b"" if self.box_xyxy is None else self.box_xyxy.tobytes()
        return self.points_xy.tobytes() + b"|" + self.labels.tobytes() + b"|" + box

    def sealed(self) -> Prompt:
        """Return a copy with arrays of its own that nobody can write to; see `sealed`."""
        box = None if self.box_xyxy is None else sealed(self.box_xyxy)
        return Prompt(sealed(self.points_xy), sealed(self.labels), box)


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt to decode.

    Attributes:
        embedding: what `Segmenter.embed` returned for the image.
        prompt: the prompt.
        state: `Prediction.state` of the previous prediction on this object; None for the first prompt, and always for a
            model whose spec does not accept ``feedback``.
        target: (H, W) bool for a model whose spec says ``sees_target``; None for all others.
        candidate: index of the previous prediction's mask that this prompt corrects; 0 for the first prompt.
        stability: whether `Prediction.stability` is needed; only for a model whose spec accepts ``everything``.
    """

    embedding: Any
    prompt: Prompt
    state: Any = None
    target: Mask | None = None
    candidate: int = 0
    stability: bool = False


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's answer to one request: M candidate masks.

    Attributes:
        masks: (M, H, W) bool at the image's size; at least one.
        predicted_iou: (M,) float32, the model's own estimate of each mask's IoU; None if it makes none.
        state: anything; returned to a model that accepts ``feedback`` in the next request on the same object.
        stability: (M,) float32 in [0, 1]: IoU of the mask cut one logit above its threshold with the mask cut one logit
            below. Required where the request asks for it, else None.
    """

    masks: npt.NDArray[np.bool_]
    predicted_iou: npt.NDArray[np.float32] | None = None
    state: Any = None
    stability: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Device, dtype and fast paths that a model is loaded for.

    Attributes:
        device: as torch names it, for example ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        fast: the fast paths to use, by their names in ``--seg-fast``. A model raises `ConfigError` for one that it does
            not have; a model without a network ignores them.
    """

    device: str = "cpu"
    dtype: str = "float32"
    fast: frozenset[str] = frozenset()


class Segmenter(Protocol):
    """A promptable segmentation model.

    `embed` and `predict` are called from one thread. A model may also have a method ``prepare_image(image)``, which
    other threads call ahead of time: `embed` then gets its results in place of the images.

    Attributes:
        spec: the spec that it was loaded with.
    """

    spec: ModelSpec

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return one embedding for each image: the expensive part, which does not depend on the prompt.

        A model without such a part returns the images.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
        """

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Return one prediction for each request, in order; requests on different images may share a batch."""


@runtime_checkable
class PackingSegmenter(Segmenter, Protocol):
    """A model whose embeddings can be stored, so that later runs need no encoder (``--seg-embedding-cache``)."""

    def pack_embedding(self, embedding: Any) -> Mapping[str, npt.NDArray[Any]]:
        """Return as arrays (no dtype object) all of an embedding that does not follow from the image's size."""

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        """Return the embedding; predictions from it must not differ in a single bit. The arrays are read-only."""


class SingleImageSegmenter(ABC):
    """Base class for a model written for one image and one prompt at a time.

    Subclasses define `segment`; `embed` passes the images through.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return the images themselves."""
        return list(images)

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Call `segment` for each request."""
        return [self.segment(r.embedding, r.prompt, r.state) for r in requests]

    @abstractmethod
    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return the prediction for one prompt on one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            prompt: the prompt.
            state: `Prediction.state` of the previous prediction on this object, or None; see `Request`.
        """


def snapshot(model: str, answer: object) -> Prediction:
    """Return an answer as it is now: each attribute is read once, and nothing of it is checked or copied.

    Raises:
        ModelError: it is no `Prediction`.
    """
    if not isinstance(answer, Prediction):
        raise ModelError(f"model {model!r} returned {type(answer).__name__}, not promptseg.Prediction.")
    return Prediction(answer.masks, answer.predicted_iou, answer.state, answer.stability)


def check_prediction(model: str, prediction: object, size_hw: tuple[int, int]) -> Prediction:
    """Return a copy of ``prediction`` if it meets the contract for an image of ``size_hw``.

    The arrays of the copy are its own, so that a model may use its memory again; a mask's bytes are 0 or 1, whatever
    byte the model wrote for True. The state is handed on as it is.

    Raises:
        ModelError: wrong type, shape or dtype, no candidate, or predicted IoUs or stabilities that are not finite.
    """
    given = snapshot(model, prediction)
    masks: object = given.masks
    if type(masks) is not np.ndarray or masks.dtype != np.bool_:
        raise ModelError(
            f"model {model!r} returned masks of type {_kind(masks)}; they must be a numpy array of bool{_plain(masks)}."
        )
    if masks.ndim != 3 or masks.shape[0] < 1 or masks.shape[1:] != size_hw:
        raise ModelError(
            f"model {model!r} returned masks of shape {masks.shape}; "
            f"for this image they must be (M, {size_hw[0]}, {size_hw[1]}) with M of at least 1."
        )
    return Prediction(
        np.not_equal(masks.view(np.uint8), 0, order="C"),
        _checked_numbers(model, "predicted_iou", given.predicted_iou, len(masks)),
        given.state,
        _checked_numbers(model, "stability", given.stability, len(masks)),
    )


def _checked_numbers(model: str, name: str, numbers: object, n_masks: int) -> npt.NDArray[Any] | None:
    """Return a copy of ``numbers``; raise `ModelError` unless it is None or a finite number for each candidate."""
    if numbers is None:
        return None
    if type(numbers) is not np.ndarray or not np.issubdtype(numbers.dtype, np.floating):
        raise ModelError(
            f"model {model!r} returned {name} of type {_kind(numbers)}; it must be a float32 array{_plain(numbers)}."
        )
    if numbers.shape != (n_masks,):
        raise ModelError(f"model {model!r} returned {name} of shape {numbers.shape} for {n_masks} candidate masks.")
    copied = numbers.copy()
    if not np.isfinite(copied).all():
        raise ModelError(f"model {model!r} returned {name} with NaN or infinity: {copied.tolist()}.")
    return copied


def _kind(found: object) -> str:
    """Return what was found in a word: the dtype of an array, the class of anything else."""
    return str(found.dtype) if type(found) is np.ndarray else type(found).__name__


def _plain(found: object) -> str:
    """Return what to do with an array of a subclass, which may mean something else by its elements."""
    if type(found) is np.ndarray or not isinstance(found, np.ndarray):
        return ""
    return " itself, no subclass of it: return .filled(False) of a masked array, numpy.asarray(...) of another"
