"""Inference of click models as the authors of RITM (Sofiiuk et al. 2021, arXiv:2102.06583) evaluate theirs.

A network sees the image, two maps of disks (positive and negative clicks) and the probabilities of the previous click.
Around it: a crop round the object (zoom-in), the mean over the horizontal flip, and a threshold. Everything here is a
function of what is handed in; what a click leaves for the next one is a `ClickState`, the ``state`` of a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from promptseg.errors import ConfigError, IntegrityError, ModelError
from promptseg.models._fast import check_fast
from promptseg.models._loading import autocast, check_finite, check_package, dtype_of, load_strict
from promptseg.models.click._checkpoint import Checkpoint
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Runtime
from promptseg.specs import ModelSpec

MEAN = (0.485, 0.456, 0.406)  # RGB, of ImageNet, in 0 to 1
STD = (0.229, 0.224, 0.225)
_SETTLED = 20  # an adaptive cascade ends when a pass changes no more pixels than this

Network = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) normalised image and (B, 3, H, W) previous probabilities, positive and negative disks to (B, 1, H, W)
logits."""


@dataclass(frozen=True, kw_only=True)
class ClickSettings:
    """How a model is evaluated; each of these is an option of the spec.

    Attributes:
        zoom_in: what a crop is resized to: pixels of its longest side, or (height, width); 0 for no crop.
        zoom_in_from_click: 2 or more: the whole image, as it is, before that click. 1: always a crop, the whole image
            first.
        zoom_in_expansion: the crop is this many times as large as the object.
        zoom_in_min_crop: smallest side of a crop in pixels of the image.
        zoom_in_overlap: a crop stays while its overlap (the product of its overlaps in height and width) with the one
            that the last mask asks for is at least this, and every positive click is in it.
        zoom_in_threshold: probability above which a pixel belongs to the object when the crop is chosen.
        flip: average the logits with those of the mirrored input.
        threshold: probability above which a pixel belongs to the mask.
        click_radius: of the disks, in pixels of the network's input.
        previous_mask: whether state is used: the previous probabilities and crop. If not, each prediction is made from
            all clicks at once and an empty previous mask.
        cascade_passes: forward passes for one click, each fed the probabilities of the one before (CFR-ICL).
        cascade_clicks: the cascade is run for up to this many clicks.
        cascade_adaptive: end the cascade early when a pass changes next to nothing.
    """

    zoom_in: int | tuple[int, int] = 400
    zoom_in_from_click: int = 2
    zoom_in_expansion: float = 1.4
    zoom_in_min_crop: int = 200
    zoom_in_overlap: float = 0.5
    zoom_in_threshold: float = 0.5
    flip: bool = True
    threshold: float = 0.49
    click_radius: int = 5
    previous_mask: bool = True
    cascade_passes: int = 1
    cascade_clicks: int = 1
    cascade_adaptive: bool = False

    @classmethod
    def of(cls, spec: ModelSpec, defaults: ClickSettings) -> ClickSettings:
        """Return the settings that the options of a spec name, and ``defaults`` for the others.

        Raises:
            ConfigError: an option has a value of another kind than its default.
        """
        given = {f.name: spec.options[f.name] for f in fields(cls) if f.name in spec.options}
        kept = {f.name: getattr(defaults, f.name) for f in fields(cls)}
        return cls(
            **{name: checked(spec, name, given[name], kept[name]) if name in given else kept[name] for name in kept}
        )


