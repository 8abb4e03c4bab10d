"""FocalClick at work: look at the object, segment it, then look closer at what the last click changed.

The steps, their order and their thresholds are those of the authors' ClickSEG, predictor ``FocalClick``; the module of
the networks, `promptseg.models.click._focalclick_net`, names the paper. Without the second look and without the
previous mask they are those of its predictor ``NoBRS``, given all clicks at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from promptseg.errors import ConfigError, ModelError
from promptseg.models._fast import check_fast
from promptseg.models._loading import check_finite
from promptseg.models.click._focalclick_crops import Pixel, focus_roi, merged
from promptseg.models.click._focalclick_net import FocalClickNet
from promptseg.models.click._inference import (
    Click,
    ClickState,
    Roi,
    checked,
    clicks_of,
    crop,
    disk_maps,
    object_roi,
    resized,
)
from promptseg.segmenter import Image, Mask, Prediction, Request, Runtime
from promptseg.specs import ModelSpec

MAX_BATCH = 32  # requests; 32 of B3 are 0.3 GB of features


@dataclass(frozen=True, kw_only=True)
class FocalSettings:
    """How the networks are used; each of these is an option of the spec.

    Attributes:
        input_size: side in pixels of the square that both networks see, whatever the shape of the crop.
        click_radius: of the disks that the first network sees, in pixels of that square.
        previous_mask: whether state is used: the previous probabilities and crop. If not, each prediction is made from
            all clicks at once and an empty previous mask.
        zoom_in_from_click: the whole image before that click, a crop round the object from it on.
        zoom_in_expansion: the crop is this many times as large as the object. It is renewed at every click.
        zoom_in_min_crop: smallest side of a crop in pixels of the image.
        focus_expansion: a second network looks at a crop this many times as large as what the last click changed; 0
            does without it.
        focus_click_radius: of the disks that the second network sees.
        focus_only_after: after this many clicks the previous answer is kept outside of the focus crop.
        crop_threshold: decides what both crops are laid round: a probability for the previous answer, and, as in the
            authors' code, a logit for the new one.
        threshold: probability above which a pixel belongs to the mask.
    """

    input_size: int = 256
    click_radius: int = 5
    previous_mask: bool = True
    zoom_in_from_click: int = 2
    zoom_in_expansion: float = 1.4
    zoom_in_min_crop: int = 10
    focus_expansion: float = 1.4
    focus_click_radius: int = 5
    focus_only_after: int = 10
    crop_threshold: float = 0.49
    threshold: float = 0.5

    @classmethod
    def of(cls, spec: ModelSpec) -> FocalSettings:
        """Return the settings that the options of a spec name, and the defaults for the others.

        Raises:
            ConfigError: an option has a value of another kind than its default.
        """
        named = [field for field in fields(cls) if field.name in spec.options]
        return cls(**{f.name: checked(spec, f.name, spec.options[f.name], f.default) for f in named})

    @classmethod
    def names(cls) -> set[str]:
        """Return the options of a spec that are settings."""
        return {field.name for field in fields(cls)}


@dataclass(frozen=True, eq=False)
class FocalState(ClickState):
    """What a prediction leaves for the next click on the same object.

    Attributes:
        mask: (H, W) bool, the last answer, if it goes back to a mask that the user supplied; else None.
    """

    mask: Mask | None = None

    def seen(self, threshold: float) -> Mask:
        """Return (H, W) bool: the object as far as it is known."""
        return _above(self.probabilities, threshold) if self.mask is None else self.mask


@dataclass(frozen=True, eq=False)
class _View:
    """One request as the first network is to see it.

    Attributes:
        image: (1, 3, H, W) float32 in 0 to 1.
        clicks: all of them.
        before: the state of the request, or one of zeros.
        source: the part of the image that is looked at.
        roi: the crop in use, None for the whole image. It differs from the source in one case: after an empty answer
            the whole image is looked at, and its answer goes to the last crop. So it is with the authors.
    """

    image: Tensor
    clicks: list[Click]
    before: FocalState
    source: Roi
    roi: Roi | None

    @property
    def target(self) -> Roi:
        """Where the answer belongs."""
        return self.roi or _whole(self.image)

    @property
    def last_pixel(self) -> Pixel:
        """The last click."""
        return int(self.clicks[-1].row), int(self.clicks[-1].column)


class FocalClickSegmenter:
    """One mask, no estimate of its quality; points only.

    Images are embedded as themselves, on the device. On the CPU every request is computed by itself, since the kernels
    that a batch selects round differently.

    Args:
        spec: what the model is.
        network: both networks, with their weights, on the runtime's device.
        settings: how they are used.
        runtime: device and dtype; only float32, since crops follow from masks and would move with their edges.
    """

    def __init__(self, spec: ModelSpec, network: FocalClickNet, settings: FocalSettings, runtime: Runtime) -> None:
        check_fast(spec, runtime, {"tf32"})
        if runtime.dtype != "float32":
            raise ConfigError(f"model {spec.name}: dtype {runtime.dtype} is not available, use --seg-dtype float32.")
        self.spec = spec
        self.settings = settings
        self._network = network
        self._device = torch.device(runtime.device)

    def embed(self, images: Sequence[Image]) -> list[Tensor]:
        """Return (1, 3, H, W) float32 tensors in 0 to 1 on the device."""
        pixels = (torch.from_numpy(np.array(image)).to(self._device) for image in images)
        return [p.permute(2, 0, 1)[None].contiguous().float().div(255) for p in pixels]

    def start(self, mask: Mask) -> FocalState:
        """Return the state of an object whose (H, W) bool mask the user supplied.

        Clicks then change that mask piece by piece (the authors' progressive merge), not as a whole.
        """
        given = torch.from_numpy(mask.astype(np.float32)).to(self._device)
        return FocalState(given[None, None], None, mask)

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request with one mask; the state is a `FocalState`.

        Raises:
            ModelError: a prompt without points, or NaN from a network.
        """
        size = 1 if self._device.type == "cpu" else MAX_BATCH
        batches = (requests[i : i + size] for i in range(0, len(requests), size))
        return [answer for batch in batches for answer in self._answers(batch)]

    def _answers(self, requests: Sequence[Request]) -> Iterator[Prediction]:
        views = [self._view(request) for request in requests]
        for view, maps in zip(views, self._probabilities(views), strict=True):
            mask, begun = _above(maps, self.settings.threshold), view.before.mask
            if begun is not None:
                mask = merged(mask, begun, view.last_pixel)
            yield Prediction(mask[None], state=FocalState(maps, view.roi, None if begun is None else mask))

    def _view(self, request: Request) -> _View:
        image: Tensor = request.embedding
        if not len(request.prompt.points_xy):
            raise ModelError(f"model {self.spec.name!r} was given a prompt without points.")
        clicks = clicks_of(request.prompt)
        state: FocalState | None = request.state if self.settings.previous_mask else None
        before = state or FocalState(torch.zeros_like(image[:, :1]), None)
        found = self._zoom(clicks, before)
        return _View(image, clicks, before, found or _whole(image), found or before.roi)

    def _zoom(self, clicks: list[Click], before: FocalState) -> Roi | None:
        s = self.settings
        if len(clicks) < s.zoom_in_from_click:
            return None
        return object_roi(before.seen(s.crop_threshold), clicks, s.zoom_in_expansion, s.zoom_in_min_crop)

    def _probabilities(self, views: Sequence[_View]) -> list[Tensor]:
        """Return (1, 1, H, W) of each view."""
        logits, features = self._first_look(views)
        found = [_placed(square[None].sigmoid(), view) for square, view in zip(logits, views, strict=True)]
        if not self.settings.focus_expansion:
            return found
        coarse = [maps.logit() for maps in found]  # and back in the end, outside of the focus too, as the authors do
        focus = [self._focus(view, maps) for view, maps in zip(views, coarse, strict=True)]
        answers = [self._base(view, maps) for view, maps in zip(views, coarse, strict=True)]
        looked_at = [(i, roi) for i, roi in enumerate(focus) if roi is not None]
        if looked_at:
            chosen, rois = [i for i, _ in looked_at], [roi for _, roi in looked_at]
            refined = self._second_look([views[i] for i in chosen], rois, logits[chosen], features[chosen])
            for i, roi, square in zip(chosen, rois, refined, strict=True):
                answers[i] = _replaced(answers[i], roi, resized(square[None], roi.size_hw))
        return [maps.sigmoid() for maps in answers]

    def _first_look(self, views: Sequence[_View]) -> tuple[Tensor, Tensor]:
        """Return (B, 1, side, side) logits and (B, C, h, w) features."""
        maps = [torch.cat([view.image, view.before.probabilities], dim=1) for view in views]
        shown, disks = self._squares(maps, views, [view.source for view in views], self.settings.click_radius)
        logits, features = self._network(shown[:, :3], shown[:, 3:], disks)
        check_finite(self.spec, self._device, torch.float32, logits)
        return logits, features

    def _focus(self, view: _View, coarse: Tensor) -> Roi | None:
        """Return the crop around what the last click changed, None where that is out of sight."""
        before = _above(view.before.probabilities, self.settings.crop_threshold)
        now = _above(coarse, self.settings.crop_threshold)
        return focus_roi(now, before, view.last_pixel, view.target, self.settings.focus_expansion)

    def _base(self, view: _View, coarse: Tensor) -> Tensor:
        """Return the logits of what the answer is outside of the focus crop."""
        return view.before.probabilities.logit() if len(view.clicks) > self.settings.focus_only_after else coarse

    def _second_look(self, views: Sequence[_View], rois: Sequence[Roi], logits: Tensor, features: Tensor) -> Tensor:
        """Return the (B, 1, side, side) logits of the focus crops."""
        side = self.settings.input_size
        shown, disks = self._squares([v.image for v in views], views, rois, self.settings.focus_click_radius)
        boxes = [_box(roi, view.target, side) for roi, view in zip(rois, views, strict=True)]
        parts = [_aligned(maps, torch.tensor(boxes, device=self._device), side) for maps in (features, logits)]
        refined = self._network.refine(shown, disks, *parts)
        check_finite(self.spec, self._device, torch.float32, refined)
        return refined

    def _squares(
        self, maps: Sequence[Tensor], views: Sequence[_View], rois: Sequence[Roi], radius: int
    ) -> tuple[Tensor, Tensor]:
        """Return crops of maps as (B, C, side, side), and (B, 2, side, side) the disks of their clicks."""
        size_hw = (self.settings.input_size, self.settings.input_size)
        cut = [crop(m, view.clicks, roi, size_hw) for m, view, roi in zip(maps, views, rois, strict=True)]
        disks = np.stack([disk_maps(clicks, size_hw, radius) for _, clicks in cut])
        return torch.cat([square for square, _ in cut]), torch.from_numpy(disks).to(self._device)


def _whole(image: Tensor) -> Roi:
    return Roi(0, image.shape[2] - 1, 0, image.shape[3] - 1)


def _above(maps: Tensor, threshold: float) -> Mask:
    """Return (H, W) bool of a (1, 1, H, W) tensor."""
    return np.asarray((maps[0, 0] > threshold).cpu().numpy())


def _placed(square: Tensor, view: _View) -> Tensor:
    """Return (1, 1, H, W) probabilities: those of a (1, 1, side, side) square at its source, 0 elsewhere."""
    part = resized(square, view.source.size_hw)
    if view.source != view.target:
        part = resized(part, view.target.size_hw)
    part = part.clamp(0, 1)  # interpolation can leave the interval by a rounding
    return _replaced(torch.zeros_like(view.before.probabilities), view.target, part)


def _replaced(maps: Tensor, roi: Roi, part: Tensor) -> Tensor:
    """Return a copy of (1, 1, H, W) maps with another part."""
    copy = maps.clone()
    copy[:, :, roi.top : roi.bottom + 1, roi.left : roi.right + 1] = part
    return copy


def _box(roi: Roi, within: Roi, side: int) -> list[float]:
    """Return xyxy corners of a crop in the square that ``within`` was resized to."""
    height, width = (side / n for n in within.size_hw)
    x1, x2 = ((column - within.left) * width for column in (roi.left, roi.right + 1))
    y1, y2 = ((row - within.top) * height for row in (roi.top, roi.bottom + 1))
    return [x1, y1, min(x2, side), min(y2, side)]


def _aligned(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return (B, C, h, w): the part of each of B maps that a (B, 4) box of the square shows, at the maps' own size.

    It is what the authors have from torchvision's ``roi_align``. No box is larger than the square, so no cell of the
    result is larger than one of the maps, and a single sample in its middle is all that ``roi_align`` would take.
    """
    height, width = maps.shape[2:]
    x1, y1, x2, y2 = (boxes * boxes.new_tensor([width, height, width, height]) / side - 0.5).T
    rows, columns = _middles(y1, y2, height), _middles(x1, x2, width)
    return torch.stack([_interpolated(m, y, x) for m, y, x in zip(maps, rows, columns, strict=True)])


def _middles(first: Tensor, last: Tensor, count: int) -> Tensor:
    """Return (B, count): the middles of as many cells between (B,) bounds; before the map its edge."""
    cell = ((last - first) / count)[:, None]
    numbers = torch.arange(count, device=first.device)
    return (first[:, None] + numbers * cell + 0.5 * cell).clamp(min=0)


def _interpolated(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return (C, h, w) values of (C, H, W) maps between their cells, constant beyond the last.

    Summed corner by corner as ``roi_align`` does, since masks are cut at a threshold and show where roundings differ.
    """
    (top, bottom), (left, right) = _neighbours(rows, maps.shape[1]), _neighbours(columns, maps.shape[2])
    down, across = (rows - top)[:, None], columns - left
    upper, lower = maps[:, top], maps[:, bottom]
    values = (1 - down) * (1 - across) * upper[:, :, left] + (1 - down) * across * upper[:, :, right]
    return values + down * (1 - across) * lower[:, :, left] + down * across * lower[:, :, right]


def _neighbours(positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    low = positions.long().clamp(max=count - 1)
    return low, (low + 1).clamp(max=count - 1)
