"""What all SAM adapters share: the square frame, coordinates, upsampling, batching and strict loading of weights.

An adapter supplies two functions, an encoder and a decoder of batches, and wraps them in a `SamSegmenter`. The steps
between image and mask are those of the official ``SamPredictor`` (github.com/facebookresearch/segment-anything), and
with a `SquashedFrame` those of SAM 2 and its kin, as transformers has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PilImage
from torch import Tensor
from torch.nn import functional

from promptseg.errors import ModelError
from promptseg.models._loading import (
    autocast,
    check_finite,
    dtype_of,
)
from promptseg.models.sam._packing import packed, unpacked
from promptseg.models.sam._upsampling import Steps, masks_and_stability
from promptseg.segmenter import Image, Prediction, Request, Runtime
from promptseg.specs import ModelSpec

PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, of ImageNet, in 0 to 255
PIXEL_STD = (58.395, 57.12, 57.375)
MAX_BATCH = 64  # images or prompts that share a call of the network
MASKS_AT_ONCE = 1 << 29  # bytes of masks, one for each pixel, that are made together

Features = tuple[Tensor, ...]  # what an encoder says of an image: one map, or several of different resolution
_T = TypeVar("_T")


# ---------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Frame:
    """How an image is placed in the square that the encoder sees: top left, zeros at the right and at the bottom.

    Attributes:
        image_hw: size of the image.
        side: side of the square; the longest side of the image is resized to it.
        mean: of the encoder's normalisation, RGB in 0 to 255.
        std: of the same.
    """

    image_hw: tuple[int, int]
    side: int
    mean: tuple[float, float, float] = PIXEL_MEAN
    std: tuple[float, float, float] = PIXEL_STD

    @property
    def inner_hw(self) -> tuple[int, int]:
        """Size of the resized image, halves rounded up."""
        scale = self.side * 1.0 / max(self.image_hw)
        height, width = (int(n * scale + 0.5) for n in self.image_hw)
        return height, width

    def to_inner(self, points_xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map (N, 2) xy pixels of the image to pixels of the square, computed in float64 as the official code does."""
        (height, width), (inner_height, inner_width) = self.image_hw, self.inner_hw
        scale_xy = np.array([inner_width / width, inner_height / height])
        inner: npt.NDArray[np.float32] = (points_xy * scale_xy).astype(np.float32)
        return inner

    def box_to_inner(self, box_xyxy: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Map a (4,) box, corner by corner."""
        return self.to_inner(np.asarray(box_xyxy, dtype=np.float32).reshape(2, 2)).reshape(4)

    def image_to_inner(self, image: Image) -> npt.NDArray[np.uint8]:
        """Resize an (H, W, 3) uint8 image, bilinear with the antialiasing that Pillow always does."""
        height, width = self.inner_hw
        inner = PilImage.fromarray(image).resize((width, height), PilImage.Resampling.BILINEAR)
        return np.array(inner)  # a copy: torch wants to own what it reads

    @property
    def steps(self) -> tuple[Steps, Steps]:
        """How rows and columns of logits of the whole square become those of the image: by way of the square."""
        rows, columns = (
            ((self.side, inner), (size, size)) for inner, size in zip(self.inner_hw, self.image_hw, strict=True)
        )
        return rows, columns


class SquashedFrame(Frame):
    """How SAM 2 sees an image: both sides are resized to the square's, whatever the aspect; nothing is padded."""

    @property
    def inner_hw(self) -> tuple[int, int]:
        """Size of the resized image: the square."""
        return self.side, self.side

    def image_to_inner(self, image: Image) -> npt.NDArray[np.uint8]:
        """Resize an (H, W, 3) uint8 image as torchvision does with its bytes: bilinear, antialiased."""
        pixels = torch.tensor(image).permute(2, 0, 1)[None]
        inner = functional.interpolate(pixels, self.inner_hw, mode="bilinear", align_corners=False, antialias=True)
        return inner[0].permute(1, 2, 0).numpy()

    @property
    def steps(self) -> tuple[Steps, Steps]:
        """How rows and columns of logits of the square become those of the image: at once."""
        height, width = self.image_hw
        return ((height, height),), ((width, width),)


@dataclass(frozen=True, eq=False)
class FramedImage:
    """An image as `SamSegmenter.embed` also takes it: resized already.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, of the frame's ``inner_hw``.
        frame: how the image is placed in the square.
    """

    pixels: npt.NDArray[np.uint8]
    frame: Frame

    @classmethod
    def of(cls, image: Image, frame: Frame) -> FramedImage:
        """Resize an (H, W, 3) image; Pillow lets other threads run meanwhile."""
        return cls(frame.image_to_inner(image), frame)


def encoder_input(image: FramedImage, device: torch.device) -> Tensor:
    """Return the (3, side, side) float32 input: normalised, then padded (so the padding is 0, not black)."""
    frame = image.frame
    pixels = torch.from_numpy(image.pixels).to(device).permute(2, 0, 1)
    mean = torch.tensor(frame.mean, device=device)[:, None, None]
    std = torch.tensor(frame.std, device=device)[:, None, None]
    height, width = frame.inner_hw
    return functional.pad((pixels - mean) / std, (0, frame.side - width, 0, frame.side - height))


# ---------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of B prompts of one shape, in pixels of the square.

    Attributes:
        points_xy: (B, N, 2) float32, or None for prompts of a box alone.
        labels: (B, N) int64, 1 foreground, 0 background; None with the points.
        boxes_xyxy: (B, 4) float32, or None for prompts of points alone. SAM then adds its padding point by itself.
        logits: (B, 1, 4h, 4w) float32 of the square, the masks that are fed back; None where there is none.
    """

    points_xy: Tensor | None
    labels: Tensor | None
    boxes_xyxy: Tensor | None
    logits: Tensor | None = None


@dataclass(frozen=True, eq=False)
class SamEmbedding:
    """What `SamSegmenter.embed` returns for an image.

    Attributes:
        features: float32 maps on the model's device, each (C, h, w) or (h, w, C); one of 4 MB for SAM, up to 25 MB
            in all for others.
        frame: how the image is placed in the square.
    """

    features: Features
    frame: Frame


def _shape_of(request: Request) -> tuple[int, bool, bool]:
    return len(request.prompt.points_xy), request.prompt.box_xyxy is not None, request.state is not None


def _collate(requests: Sequence[Request], device: torch.device) -> Prompts:
    """Stack the prompts of requests for which `_shape_of` is equal."""
    n_points, has_box, has_state = _shape_of(requests[0])
    frames, prompts = [r.embedding.frame for r in requests], [r.prompt for r in requests]

    def stack(arrays: Iterable[npt.NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.stack(list(arrays))).to(device)

    points = labels = boxes = logits = None
    if n_points:
        points = stack(f.to_inner(p.points_xy) for f, p in zip(frames, prompts, strict=True))
        labels = stack(p.labels.astype(np.int64) for p in prompts)
    if has_box:
        boxes = stack(f.box_to_inner(p.box_xyxy) for f, p in zip(frames, prompts, strict=True))
    if has_state:
        logits = torch.stack([r.state[r.candidate : r.candidate + 1] for r in requests])
    return Prompts(points, labels, boxes, logits)


# ---------------------------------------------------------------------------------------------- the model

Encoder = Callable[[Tensor], Features]
"""(B, 3, side, side) float32 to maps that begin with B: (B, C, h, w) for SAM."""

Decoder = Callable[[Features, Prompts], tuple[Tensor, Tensor]]
"""The encoder's maps and B prompts to (B, M, 4h, 4w) logits and (B, M) predicted IoU.

M is one where masks are fed back (the official ``multimask_output=False``), else all that the decoder has: three.

A decoder may have a method ``prepare(features) -> features``: the part of its work that no prompt enters. Then it gets,
for prompts without a mask that is fed back, what that returned in place of the features. It is called once for each
image, with a batch of one."""


def outside_graphs(encoder: Encoder, runtime: Runtime) -> Encoder:
    """Return an encoder whose answers stay as they are: a CUDA graph writes each answer over the one before."""
    if "cuda_graphs" not in runtime.fast:
        return encoder

    def copied(batch: torch.Tensor) -> Features:
        _step_begins()
        return tuple(of_level.clone() for of_level in encoder(batch))

    return copied


_step_begins: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin


class SamSegmenter:
    """A model of SAM's shape: an encoder that sees a square, a decoder that answers points and boxes.

    Boxes (both ends inclusive) go in as they are, two corner points. The candidates are SAM's three, and no mask is
    fed back, unless the spec accepts ``feedback``: then the state is the (M, 4h, 4w) logits of all candidates, and a
    request with a state has those of its candidate as SAM's mask input and a single candidate for an answer. This is
    the advice of SAM's authors (``SamPredictor.predict``): three masks for an ambiguous prompt, such as a single
    click; one mask (``multimask_output=False``) for one that is not, and the logits of the iteration before with it.

    On the CPU every image and every prompt is computed by itself: a batch would save nothing there, the kernels that it
    selects round differently, and so the answer does not depend on what else is asked. On other devices batches hold
    prompts of one shape, since padding a prompt with SAM's label -1 would change its answer.

    ``runtime.dtype`` below float32 is an autocast around the encoder, where the time goes; features are kept and
    decoded as float32, so that the logits near the threshold stay comparable.

    Args:
        spec: what the model is.
        encoder: see `Encoder`.
        decoder: see `Decoder`.
        runtime: device and dtype.
        side: side of the encoder's square in pixels.
        frame: makes the `Frame` of an image from its size and the side.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Encoder,
        decoder: Decoder,
        runtime: Runtime,
        side: int = 1024,
        frame: Callable[[tuple[int, int], int], Frame] = Frame,
    ) -> None:
        self.spec = spec
        self._encoder = outside_graphs(encoder, runtime)
        self._decoder = decoder
        self._device = torch.device(runtime.device)
        self._dtype = dtype_of(runtime)
        self._side = side
        self._frame = frame
        self._prepare: Callable[[Features], Features] | None = getattr(decoder, "prepare", None)
        self._prepared: WeakKeyDictionary[SamEmbedding, Features] = WeakKeyDictionary()

    def prepare_image(self, image: Image) -> FramedImage:
        """Resize an (H, W, 3) uint8 RGB image for `embed`, in any thread."""
        return FramedImage.of(image, self._frame((image.shape[0], image.shape[1]), self._side))

    @torch.inference_mode()
    def embed(self, images: Sequence[Image | FramedImage]) -> list[SamEmbedding]:
        """Encode (H, W, 3) uint8 RGB images of any sizes, as they are or as `prepare_image` returns them."""
        framed = [image if isinstance(image, FramedImage) else self.prepare_image(image) for image in images]
        inputs = [encoder_input(image, self._device) for image in framed]
        features = [f for batch in self._batches(inputs) for f in self._encode(torch.stack(list(batch)))]
        return [SamEmbedding(f, image.frame) for f, image in zip(features, framed, strict=True)]

    def pack_embedding(self, embedding: SamEmbedding) -> dict[str, npt.NDArray[Any]]:
        """Return the features as arrays; the frame follows from the image."""
        return packed(embedding.features)

    @torch.inference_mode()
    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> SamEmbedding:
        """Return the embedding of an (H, W, 3) image from what `pack_embedding` returned."""
        frame = self._frame((image.shape[0], image.shape[1]), self._side)
        return SamEmbedding(unpacked(arrays, self._device), frame)

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request with three candidates; with one, if it has a state or the decoder has no more."""
        predictions: dict[int, Prediction] = {}
        for group in self._groups(requests):
            answers = self._answer([requests[i] for i in group])
            predictions.update(zip(group, answers, strict=True))
        return [predictions[i] for i in range(len(requests))]

    @torch.inference_mode()
    def low_res(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
        """Return (B, M, h, w) float32 logits of the square and (B, M) predicted IoU for requests of one prompt shape.

        Raises:
            ModelError: a prompt is empty, or the model returned NaN or infinity.
        """
        prompts = _collate(requests, self._device)
        if prompts.points_xy is None and prompts.boxes_xyxy is None:
            raise ModelError(f"model {self.spec.name!r} was given a prompt without points and without a box.")
        per_request = [self._features(r.embedding, fed_back=prompts.logits is not None) for r in requests]
        features = tuple(torch.stack(of_level) for of_level in zip(*per_request, strict=True))
        logits, scores = (t.float() for t in self._decoder(features, prompts))
        check_finite(self.spec, self._device, self._dtype, logits, scores)
        return logits, scores

    def _encode(self, batch: Tensor) -> list[Features]:
        """Return the maps of each image of a (B, 3, side, side) batch."""
        with autocast(self._device, self._dtype):
            maps = self._encoder(batch)
        return list(zip(*(of_level.float() for of_level in maps), strict=True))

    def _features(self, embedding: SamEmbedding, *, fed_back: bool) -> Features:
        """Return what the decoder wants of an image; what it prepares is kept as long as the embedding lives."""
        if self._prepare is None or fed_back:
            return embedding.features
        if embedding not in self._prepared:
            prepared = self._prepare(tuple(of_level[None] for of_level in embedding.features))
            self._prepared[embedding] = tuple(part[0] for part in prepared)
        return self._prepared[embedding]

    def _answer(self, requests: Sequence[Request]) -> list[Prediction]:
        logits, scores = self.low_res(requests)
        masks: list[npt.NDArray[np.bool_]] = []
        stabilities: list[npt.NDArray[np.float32] | None] = []
        for some in _of_one_size(requests, logits.shape[1]):
            some_masks, stability = _masks_of(requests[some], logits[some])
            masks.extend(some_masks.cpu().numpy())
            stabilities.extend([None] * len(some_masks) if stability is None else stability.cpu().numpy())
        answers = zip(masks, scores.cpu().numpy(), self._states(logits), stabilities, strict=True)
        return [Prediction(*answer) for answer in answers]

    def _states(self, logits: Tensor) -> Sequence[Tensor | None]:
        """Return what to feed back: copies, so that the state of one answer does not keep those of its batch."""
        if "feedback" not in self.spec.accepts:
            return [None] * len(logits)
        return [of_one.clone() for of_one in logits]

    def _groups(self, requests: Sequence[Request]) -> list[Sequence[int]]:
        """Return indices of requests that are decoded together: of one shape, those on images of one size in a row."""
        by_shape: dict[tuple[int, bool, bool], list[int]] = {}
        for i in sorted(range(len(requests)), key=lambda i: requests[i].embedding.frame.image_hw):
            by_shape.setdefault(_shape_of(requests[i]), []).append(i)
        return [batch for indices in by_shape.values() for batch in self._batches(indices)]

    def _batches(self, items: Sequence[_T]) -> list[Sequence[_T]]:
        size = 1 if self._device.type == "cpu" else MAX_BATCH
        return [items[i : i + size] for i in range(0, len(items), size)]


def _of_one_size(requests: Sequence[Request], n_candidates: int) -> Iterator[slice]:
    """Yield runs of requests on images of one size that also want the same, as long as their masks fit in memory."""

    def wanted(request: Request) -> tuple[Frame, bool]:
        return request.embedding.frame, request.stability

    start = 0
    while start < len(requests):
        height, width = requests[start].embedding.frame.image_hw
        most = start + max(1, MASKS_AT_ONCE // (n_candidates * height * width))
        stop = start + 1
        while stop < min(most, len(requests)) and wanted(requests[stop]) == wanted(requests[start]):
            stop += 1
        yield slice(start, stop)
        start = stop


def _masks_of(requests: Sequence[Request], logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (B, M, H, W) bool and (B, M) stability for (B, M, h, w) logits on images of one size."""
    rows, columns = requests[0].embedding.frame.steps
    masks, stability = masks_and_stability(logits.flatten(0, 1), rows, columns, stability=requests[0].stability)
    masks = masks.view(*logits.shape[:2], *masks.shape[1:])
    return masks, None if stability is None else stability.view(logits.shape[:2])