class Roi(NamedTuple):
    """A crop of the image, both ends inclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top + 1, self.right - self.left + 1


class Click(NamedTuple):
    """A click in pixels of whatever it is given for, row first."""

    row: float
    column: float
    positive: bool


@dataclass(frozen=True, eq=False)
class ClickState:
    """What a prediction leaves for the next click on the same object.

    Attributes:
        probabilities: (1, 1, H, W) float32 on the model's device.
        roi: the crop in use, None before the first.
    """

    probabilities: Tensor
    roi: Roi | None


@dataclass(frozen=True, eq=False)
class _View:
    """What the network is shown for one request.

    Attributes:
        image: (1, 4, h, w) crop of the image in 0 to 1 and of the previous probabilities.
        clicks: in pixels of the crop.
        roi: where the answer belongs; None for the whole image.
    """

    image: Tensor
    clicks: list[Click]
    roi: Roi | None


def checked(spec: ModelSpec, name: str, value: Any, default: Any) -> Any:
    """Return an option's value; a list of two numbers, as TOML and JSON give it, is a size."""
    if name == "zoom_in" and isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    kind = int if name == "zoom_in" else type(default)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, int if kind is bool else int | kind):
        raise ConfigError(f"model {spec.name}: option {name} is {value!r}; it must be like {default!r}.")
    if value < 0:
        raise ConfigError(f"model {spec.name}: option {name} is {value!r}; it must not be negative.")
    return value


def setting_names() -> set[str]:
    """Return the options that every click model has."""
    return {field.name for field in fields(ClickSettings)}


# ---------------------------------------------------------------------------------------------- geometry


def clicks_of(prompt: Prompt) -> list[Click]:
    """Return the points of a prompt in the order in which they were given, computed in float64 as the authors do."""
    return [
        Click(float(y), float(x), positive=bool(label == 1))
        for (x, y), label in zip(prompt.points_xy.tolist(), prompt.labels.tolist(), strict=True)
    ]


def disk_maps(clicks: Sequence[Click], size_hw: tuple[int, int], radius: int) -> npt.NDArray[np.float32]:
    """Return (2, H, W) float32 maps that are 1 within ``radius`` pixels of a positive and of a negative click.

    A click before both the first row and the first column is ignored, since the authors mark absent clicks so; any
    other click outside of the map shows the part of its disk that reaches in.
    """
    maps = np.zeros((2, *size_hw), dtype=np.float32)
    for click in clicks:
        if max(click.row, click.column) < 0:
            continue
        rows, row_distance = _near(click.row, size_hw[0], radius)
        columns, column_distance = _near(click.column, size_hw[1], radius)
        disk = row_distance[:, None] + column_distance[None] <= radius**2
        maps[0 if click.positive else 1, rows, columns][disk] = 1
    return maps


def _near(centre: float, size: int, radius: int) -> tuple[slice, npt.NDArray[np.float32]]:
    """Return the pixels of one axis that a disk can reach, and their squared distances, rounded as float32."""
    first, last = (min(max(int(centre) + sign * (radius + 1), 0), size) for sign in (-1, 1))
    pixels = slice(first, min(last + 1, size))
    distance = (np.arange(pixels.start, pixels.stop) - centre).astype(np.float32)
    return pixels, distance * distance


def object_roi(mask: Mask, clicks: Iterable[Click], expansion: float, min_crop: int) -> Roi | None:
    """Return the crop for the object of a mask and the positive clicks; None where the mask is empty.

    Args:
        mask: (H, W) bool.
        clicks: in pixels of the mask.
        expansion: how many times as large as the object the crop is.
        min_crop: its smallest side in pixels.
    """
    if not mask.any():
        return None
    points = [(int(click.row), int(click.column)) for click in clicks if click.positive]
    bounds: list[int] = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        ends = [hit[0], hit[-1], *(point[axis] for point in points)]
        bounds += _expanded(int(min(ends)), int(max(ends)), expansion, min_crop, mask.shape[axis])
    return Roi(*bounds)


def _expanded(first: int, last: int, expansion: float, min_crop: int, size: int) -> tuple[int, int]:
    """Return one axis of a crop, both ends inclusive, within the image."""
    centre, half = 0.5 * (first + last), 0.5 * max(expansion * (last - first + 1), min_crop)
    return max(0, round(centre - half)), min(size - 1, round(centre + half))


