"""FocalClick at work: look at the object, segment it, then look closer at what the last click changed.

The steps, their order and their thresholds are those of the authors' ClickSEG, predictor ``FocalClick``; the module of
the networks, `promptseg.models._focalclick_net`, names the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from promptseg.errors import ConfigError, ModelError
from promptseg.models._focalclick_crops import Crop, Pixel, focus_crop, merged, object_crop
from promptseg.models._focalclick_net import FocalClickNet
from promptseg.models.sam_common import import_torchvision
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Runtime
from promptseg.specs import ModelSpec

SEEN = 0.49  # decides what the crops are cut around: a probability for the last answer, a logit for the new one
LEAST_CROP = 10  # pixels; the shortest side of the crop around the object
FOCUS_ONLY_AFTER = 10  # clicks; from then on an answer is the last one, changed in the focus crop alone
REFINER_RADIUS = 5  # of the discs, in pixels of the refiner's input
MAX_BATCH = 32


@dataclass(frozen=True)
class Settings:
    """How the networks are used.

    Attributes:
        infer_size: side in pixels of the square that both networks see.
        threshold: probability above which a pixel belongs to the object.
        click_radius: of the discs that the first network sees, in pixels of that square.
        feedback: whether the last answer goes in with the next click; without, every answer is a first one.
        object_crop: sides of the crop around the object as a multiple of those of its box, from the second click on.
        focus_crop: the same for the crop around what the last click changed; None does without the refiner.
    """

    infer_size: int
    threshold: float
    click_radius: int
    feedback: bool
    object_crop: float
    focus_crop: float | None


@dataclass(frozen=True, eq=False)
class State:
    """What the next click on the same object builds on.

    Attributes:
        probabilities: (1, 1, H, W) float32 on the model's device.
        crop: the last crop around the object, None before the first.
        mask: (H, W) bool, the last answer, where it goes back to a mask that the user brought; else None.
    """

    probabilities: Tensor
    crop: Crop | None = None
    mask: Mask | None = None

    def seen(self) -> Mask:
        """Return (H, W) bool: the object as far as it is known."""
        return _above(self.probabilities, SEEN) if self.mask is None else self.mask


@dataclass(frozen=True, eq=False)
class _Clicks:
    """All clicks on an object so far: (row, column) pixels, and whether each is foreground."""

    pixels: list[Pixel]
    positive: list[bool]

    @classmethod
    def of(cls, prompt: Prompt, size_hw: tuple[int, int]) -> _Clicks:
        columns, rows = np.rint(prompt.points_xy).astype(int).T
        inside = zip(rows.clip(0, size_hw[0] - 1).tolist(), columns.clip(0, size_hw[1] - 1).tolist(), strict=True)
        return cls(list(inside), [bool(label) for label in prompt.labels])

    @property
    def foreground(self) -> list[Pixel]:
        return [pixel for pixel, positive in zip(self.pixels, self.positive, strict=True) if positive]

    def discs(self, crop: Crop, side: int, radius: int, device: torch.device) -> Tensor:
        """Return (1, 2, side, side) float32 0 or 1: the discs of both kinds of clicks in a crop resized to a square."""
        scale = np.array([side / n for n in crop.size_hw])
        placed = ((np.array(self.pixels) - [crop.top, crop.left]) * scale).astype(np.float32)
        return disc_maps(torch.from_numpy(placed), torch.tensor(self.positive), side, radius).to(device)


def disc_maps(points_yx: Tensor, positive: Tensor, side: int, radius: int) -> Tensor:
    """Return (1, 2, side, side) float32 0 or 1; (N, 2) clicks above and to the left of the square leave no trace."""
    steps = torch.arange(side, dtype=torch.float32)
    rows, columns = ((steps - axis[:, None]).square() for axis in points_yx.T)
    near = rows[:, :, None] + columns[:, None, :] <= radius**2
    near[points_yx.amax(dim=1) < 0] = False
    return torch.stack([near[positive].any(dim=0), near[~positive].any(dim=0)])[None].float()


@dataclass(frozen=True, eq=False)
class _View:
    """One request as the networks are to see it.

    Attributes:
        image: (1, 3, H, W) float32 in 0 to 1.
        clicks: all clicks.
        previous: of the request, or a state of zeros.
        source: the part of the image that is looked at.
        target: where the answer is put. The same, but for one case that the authors' code has and their figures with
            it: after an empty answer the whole image is looked at, and its answer put where the object was.
    """

    image: Tensor
    clicks: _Clicks
    previous: State
    source: Crop
    target: Crop

    @property
    def whole(self) -> Crop:
        return Crop.whole((self.image.shape[2], self.image.shape[3]))


class FocalClickSegmenter:
    """One candidate, no estimate of its quality; points only.

    On the CPU every request is computed by itself, since the kernels that a batch selects round differently.

    Args:
        spec: what the model is.
        net: the networks, with their weights.
        settings: how they are used.
        runtime: device and dtype.
    """

    def __init__(self, spec: ModelSpec, net: FocalClickNet, settings: Settings, runtime: Runtime) -> None:
        if runtime.dtype != "float32":
            raise ConfigError(f"model {spec.name}: dtype {runtime.dtype} cannot be had, use --seg-dtype float32.")
        self.spec = spec
        self._device = torch.device(runtime.device)
        self._net = net.eval().requires_grad_(requires_grad=False).to(self._device)
        self._settings = settings

    def embed(self, images: Sequence[Image]) -> list[Tensor]:
        """Bring (H, W, 3) uint8 RGB images to the device as (1, 3, H, W) float32 in 0 to 1."""
        return [torch.from_numpy(i.copy()).to(self._device).permute(2, 0, 1)[None].float() / 255 for i in images]

    def start(self, mask: Mask) -> State:
        """Return the state of an object whose (H, W) bool mask the user brought.

        Clicks then change that mask piece by piece (the authors' progressive merge), not as a whole.
        """
        given = torch.from_numpy(mask.astype(np.float32)).to(self._device)
        return State(given[None, None], mask=mask)

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request.

        Raises:
            ModelError: a prompt has no points, or the network returned NaN or infinity.
        """
        return [self._prediction(view, maps) for view, maps in self._answers(requests)]

    @torch.inference_mode()
    def probabilities(self, requests: Sequence[Request]) -> list[Tensor]:
        """Return the (1, 1, H, W) float32 probability that each pixel belongs to the object, before any threshold."""
        return [maps for _, maps in self._answers(requests)]

    def _answers(self, requests: Sequence[Request]) -> Iterator[tuple[_View, Tensor]]:
        size = 1 if self._device.type == "cpu" else MAX_BATCH
        for i in range(0, len(requests), size):
            views = [self._view(request) for request in requests[i : i + size]]
            yield from zip(views, self._segment(views), strict=True)

    def _prediction(self, view: _View, probabilities: Tensor) -> Prediction:
        mask = _above(probabilities, self._settings.threshold)
        if not self._settings.feedback:
            return Prediction(mask[None])
        begun = view.previous.mask
        if begun is not None:
            mask = merged(mask, begun, view.clicks.pixels[-1])
        crop = None if view.target == view.whole else view.target
        return Prediction(mask[None], state=State(probabilities, crop, None if begun is None else mask))

    # ------------------------------------------------------------------------------------------ where to look

    def _view(self, request: Request) -> _View:
        image: Tensor = request.embedding
        size_hw = (image.shape[2], image.shape[3])
        if not len(request.prompt.points_xy):
            raise ModelError(f"model {self.spec.name!r} was given a prompt without points.")
        clicks = _Clicks.of(request.prompt, size_hw)
        known: State | None = request.state if self._settings.feedback else None
        source = target = Crop.whole(size_hw)
        if known is not None and len(clicks.pixels) > 1:
            found = object_crop(known.seen(), clicks.foreground, expansion=self._settings.object_crop, least=LEAST_CROP)
            source, target = found or source, found or known.crop or target
        return _View(image, clicks, known or State(image.new_zeros(1, 1, *size_hw)), source, target)

    def _focus(self, view: _View, coarse: Tensor, expansion: float) -> Crop:
        """Return the crop around what the last click changed; empty where that is out of sight."""
        mask = _above(coarse.logit(), SEEN)
        previous = _above(view.previous.probabilities, SEEN)
        return focus_crop(mask, previous, view.clicks.pixels[-1], expansion=expansion).within(view.target)

    # ------------------------------------------------------------------------------------------ what is found

    def _segment(self, views: Sequence[_View]) -> list[Tensor]:
        """Return the (1, 1, H, W) probabilities of each view."""
        logits, features = self._first_pass(views)
        coarse = [_placed(logit[None].sigmoid(), view) for logit, view in zip(logits, views, strict=True)]
        if self._settings.focus_crop is None:
            return coarse
        bases = [
            view.previous.probabilities if len(view.clicks.pixels) > FOCUS_ONLY_AFTER else maps
            for view, maps in zip(views, coarse, strict=True)
        ]
        crops = [self._focus(view, maps, self._settings.focus_crop) for view, maps in zip(views, coarse, strict=True)]
        return self._refined(views, bases, crops, logits, features)

    def _first_pass(self, views: Sequence[_View]) -> tuple[Tensor, Tensor]:
        """Return (B, 1, side, side) logits and (B, C, h, w) features of the first network."""
        side, radius = self._settings.infer_size, self._settings.click_radius
        maps = [torch.cat([view.image, view.previous.probabilities], dim=1) for view in views]
        inputs = torch.cat([_cut(m, view.source, side) for m, view in zip(maps, views, strict=True)])
        discs = torch.cat([view.clicks.discs(view.source, side, radius, self._device) for view in views])
        logits, features = self._net(inputs[:, :3], inputs[:, 3:], discs)
        self._check(logits)
        return logits, features

    def _refined(
        self, views: Sequence[_View], bases: list[Tensor], crops: list[Crop], logits: Tensor, features: Tensor
    ) -> list[Tensor]:
        """Return the bases with what the refiner finds put into the crops; nothing into an empty one."""
        chosen = [i for i, crop in enumerate(crops) if min(crop.size_hw) > 0]
        answers = list(bases)
        if chosen:
            picked, places = [views[i] for i in chosen], [crops[i] for i in chosen]
            refined = self._second_pass(picked, places, logits[chosen], features[chosen])
            for i, crop, logit in zip(chosen, places, refined, strict=True):
                answers[i] = bases[i].clone()
                answers[i][:, :, crop.top : crop.bottom, crop.left : crop.right] = _resized(
                    logit[None], crop.size_hw
                ).sigmoid()
        return answers

    def _second_pass(self, views: Sequence[_View], crops: Sequence[Crop], logits: Tensor, features: Tensor) -> Tensor:
        """Return the refiner's (B, 1, side, side) logits of the crops."""
        side = self._settings.infer_size
        images = torch.cat([_cut(view.image, crop, side) for view, crop in zip(views, crops, strict=True)])
        discs = [v.clicks.discs(crop, side, REFINER_RADIUS, self._device) for v, crop in zip(views, crops, strict=True)]
        boxes = torch.tensor([_box(crop, view.target, side) for view, crop in zip(views, crops, strict=True)])
        parts = [_aligned(maps, boxes.to(self._device), side) for maps in (features, logits)]
        refined = self._net.refine(images, torch.cat(discs), *parts)
        self._check(refined)
        return refined

    def _check(self, logits: Tensor) -> None:
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                f"model {self.spec.name!r} returned NaN or infinite logits on {self._device}: "
                "its weights or its input are damaged."
            )


