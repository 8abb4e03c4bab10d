"""The contract of a model: what it gets, what it returns. No implementation of a model here.

Coordinates are pixels of the image with the origin at the centre of the top left pixel, x to the right.
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

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Mask = npt.NDArray[np.bool_]  # (H, W)


def _no_points() -> npt.NDArray[np.float32]:
    return np.zeros((0, 2), dtype=np.float32)


def _no_labels() -> npt.NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a user would give for one image.

    Attributes:
        points_xy: (N, 2) float32, pixel centres.
        labels: (N,) int, 1 foreground, 0 background.
        box_xyxy: (4,) float32 or None; first and last pixel of the box, both inclusive.
    """

    points_xy: npt.NDArray[np.float32] = field(default_factory=_no_points)
    labels: npt.NDArray[np.int64] = field(default_factory=_no_labels)
    box_xyxy: npt.NDArray[np.float32] | None = None

    @property
    def key(self) -> bytes:
        """Equal for equal prompts, and only for these."""
        box = b"" if self.box_xyxy is None else self.box_xyxy.tobytes()
        return self.points_xy.tobytes() + b"|" + self.labels.tobytes() + b"|" + box


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt to decode.

    Attributes:
        embedding: what `Segmenter.embed` returned for the image.
        prompt: the prompt.
        state: the state of the previous prediction on this object. None at first, and always for a model whose spec
            does not accept ``feedback``.
        target: (H, W) bool, only for a model whose spec says ``sees_target``; None for all others.
        candidate: which mask of the previous prediction is gone on from: the one that guided this prompt. 0 at first.
        stability: whether the prediction must say how stable its masks are; only for a model whose spec accepts
            ``everything``.
    """

    embedding: Any
    prompt: Prompt
    state: Any = None
    target: Mask | None = None
    candidate: int = 0
    stability: bool = False


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model answers.

    Attributes:
        masks: (M, H, W) bool at the image's size; M = 1 is fine.
        predicted_iou: (M,) float32, the model's own estimate, or None.
        state: opaque; handed back in the next request on the same object to a model that accepts ``feedback``.
        stability: (M,) float32 in [0, 1], the IoU of each mask cut a logit above and a logit below its threshold, or
            None. Needed where a request asks for it.
    """

    masks: npt.NDArray[np.bool_]
    predicted_iou: npt.NDArray[np.float32] | None = None
    state: Any = None
    stability: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a model is loaded for.

    Attributes:
        device: as torch writes it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        fast: the fast paths to take, of those that ``--seg-fast`` knows. A model refuses with a `ConfigError` what it
            cannot take; one without a network ignores them.
    """

    device: str = "cpu"
    dtype: str = "float32"
    fast: frozenset[str] = frozenset()


class Segmenter(Protocol):
    """A promptable segmentation model.

    `embed` and `predict` are called from one thread. A model may also have a method ``prepare_image(image)``, which
    other threads call ahead of time: `embed` is then handed what it returned in place of the image.
    """

    spec: ModelSpec

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return one embedding for each image: the expensive part that no prompt enters.

        A model without such a part returns the images.
        """

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer each request; requests on different images may share a batch."""


@runtime_checkable
class PackingSegmenter(Segmenter, Protocol):
    """A model whose embeddings can be kept in files, so that later runs need no encoder (``--seg-embedding-cache``)."""

    def pack_embedding(self, embedding: Any) -> Mapping[str, npt.NDArray[Any]]:
        """Return all of an embedding that does not follow from the image's size, as arrays without objects."""

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        """Return the embedding again; predictions from it are the same to the last bit. The arrays are read-only."""


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
        """Answer one prompt on one image; ``state`` is that of the previous prediction or None."""


def check_prediction(model: str, prediction: object, size_hw: tuple[int, int]) -> Prediction:
    """Return ``prediction`` if it keeps the contract for an image of ``size_hw``.

    Raises:
        ModelError: wrong type, shape or dtype, no candidate, or predicted IoUs or stabilities that are not finite.
    """
    if not isinstance(prediction, Prediction):
        raise ModelError(f"model {model!r} returned {type(prediction).__name__}, not promptseg.Prediction.")
    masks: object = prediction.masks
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_:
        found = masks.dtype if isinstance(masks, np.ndarray) else type(masks).__name__
        raise ModelError(f"model {model!r} returned masks of type {found}; they must be a numpy array of bool.")
    if masks.ndim != 3 or masks.shape[0] < 1 or masks.shape[1:] != size_hw:
        raise ModelError(
            f"model {model!r} returned masks of shape {masks.shape}; "
            f"for this image they must be (M, {size_hw[0]}, {size_hw[1]}) with M of at least 1."
        )
    for name in ("predicted_iou", "stability"):
        _check_numbers(model, name, getattr(prediction, name), len(masks))
    return prediction


def _check_numbers(model: str, name: str, numbers: object, n_masks: int) -> None:
    """Raise `ModelError` unless ``numbers`` is None or a finite number for each candidate."""
    if numbers is None:
        return
    if not isinstance(numbers, np.ndarray) or not np.issubdtype(numbers.dtype, np.floating):
        found = numbers.dtype if isinstance(numbers, np.ndarray) else type(numbers).__name__
        raise ModelError(f"model {model!r} returned {name} of type {found}; it must be a float32 array.")
    if numbers.shape != (n_masks,):
        raise ModelError(f"model {model!r} returned {name} of shape {numbers.shape} for {n_masks} candidate masks.")
    if not np.isfinite(numbers).all():
        raise ModelError(f"model {model!r} returned {name} with NaN or infinity: {numbers.tolist()}.")