def _overlap(a: Roi, b: Roi) -> float:
    return _line_overlap(a[:2], b[:2]) * _line_overlap(a[2:], b[2:])


def _line_overlap(a: Sequence[int], b: Sequence[int]) -> float:
    shared = min(a[1], b[1]) - max(a[0], b[0]) + 1
    return max(0, shared) / (max(a[1], b[1]) - min(a[0], b[0]) + 1)


def _holds(roi: Roi, clicks: Iterable[Click]) -> bool:
    """Whether every positive click is in a crop; its last row and column count as outside, as with its authors."""
    return all(
        roi.top <= click.row < roi.bottom and roi.left <= click.column < roi.right for click in clicks if click.positive
    )


def crop(image: Tensor, clicks: Iterable[Click], roi: Roi, size_hw: tuple[int, int]) -> tuple[Tensor, list[Click]]:
    """Return a (1, C, H, W) image cut to ``roi`` and resized to ``size_hw``, and the clicks in its pixels."""
    (height, width), (new_height, new_width) = roi.size_hw, size_hw
    part = image[:, :, roi.top : roi.bottom + 1, roi.left : roi.right + 1]
    moved = [
        Click(
            new_height * (click.row - roi.top) / height, new_width * (click.column - roi.left) / width, click.positive
        )
        for click in clicks
    ]
    return resized(part, size_hw), moved