def _above(maps: Tensor, threshold: float) -> Mask:
    """Return (H, W) bool of a (1, 1, H, W) tensor."""
    return np.asarray((maps[0, 0] > threshold).cpu().numpy())


def _cut(maps: Tensor, crop: Crop, side: int) -> Tensor:
    """Return the crop of (B, C, H, W) maps, resized to a square."""
    return _resized(maps[:, :, crop.top : crop.bottom, crop.left : crop.right], (side, side))


def _resized(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size_hw, mode="bilinear", align_corners=True)


def _placed(square: Tensor, view: _View) -> Tensor:
    """Return the (1, 1, H, W) probabilities of which a (1, 1, side, side) square shows the source; 0 elsewhere."""
    part = _resized(square, view.source.size_hw)
    if view.source != view.target:
        part = _resized(part, view.target.size_hw)
    placed = square.new_zeros(1, 1, *view.whole.size_hw)
    placed[:, :, view.target.top : view.target.bottom, view.target.left : view.target.right] = part
    return placed.clamp(0, 1)  # interpolation can leave the interval by a rounding


def _box(crop: Crop, inside: Crop, side: int) -> list[float]:
    """Return xyxy corners of a crop in the square that ``inside`` was resized to."""
    height, width = (side / n for n in inside.size_hw)
    x1, x2 = ((column - inside.left) * width for column in (crop.left, crop.right))
    y1, y2 = ((row - inside.top) * height for row in (crop.top, crop.bottom))
    return [max(x1, 0), max(y1, 0), min(x2, side), min(y2, side)]


def _aligned(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return (B, C, h, w): the part of each of B maps that a (B, 4) box of the square shows, at the maps' own size.

    No box is larger than the square, so no cell of the result is larger than one of the maps and a single sample in
    its middle is all that the authors' adaptive number of samples comes to.
    """
    import_torchvision()
    from torchvision.ops import roi_align

    numbered = torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None], boxes], dim=1)
    scale, size_hw = maps.shape[-1] / side, maps.shape[2:]
    aligned: Tensor = roi_align(maps, numbered, size_hw, spatial_scale=scale, sampling_ratio=1, aligned=True)
    return aligned