def resized(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) maps, bilinear, corners aligned."""
    return functional.interpolate(maps, size=size_hw, mode="bilinear", align_corners=True)


def pasted(probabilities: Tensor, roi: Roi, size_hw: tuple[int, int]) -> Tensor:
    """Return (1, 1, h, w) probabilities of a crop as those of the whole image, 0 outside of the crop."""
    whole = torch.zeros((1, 1, *size_hw), dtype=probabilities.dtype, device=probabilities.device)
    whole[:, :, roi.top : roi.bottom + 1, roi.left : roi.right + 1] = resized(probabilities, roi.size_hw)
    return whole


def mirrored(clicks: Iterable[Click], width: int) -> list[Click]:
    """Return the clicks on the mirrored image."""
    return [Click(click.row, width - click.column - 1, click.positive) for click in clicks]


# ---------------------------------------------------------------------------------------------- the model


class ClickSegmenter:
    """A model that is given clicks and its own previous mask; see `ClickSettings` for how it is evaluated.

    Images are embedded as themselves, on the device: the clicks enter at the first layer, so no part of the network is
    free of them. A request without state, or with ``previous_mask`` off, is answered in one pass from all its clicks.
    On the CPU each request is computed by itself, so that its answer does not depend on what else is in the batch;
    elsewhere inputs of one size share a batch. ``runtime.dtype`` below float32 is an autocast around the network.

    Args:
        spec: what the model is.
        network: see `Network`; on the runtime's device.
        settings: how it is evaluated.
        runtime: device and dtype.
    """

    def __init__(self, spec: ModelSpec, network: Network, settings: ClickSettings, runtime: Runtime) -> None:
        check_fast(spec, runtime, {"tf32"})
        self.spec = spec
        self.settings = settings
        self._network = network
        self._device = torch.device(runtime.device)
        self._dtype = dtype_of(runtime)
        self._mean, self._std = (torch.tensor(v, device=self._device)[None, :, None, None] for v in (MEAN, STD))

    def embed(self, images: Sequence[Image]) -> list[Tensor]:
        """Return (1, 3, H, W) float32 tensors in 0 to 1 on the device."""
        return [self._as_tensor(image) for image in images]

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request with one mask; the state is a `ClickState`.

        Raises:
            ModelError: a prompt without points, or NaN from the network.
        """
        clicks = [self._clicks(request.prompt) for request in requests]
        states = self._probabilities([request.embedding for request in requests], clicks, self._states(requests))
        return [self._prediction(state) for state in states]

    def _as_tensor(self, image: Image) -> Tensor:
        return torch.from_numpy(np.array(image)).to(self._device).permute(2, 0, 1)[None].contiguous().float().div(255)

    def _clicks(self, prompt: Prompt) -> list[Click]:
        if not len(prompt.points_xy):
            raise ModelError(f"model {self.spec.name!r} was given a prompt without points.")
        return clicks_of(prompt)

    def _states(self, requests: Sequence[Request]) -> list[ClickState | None]:
        return [r.state if self.settings.previous_mask else None for r in requests]

    def _prediction(self, state: ClickState) -> Prediction:
        masks = (state.probabilities[0] > self.settings.threshold).cpu().numpy()
        return Prediction(masks=masks, state=state)

    def _probabilities(
        self, images: list[Tensor], clicks: list[list[Click]], states: list[ClickState | None]
    ) -> list[ClickState]:
        """Return the state after these clicks: one pass, or the cascade for those that have few enough of them."""
        after = self._pass(images, clicks, states)
        running = [i for i, given in enumerate(clicks) if len(given) <= self.settings.cascade_clicks]
        for _ in range(self.settings.cascade_passes - 1):
            before = [after[i] for i in running]
            following = self._pass([images[i] for i in running], [clicks[i] for i in running], before)
            for i, state in zip(running, following, strict=True):
                after[i] = state
            pairs = zip(running, before, following, strict=True)
            running = [i for i, one, other in pairs if not self._settled(one, other)]
        return after

    def _settled(self, before: ClickState, after: ClickState) -> bool:
        if not self.settings.cascade_adaptive:
            return False
        changed = (before.probabilities > self.settings.threshold) != (after.probabilities > self.settings.threshold)
        return int(changed.sum()) <= _SETTLED

    def _pass(
        self, images: Sequence[Tensor], clicks: Sequence[list[Click]], states: Sequence[ClickState | None]
    ) -> list[ClickState]:
        views = [self._view(i, c, s) for i, c, s in zip(images, clicks, states, strict=True)]
        logits = self._logits(views)
        return [self._state(lo, view, image) for lo, view, image in zip(logits, views, images, strict=True)]

    def _view(self, image: Tensor, clicks: list[Click], state: ClickState | None) -> _View:
        previous = torch.zeros_like(image[:, :1]) if state is None else state.probabilities
        stacked = torch.cat([image, previous], dim=1)
        roi = self._roi(image, clicks, state)
        if roi is None:
            # An answer on the whole image still goes to the last crop, if there was one: so it is with its authors.
            return _View(stacked, clicks, state.roi if state else None)
        return _View(*crop(stacked, clicks, roi, self._input_hw(roi)), roi)

    def _roi(self, image: Tensor, clicks: list[Click], state: ClickState | None) -> Roi | None:
        """Return the crop for these clicks, None for the whole image at its own size."""
        s = self.settings
        if not s.zoom_in or len(clicks) < s.zoom_in_from_click:
            return None
        mask = None if state is None else (state.probabilities[0, 0] > s.zoom_in_threshold).cpu().numpy()
        asked = None if mask is None else object_roi(mask, clicks, s.zoom_in_expansion, s.zoom_in_min_crop)
        if asked is None:
            if s.zoom_in_from_click > 1:
                return None
            asked = Roi(0, image.shape[2] - 1, 0, image.shape[3] - 1)
        current = state.roi if state else None
        keep = current is not None and _holds(current, clicks) and _overlap(asked, current) >= s.zoom_in_overlap
        return current if keep else asked

    def _input_hw(self, roi: Roi) -> tuple[int, int]:
        if isinstance(self.settings.zoom_in, tuple):
            return self.settings.zoom_in
        scale = self.settings.zoom_in / max(roi.size_hw)
        height, width = (round(side * scale) for side in roi.size_hw)
        return height, width

    def _logits(self, views: Sequence[_View]) -> list[Tensor]:
        """Return (1, 1, h, w) float32 logits of each view, averaged with those of its mirror image."""
        answers: dict[int, Tensor] = {}
        for group in self._groups(views):
            inputs = [self._input(views[i]) for i in group]
            logits = self._run(torch.cat([image for image, _ in inputs]), torch.cat([maps for _, maps in inputs]))
            answers.update(zip(group, logits.chunk(len(group)), strict=True))
        return [_unmirrored(answers[i]) if self.settings.flip else answers[i] for i in range(len(views))]

    def _groups(self, views: Sequence[_View]) -> list[list[int]]:
        by_shape: dict[object, list[int]] = {}
        for i, view in enumerate(views):
            by_shape.setdefault(i if self._device.type == "cpu" else view.image.shape, []).append(i)
        return list(by_shape.values())

    def _input(self, view: _View) -> tuple[Tensor, Tensor]:
        """Return the (B, 3, h, w) normalised image and maps of a view; B is 2 with the mirror image."""
        height, width = view.image.shape[2:]
        sides = [(view.image, view.clicks)]
        if self.settings.flip:
            sides.append((view.image.flip(3), mirrored(view.clicks, width)))
        image = torch.cat([i for i, _ in sides])
        disks = np.stack([disk_maps(c, (height, width), self.settings.click_radius) for _, c in sides])
        maps = torch.cat([image[:, 3:], torch.from_numpy(disks).to(self._device)], dim=1)
        return (image[:, :3] - self._mean) / self._std, maps

    def _run(self, image: Tensor, maps: Tensor) -> Tensor:
        with autocast(self._device, self._dtype):
            logits = self._network(image, maps).float()
        check_finite(self.spec, self._device, self._dtype, logits)
        return resized(logits, (image.shape[2], image.shape[3]))

    def _state(self, logits: Tensor, view: _View, image: Tensor) -> ClickState:
        probabilities = torch.sigmoid(logits)
        if view.roi is not None:
            probabilities = pasted(probabilities, view.roi, (image.shape[2], image.shape[3]))
        return ClickState(probabilities, view.roi)


def _unmirrored(logits: Tensor) -> Tensor:
    """Return the mean of (2, 1, h, w) logits of an image and of its mirror image."""
    return 0.5 * (logits[:1] + logits[1:].flip(3))


def place(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    build: Callable[[Mapping[str, Any]], torch.nn.Module],
    settings: ClickSettings,
    runtime: Runtime,
) -> ClickSegmenter:
    """Build the network of a checkpoint, put its weights in, all of them, and make a segmenter of it.

    Args:
        spec: what the model is.
        checkpoint: the weights, and the arguments of the class that its authors build.
        build: makes the network, without weights, from these arguments.
        settings: how it is evaluated.
        runtime: device and dtype.

    Raises:
        IntegrityError: the weights do not fit the network.
        UnavailableError: timm is not installed.
    """
    check_package(spec.name, "timm")
    try:
        with torch.device("meta"):
            network = build(checkpoint.params)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{spec.name}: the config in {checkpoint.path} does not describe such a network ({error!r})."
        ) from error
    load_strict(network, checkpoint.state, spec, checkpoint.path)
    network.eval().requires_grad_(requires_grad=False).to(runtime.device)
    return ClickSegmenter(spec, network, settings, runtime)


def check_network_inputs(checkpoint: Checkpoint, settings: ClickSettings, *, owner: str) -> None:
    """Raise `IntegrityError` unless a checkpoint was trained on what `ClickSegmenter` shows a network."""
    expected = {
        "use_disks": True,
        "with_prev_mask": True,
        "binary_prev_mask": False,
        "norm_radius": settings.click_radius,
    }
    held = {name: checkpoint.params.get(name, False) for name in expected}
    if held != expected:
        raise IntegrityError(f"{owner}: {checkpoint.path} is of a network trained with {held}; it must be {expected}.")
