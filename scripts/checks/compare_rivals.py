"""Run the public repository of a click model's authors beside ours, on the same weights, and compare.

    git clone https://github.com/SamsungLabs/ritm_interactive_segmentation ../ritm
    python scripts/checks/compare_rivals.py --family ritm --repo ../ritm --data ../shared/data

The weights are random, drawn with NumPy, but for the last layer, which is fitted to the images by least squares, so
that masks follow objects. They are saved in the authors' own format, which ours then reads. For each image the authors'
evaluation loop clicks; compared are

- the probability maps after each click, ours given the authors' clicks where it would click elsewhere,
- clicks, IoU and number of clicks to each IoU when ours clicks for itself, by the rule of the prompt mode ``noc``,
- the processor's seconds that both loops take,
- with ``--project FOLDER``: the prompt mode ``noc`` run by pytest on the same images and weights, in a project that is
  written for it and left there, so that other prompt modes can be run by hand.

Exit status 1 if a map differs by 1e-4 or more, a click or a number differs, or ours takes more than 1.3 times as long.

The repositories were written for older libraries. What they miss of NumPy and timm is put back under the old names;
mmcv, albumentations and others, which their inference does not need, are replaced by stand-ins.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from promptseg.data.images import read_image, read_labels
from promptseg.evaluation.metrics import iou
from promptseg.models._loading import import_torchvision
from promptseg.models.click import focalclick, ritm, simpleclick
from promptseg.models.click._inference import Roi, clicks_of, crop, object_roi
from promptseg.models.click._specs import PAPER_2023
from promptseg.prompts import ritm_click
from promptseg.registry.entries import build as registered
from promptseg.registry.references import resolve
from promptseg.segmenter import Mask, Prompt, Request, Runtime, Segmenter
from promptseg.specs import ModelSpec

TOLERANCE = 1e-4
SLOWDOWN = 1.3
NOC_AT = tuple(i / 20 for i in range(1, 20))  # the protocol's 0.80, 0.85 and 0.90, and what random weights reach
SHIFT = (7, 5)  # pixels
UNUSED = np.random.default_rng(0)  # prompt modes are handed one; this rule draws nothing
_ABSENT = ("albumentations", "easydict", "einops", "IPython", "mmcv", "torch.utils.tensorboard", "isegm.data.datasets")


# ---------------------------------------------------------------------------------------------- their repository


class Anything:
    """Takes any call; as a decorator it changes nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *args: Any, **_: Any) -> Any:
        """Return what is decorated, or itself."""
        return args[0] if args and callable(args[0]) else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class BaseModule(torch.nn.Module):
    """mmcv's: a module with an ``init_cfg``."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()


class ConvModule(torch.nn.Module):
    """mmcv's, as far as inference needs it: a convolution, a norm where one is asked for, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__()
        norm = options.get("norm_cfg")
        shape = {name: options[name] for name in ("stride", "padding", "dilation", "groups") if name in options}
        self.conv = torch.nn.Conv2d(in_channels, out_channels, kernel_size, bias=norm is None, **shape)
        self.bn = torch.nn.BatchNorm2d(out_channels) if norm else torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, h, w) features."""
        return torch.nn.functional.relu(self.bn(self.conv(x)))


_REAL = {"BaseModule": BaseModule, "ConvModule": ConvModule}


class StandIn(types.ModuleType):
    """A module that has every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _REAL.get(name) or type(name, (Anything,), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `StandIn` for what is absent, or broken by the absence of what it needs."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for what shall be replaced."""
        absent = any(name == module or name.startswith(f"{module}.") for module in _ABSENT)
        return importlib.machinery.ModuleSpec(name, self) if absent else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def open_repository(path: Path) -> None:
    """Make the package ``isegm`` of a clone importable."""
    if not (path / "isegm").is_dir():
        raise SystemExit(f"{path} has no folder isegm; give --repo a clone of the authors' repository.")
    import_torchvision()
    for name, old in (("int", int), ("float", float), ("bool", bool)):
        if not hasattr(np, name):
            setattr(np, name, old)
    replace_roi_align()
    import timm.layers

    sys.modules["timm.models.layers"] = timm.layers
    sys.meta_path.insert(0, StandIns())
    sys.path.insert(0, str(path))


def replace_roi_align() -> None:
    """Where torchvision lacks its compiled operators, let its own slow ``roi_align`` stand for the fast one.

    It would take as many samples for each cell as a whole map has; with one, which is what FocalClick's crops come to,
    it needs no compiler either.
    """
    import torchvision

    if torchvision.extension._has_ops():
        return
    slow = importlib.import_module("torchvision.ops.roi_align")._roi_align.__wrapped__

    def roi_align(maps: Any, boxes: Any, size: Any, spatial_scale: float, aligned: bool) -> Any:  # noqa: FBT001
        return slow(maps, boxes, spatial_scale, *size, 1, aligned)

    torchvision.ops.roi_align = roi_align


def theirs(module: str, name: str) -> Any:
    """Return something of their package."""
    return getattr(importlib.import_module(f"isegm.{module}"), name)


# ---------------------------------------------------------------------------------------------- the families


@dataclass(frozen=True)
class Family:
    """How the authors build and evaluate.

    Attributes:
        specs: ours, by architecture.
        place: module below ``isegm``, and name, of their class.
        params: its arguments for an architecture or for ``tiny``, as ``models/iter_mask`` of their repository has them.
        zoom_in: arguments of their ZoomIn.
        last: prefix of the parameters of the layer that makes the logits.
        tiny: what differs for ``tiny``: arguments of their ZoomIn, and our options.
        modes: of their predictors in the two profiles.
        predictor: more arguments of their predictors.
        evaluate: more arguments of their loop.
        min_crop: smallest side of their crops, in pixels.
        square: side, in pixels, of what their network sees of any image; 0 where it sees crops of 400 pixels, and the
            image before them as it is.
        logits: mean and deviation that the logits of ``tiny`` are scaled to.
    """

    specs: Mapping[str, ModelSpec]
    place: tuple[str, str]
    params: Callable[[str], dict[str, Any]]
    zoom_in: Mapping[str, Any]
    last: str
    tiny: tuple[Mapping[str, Any], Mapping[str, Any]]
    modes: tuple[str, str] = ("NoBRS", "NoBRS")
    predictor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluate: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    min_crop: int = 200
    square: int = 0
    logits: tuple[float, float] = (-1.0, 2.0)

    @property
    def class_name(self) -> str:
        """Full name of their class."""
        return f"isegm.{self.place[0]}.{self.place[1]}"


def ritm_params(architecture: str) -> dict[str, Any]:
    """Return the arguments of RITM's class."""
    size = ritm.ARCHITECTURES.get(architecture, {"width": 4, "ocr_width": 4, "small": True})
    inputs = {"use_rgb_conv": False, "use_disks": True, "norm_radius": 5, "with_prev_mask": True}
    return {**size, **inputs, "with_aux_output": True, "use_leaky_relu": True}


def simpleclick_params(architecture: str) -> dict[str, Any]:
    """Return the arguments of SimpleClick's class, but for the loss."""
    tiny = {"backbone_params": {"embed_dim": 32, "depth": 8, "patch_size": [16, 16]}}
    given: dict[str, Any] = {**simpleclick.ARCHITECTURES, "tiny": tiny}[architecture]["backbone_params"]
    heads, finest, channels, side = {
        "vit_b": (12, 128, 256, 448),
        "vit_l": (16, 192, 256, 448),
        "vit_h": (16, 240, 256, 448),
    }.get(architecture, (2, 8, 16, 224))
    scales = [finest * 2**i for i in range(4)]
    backbone = {**given, "patch_size": tuple(given["patch_size"]), "img_size": (side, side), "in_chans": 3}
    head = {"in_channels": scales, "in_index": [0, 1, 2, 3], "dropout_ratio": 0.1, "num_classes": 1}
    return {
        "use_disks": True,
        "norm_radius": 5,
        "with_prev_mask": True,
        "backbone_params": {**backbone, "num_heads": heads, "mlp_ratio": 4, "qkv_bias": True},
        "neck_params": {"in_dim": given["embed_dim"], "out_dims": scales},
        "head_params": {**head, "align_corners": False, "upsample": "x1", "channels": channels},
        "random_split": False,
    }


def focalclick_params(architecture: str) -> dict[str, Any]:
    """Return the arguments of FocalClick's class; ``tiny`` is the smallest that there is."""
    size = focalclick.ARCHITECTURES.get(architecture, focalclick.ARCHITECTURES["segformer_b0_s2"])
    inputs = {"use_rgb_conv": False, "use_disks": True, "norm_radius": 5, "with_prev_mask": True}
    return {**size, **inputs, "binary_prev_mask": False, "with_aux_output": True, "use_leaky_relu": True}


FAMILIES = {
    "ritm": Family(
        specs={"hrnet18s": ritm.HRNET18S, "hrnet18": ritm.HRNET18, "hrnet32": ritm.HRNET32},
        place=("model.is_hrnet_model", ritm.CLASS),
        params=ritm_params,
        zoom_in={"target_size": 400},
        last="feature_extractor.cls_head.",
        tiny=({"target_size": 60, "min_crop_size": 20}, {"zoom_in": 60, "zoom_in_min_crop": 20}),
    ),
    "simpleclick": Family(
        specs={"vit_b": simpleclick.VIT_B, "vit_l": simpleclick.VIT_L, "vit_h": simpleclick.VIT_H},
        place=("model.is_plainvit_model", simpleclick.CLASS),
        params=simpleclick_params,
        zoom_in={"skip_clicks": -1, "target_size": (448, 448)},
        last="head.conv_seg.",
        tiny=({"min_crop_size": 20}, {"zoom_in_min_crop": 20}),  # trained at 224, so positions are interpolated
        square=448,
    ),
    "focalclick": Family(
        specs={
            "segformer_b0_s1": focalclick.SEGFORMER_B0_S1,
            "segformer_b0_s2": focalclick.SEGFORMER_B0_S2,
            "segformer_b3_s2": focalclick.SEGFORMER_B3,
        },
        place=("model.is_segformer_model", focalclick.CLASS),
        params=focalclick_params,
        zoom_in={"expansion_ratio": 1.4},
        last="feature_extractor.decode_head.linear_pred.",
        tiny=({}, {}),
        modes=("FocalClick", "NoBRS"),
        predictor={"infer_size": 256, "focus_crop_r": 1.4},
        evaluate={"init_mask": None, "vis": False},
        min_crop=10,
        square=256,
    ),
}


def build(family: Family, architecture: str) -> Any:
    """Return their network with random weights; a config with the loss object, where their class takes one."""
    params = family.params(architecture)
    if "head_params" in params:
        loss = theirs("model.modeling.transformer_helper.cross_entropy_loss", "CrossEntropyLoss")()
        params["head_params"]["loss_decode"] = loss
    network = theirs(*family.place)(**params)
    network.eval().requires_grad_(requires_grad=False)
    return network


def draw_weights(network: torch.nn.Module, seed: int) -> None:
    """Fill a network, norms and their statistics included, from NumPy's PCG64, in the order of the names."""
    rng = np.random.default_rng(seed)
    for name, value in sorted(network.state_dict().items()):
        if not value.is_floating_point():
            continue
        if name.endswith(("running_var", "weight", "scale")) and value.ndim == 1:
            drawn = rng.uniform(0.5, 1.5, value.shape)
        else:
            fan_in = max(1, value[0].numel()) if value.ndim > 1 else 100
            drawn = rng.normal(0, 0.7 / np.sqrt(fan_in), value.shape)
        value.copy_(torch.from_numpy(drawn))


def spread_logits(network: Any, family: Family, predictor: Any, image: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Change the last layer so that the logits of one image have the family's mean and deviation; return how."""
    height, width = image.shape[:2]
    predictor.set_input_image(image)
    probabilities = predictor.get_prediction(clicker([(height // 2, width // 2, True)])).astype(np.float64)
    logits = np.log(probabilities / (1 - probabilities))
    factor = float(family.logits[1] / logits.std())
    shift = float(family.logits[0] - factor * logits.mean())
    change_last(network, family.last, factor, shift)
    return factor, shift


def fit_last_layer(network: Any, family: Family, samples: Sequence[Sample]) -> None:
    """Fit the layer that makes the logits to samples by least squares.

    The features stay random, but masks then follow objects and clicks, so that crops, clicks and their numbers are as
    many and as different as with trained weights.
    """
    shown = [(sample, again) for sample in samples for again in (False, True)]
    parts = [regression(network, family, sample, again=again) for sample, again in shown]
    features, wanted, weight = (torch.cat(part).double() for part in zip(*parts, strict=True))
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    gram = features.T @ (features * weight[:, None]) + 1e-3 * torch.eye(features.shape[1])
    solution = torch.linalg.solve(gram, features.T @ (wanted * weight))
    network.get_parameter(f"{family.last}weight").copy_(solution[:-1].view(1, -1, 1, 1))
    network.get_parameter(f"{family.last}bias").copy_(solution[-1:])


def regression(
    network: Any, family: Family, sample: Sample, *, again: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (N, C) features, (N,) logits to have and (N,) weights, both classes as heavy, for one click.

    The network sees the whole image without a previous mask, or ``again`` the crop round the target, which it is given.
    """
    image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float().div(255)
    target = torch.from_numpy(sample.target)[None, None].float()
    clicks = clicks_of(ritm_click(sample.target, None, Prompt(), UNUSED))
    found = object_roi(sample.target, clicks, 1.4, family.min_crop) if again else None
    roi = found or Roi(0, sample.target.shape[0] - 1, 0, sample.target.shape[1] - 1)
    seen, ((row, column, _),) = crop(torch.cat([image, target], dim=1), clicks, roi, seen_hw(family, roi, again=again))
    points = torch.tensor([[[row, column, 0.0], [-1.0, -1.0, -1.0]]])
    features = features_of(network, family, torch.cat([seen[:, :3], seen[:, 3:] * again], dim=1), points)
    inside = torch.nn.functional.interpolate(seen[:, 3:], features.shape[2:], mode="area").flatten() > 0.5
    weight = torch.where(inside, 0.5 / max(1, int(inside.sum())), 0.5 / int((~inside).sum()))
    return features[0].flatten(1).T, torch.where(inside, 4.0, -4.0), weight


def seen_hw(family: Family, roi: Roi, *, again: bool) -> tuple[int, int]:
    """Return height and width of what a network sees of the whole image, or ``again`` of a crop."""
    scale = 400 / max(roi.size_hw) if again else 1
    height, width = roi.size_hw
    return (family.square, family.square) if family.square else (round(height * scale), round(width * scale))


def features_of(network: Any, family: Family, square: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return (1, C, h, w), what the layer that makes the logits is given."""
    seen: list[torch.Tensor] = []
    last = network.get_submodule(family.last.removesuffix("."))
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(square, points)
    hook.remove()
    return seen[-1]


def change_last(network: torch.nn.Module, last: str, factor: float, shift: float) -> None:
    """Multiply the logits that a network makes, and add to them."""
    network.get_parameter(f"{last}weight").mul_(factor)
    network.get_parameter(f"{last}bias").mul_(factor).add_(shift)


# ---------------------------------------------------------------------------------------------- images and clicks


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and what is to be found in it.

    Attributes:
        name: of the set and the file.
        image: (H, W, 3) uint8.
        target: (H, W) bool.
    """

    name: str
    image: npt.NDArray[np.uint8]
    target: Mask

    @property
    def set_name(self) -> str:
        """Name of the set."""
        return self.name.partition("/")[0]


def read_samples(data: Path, per_set: int, sets: Sequence[str]) -> Iterator[Sample]:
    """Yield the first images, by name, of each set that has ``images`` and ``masks``; all labels are the object."""
    for folder in sorted(path.parent for path in data.glob("*/images")):
        if not sets or folder.name in sets:
            yield from itertools.islice(_pairs(folder), per_set)


def _pairs(folder: Path) -> Iterator[Sample]:
    for path in sorted((folder / "images").iterdir()):
        mask = folder / "masks" / path.name
        if mask.is_file() and (target := read_labels(mask, mask.name) > 0).any():
            yield Sample(f"{folder.name}/{path.name}", read_image(path, path.name), target)


Clicks = list[tuple[int, int, bool]]
"""(row, column, positive), in their order."""


@dataclass(frozen=True, eq=False)
class Run:
    """One image clicked to the end: clicks, the probabilities and IoU after each, the processor's seconds."""

    clicks: Clicks
    maps: list[npt.NDArray[np.float32]]
    ious: list[float]
    seconds: float


def run_theirs(predictor: Any, sample: Sample, count: int, **more: Any) -> Run:
    """Evaluate an image by their loop; ``more`` are arguments of it."""
    evaluate = theirs("inference.evaluation", "evaluate_sample")
    maps: list[npt.NDArray[np.float32]] = []
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # some of them print as they go
        clicks, ious, _ = evaluate(
            image=sample.image,
            gt_mask=sample.target.astype(np.int32),
            predictor=predictor,
            max_iou_thr=1.01,  # never reached: every run has all its clicks
            max_clicks=count,
            callback=lambda *given: maps.append(given[2]),
            **more,
        )
    seconds = time.process_time() - began
    taken = [(int(c.coords[0]), int(c.coords[1]), bool(c.is_positive)) for c in clicks]
    return Run(taken, maps, [float(value) for value in ious], seconds)


def run_ours(model: Any, sample: Sample, count: int, given: Clicks | None = None, begin: Mask | None = None) -> Run:
    """Evaluate an image by our model, with its own clicks or given ones; it may begin with a mask."""
    run, prompt = Run([], [], [], 0.0), Prompt()
    mask, state = (np.zeros_like(sample.target), None) if begin is None else (begin, model.start(begin))
    began = time.process_time()
    (embedding,) = model.embed([sample.image])
    for step in range(count):
        prompt = as_prompt(given[: step + 1]) if given else ritm_click(sample.target, mask, prompt, UNUSED)
        prediction = model.predict([Request(embedding, prompt, state)])[0]
        mask, state = prediction.masks[0], prediction.state
        run.maps.append(state.probabilities[0, 0].cpu().numpy())
        run.ious.append(iou(mask, sample.target))
    seconds = time.process_time() - began
    return dataclasses.replace(run, clicks=as_clicks(prompt), seconds=seconds)


def as_prompt(clicks: Clicks) -> Prompt:
    """Return clicks as points in x and y."""
    points = np.array([(column, row) for row, column, _ in clicks], dtype=np.float32)
    return Prompt(points_xy=points, labels=np.array([int(positive) for *_, positive in clicks]))


def as_clicks(prompt: Prompt) -> Clicks:
    """Return points in x and y as clicks."""
    pairs = zip(prompt.points_xy, prompt.labels, strict=True)
    return [(int(row), int(column), bool(label)) for (column, row), label in pairs]


# ---------------------------------------------------------------------------------------------- comparison


@dataclass
class Verdict:
    """What was found so far, for one architecture and profile."""

    difference: float = 0.0
    same_clicks: bool = True
    same_iou: bool = True
    same_noc: bool = True
    theirs: float = 0.0
    ours: float = 0.0
    runs: list[Run] = dataclasses.field(default_factory=list, repr=False)

    def problems(self) -> list[str]:
        """Return what is not as it must be."""
        found = {
            f"maps differ by {self.difference:.1e}": self.difference >= TOLERANCE,
            "other clicks": not self.same_clicks,
            "other IoU": not self.same_iou,
            "other NoC": not self.same_noc,
            f"{self.ours / self.theirs:.2f} times as slow": self.ours > SLOWDOWN * self.theirs,
        }
        return [text for text, wrong in found.items() if wrong]


def same_iou(one: Run, other: Run, threshold: float, target: Mask) -> bool:
    """Whether IoUs agree, but for pixels so near the threshold that a permitted difference of maps moves them over."""
    near = [int((np.abs(probabilities - threshold) < TOLERANCE).sum()) for probabilities in other.maps]
    allowed = 1e-6 + np.array(near) / target.sum()
    return bool((np.abs(np.subtract(one.ious, other.ious)) <= allowed).all())


def noc(ious: Sequence[float], threshold: float) -> int | None:
    """Return the number of clicks to an IoU, None where it was not reached."""
    return next((click for click, value in enumerate(ious, start=1) if value >= threshold), None)


def compare(
    predictor: Any, model: Segmenter, samples: Sequence[Sample], clicks: int, *, initial: bool, **more: Any
) -> Verdict:
    """Compare on every sample, and print a line for each.

    Args:
        predictor: theirs.
        model: ours.
        samples: what to click on.
        clicks: how often.
        initial: whether to begin with a mask, the target beside its place.
        more: arguments of their loop.
    """
    verdict = Verdict()
    more["pred_thr"] = model.spec.options["threshold"]
    for sample in samples:
        begin = np.roll(sample.target, SHIFT, axis=(0, 1)) if initial else None
        given = {} if begin is None else {"init_mask": begin.astype(np.float32)}
        reference = run_theirs(predictor, sample, clicks, **{**more, **given})
        own = run_ours(model, sample, clicks, begin=begin)
        same_clicks = own.clicks == reference.clicks
        compared = own if same_clicks else run_ours(model, sample, clicks, reference.clicks, begin)
        gaps = [float(np.abs(a - b).max()) for a, b in zip(reference.maps, compared.maps, strict=True)]
        verdict.difference = max(verdict.difference, *gaps)
        verdict.same_clicks &= same_clicks
        verdict.same_iou &= same_iou(own, reference, more["pred_thr"], sample.target)
        verdict.same_noc &= all(noc(own.ious, t) == noc(reference.ious, t) for t in NOC_AT)
        verdict.theirs += reference.seconds
        verdict.ours += own.seconds
        verdict.runs.append(own)
        shown = ", ".join(f"{click}: {gaps[click - 1]:.1e}" for click in (1, 2, 3, 9, 20) if click <= clicks)
        size = "x".join(map(str, sample.target.shape))
        print(
            f"  {sample.name} {size}, difference after clicks {shown}; mask {compared.maps[-1].mean():.2f}, "
            f"IoU {min(reference.ious):.3f} to {max(reference.ious):.3f}, "
            f"clicks {'equal' if same_clicks else 'DIFFER'}, "
            f"seconds {reference.seconds:.2f} and {own.seconds:.2f}",
            flush=True,
        )
    return verdict


class Forgetful:
    """Their predictor as the study of 2023 called it: the image is set again before each click, the state with it."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self._image: Any = None
        self.zoom_in = predictor.zoom_in  # CFR-ICL's loop hands it to its callback

    def set_input_image(self, image: Any) -> None:
        """Keep the image."""
        self._image = image

    def get_prediction(self, clicker: Any) -> Any:
        """Answer all clicks at once."""
        self._predictor.set_input_image(self._image)
        return self._predictor.get_prediction(clicker)


def predictor_of(family: Family, network: Any, mode: str, zoom_in: Mapping[str, Any], cascade: int = 1) -> Any:
    """Return their predictor; ``cascade`` is the number of passes for the first click, of CFR-ICL's repository."""
    extra = {"cascade_step": cascade, "cascade_adaptive": True, "cascade_clicks": 1} if cascade > 1 else {}
    if "backbone_params" in network._config["params"]:
        fit = theirs("model.modeling.pos_embed", "interpolate_pos_embed_inference")
        fit(network.backbone, zoom_in.get("target_size", (448, 448)), torch.device("cpu"))
    return theirs("inference.predictors", "get_predictor")(
        network,
        mode,
        torch.device("cpu"),
        prob_thresh=0.49,
        zoom_in_params=dict(zoom_in),
        predictor_params=extra,
        **family.predictor,
    )


def compare_architecture(family: Family, architecture: str, samples: Sequence[Sample], options: Any) -> list[str]:
    """Compare both profiles of an architecture; return what is wrong."""
    network = build(family, architecture)
    draw_weights(network, options.seed)
    first, second = (predictor_of(family, network, mode, family.zoom_in, options.cascade) for mode in family.modes)
    fit_last_layer(network, family, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save({"state_dict": network.state_dict(), "config": network._config}, path)
        models = [ours(spec, path, options.cascade) for spec in profiles(family.specs[architecture])]
        if options.project:
            write_project(options.project, options.family, path, samples)
    problems = []
    for model, reference in zip(models, (first, Forgetful(second)), strict=True):
        print(f"{model.spec.name}: {len(samples)} images, {options.clicks} clicks", flush=True)
        initial = options.initial_mask and "feedback" in model.spec.accepts
        verdict = compare(reference, model, samples, options.clicks, initial=initial, **family.evaluate)
        print(f"  {verdict}, {verdict.ours / verdict.theirs:.2f} times their time")
        problems += [f"{model.spec.name}: {problem}" for problem in verdict.problems()]
        if options.project and model is models[0]:
            problems += compare_project(options.project, options.family, samples, verdict)
    return problems


# ---------------------------------------------------------------------------------------------- a project for pytest

_IMPORTS = "import pytest, torch, promptseg.runner.run, promptseg.models.click._inference"


def write_project(folder: Path, family: str, checkpoint: Path, samples: Sequence[Sample]) -> None:
    """Write a project with the samples as data sets SET_sample and a model FAMILY_random, beside those it has."""
    for kind in (
        "weights",
        *(f"{sample.set_name}_sample/{part}" for sample in samples for part in ("images", "masks")),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "weights" / f"{family}.pth")
    for sample in samples:
        name = Path(sample.name).with_suffix(".png").name
        cv2.imwrite(str(folder / f"{sample.set_name}_sample" / "images" / name), sample.image[:, :, ::-1])
        cv2.imwrite(str(folder / f"{sample.set_name}_sample" / "masks" / name), sample.target.astype(np.uint8))
    sets = sorted(path.name for path in folder.glob("*_sample"))
    models = sorted(path.stem for path in (folder / "weights").glob("*.pth"))
    tables = [f'[datasets.{name}]\nfolder = "{name}"\nmodality = "{name.partition("_")[0]}"\n' for name in sets]
    tables += [
        f'[models.{name}_random]\nadapter = "{name}"\nfolder = "weights"\nfiles = {{checkpoint = "{name}.pth"}}\n'
        for name in models
    ]
    (folder / "promptseg.toml").write_text("\n".join(tables), encoding="utf-8")


def run_project(folder: Path, family: str, tasks: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Run ``noc`` of a family's model by pytest; return the cells by task, and the processor's seconds.

    What Python needs to import is not in them, nor is it in those of the authors' loop.
    """
    scores = folder / f"{family}.json"
    scores.unlink(missing_ok=True)
    cells = ("--seg-models", f"{family}_random", "--seg-tasks", ",".join(tasks), "--seg-modes", "noc")
    how = ("--seg-rerun", "--seg-device", "cpu", "--seg-json", str(scores))
    imports = children_seconds("-c", _IMPORTS)
    seconds = children_seconds("-m", "pytest", "--pyargs", "promptseg.benchmark", "-q", *cells, *how, cwd=folder)
    return {cell["task"]: cell for cell in json.loads(scores.read_text())["cells"]}, seconds - imports


def children_seconds(*arguments: str, cwd: Path | None = None) -> float:
    """Run this Python and return the processor's seconds it took."""
    before = os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, check=False, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}:\n{done.stdout.decode()}{done.stderr.decode()}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def compare_project(folder: Path, family: str, samples: Sequence[Sample], verdict: Verdict) -> list[str]:
    """Compare what pytest says with what our model said here, IoU after each click; return what is wrong."""
    names = sorted({sample.set_name for sample in samples})
    cells, seconds = run_project(folder, family, [f"{name}_sample" for name in names])
    problems = []
    for name in names:
        here = [run.ious for sample, run in zip(samples, verdict.runs, strict=True) if sample.set_name == name]
        found = cells[f"{name}_sample"]
        curve = np.array(found["iou_per_click"]["confident"])
        print(f"  by pytest, {name}: {found['noc']}")
        if len(curve) != len(here[0]) or not np.allclose(curve, np.mean(here, axis=0), rtol=0, atol=1e-9):
            problems.append(f"by pytest, {name}: other IoU, {curve}")
    print(f"  by pytest: {seconds:.2f} seconds, {seconds / verdict.theirs:.2f} times the time of the authors' loop")
    return problems + ["by pytest: too slow"] * (seconds > SLOWDOWN * verdict.theirs)


# ---------------------------------------------------------------------------------------------- numbers for tests

TINY_SIZES = ((70, 90), (41, 33))
TINY_CLICKS = ((0.5, 0.5, True), (0.3, 0.6, True), (0.8, 0.2, False), (0.55, 0.45, True))
"""(row and column as parts of the image, positive)."""


def tiny_image(size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return an (H, W, 3) image of soft blobs, drawn from NumPy's PCG64."""
    noise = np.random.default_rng(7).uniform(0, 255, (*size_hw, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    least, most = float(blurred.min()), float(blurred.max())
    return ((blurred - least) / (most - least) * 255).astype(np.uint8)


def tiny_clicks(size_hw: tuple[int, int]) -> Clicks:
    """Return `TINY_CLICKS` in pixels."""
    return [(int(row * size_hw[0]), int(column * size_hw[1]), positive) for row, column, positive in TINY_CLICKS]


def probe(probabilities: npt.NDArray[np.float32]) -> list[float]:
    """Return the mean and a few pixels of an (H, W) map."""
    height, width = probabilities.shape
    pixels = [probabilities[int(y * height), int(x * width)] for y, x in ((0.5, 0.5), (0.2, 0.7), (0.9, 0.1))]
    return [round(float(value), 6) for value in (probabilities.mean(), *pixels)]


def golden(family: Family) -> dict[str, Any]:
    """Return what the authors' repository answers with tiny weights: after each click, and to all clicks at once."""
    network = build(family, "tiny")
    draw_weights(network, 0)
    zoom_in = {**family.zoom_in, **family.tiny[0]}
    predictor, forgetful = (predictor_of(family, network, mode, zoom_in) for mode in family.modes)
    factor, shift = spread_logits(network, family, predictor, tiny_image(TINY_SIZES[0]))
    answers = {}
    for size_hw in TINY_SIZES:
        predictor.set_input_image(tiny_image(size_hw))
        clicks = tiny_clicks(size_hw)
        fed_back = [probe(predictor.get_prediction(clicker(clicks[: i + 1]))) for i in range(len(clicks))]
        forgetful.set_input_image(tiny_image(size_hw))
        at_once = probe(forgetful.get_prediction(clicker(clicks)))
        answers["x".join(map(str, size_hw))] = {"fed_back": fed_back, "at_once": at_once}
    return {"factor": factor, "shift": shift, "answers": answers}


def clicker(clicks: Clicks) -> Any:
    """Return their clicker with these clicks, NumPy's integers as in their loop: with Python's, torch rounds more."""
    click = theirs("inference.clicker", "Click")
    given = [click(is_positive=good, coords=(np.int64(row), np.int64(column))) for row, column, good in clicks]
    return theirs("inference.clicker", "Clicker")(init_clicks=given)


# ---------------------------------------------------------------------------------------------- command line


def profiles(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """Return a model as its authors and as the study of 2023 evaluate it."""
    return spec, registered().model(f"{spec.name}{PAPER_2023}")


def ours(spec: ModelSpec, path: Path, cascade: int) -> Segmenter:
    """Return our model with the weights of a file."""
    extra = {"cascade_passes": cascade, "cascade_adaptive": True} if cascade > 1 else {}
    spec = dataclasses.replace(spec, options={**spec.options, **extra})
    model: Segmenter = resolve(spec.load)(spec, {"checkpoint": path}, Runtime())
    return model


def read_options() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(FAMILIES), required=True)
    parser.add_argument("--repo", type=Path, required=True, help="clone of the authors' repository")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--data", type=Path, help="compare on this folder of SET/images and SET/masks")
    work.add_argument("--golden", type=Path, help="write the numbers that the tests hold us to into this file")
    parser.add_argument("--architecture", action="append", help="one of the family's; default: all, repeat for several")
    parser.add_argument("--per-set", type=int, default=1, help="images of each set (default: 1)")
    parser.add_argument(
        "--sets", type=lambda text: text.split(","), default=[], help="only these sets, separated by commas"
    )
    parser.add_argument("--clicks", type=int, default=9, help="clicks on each image (default: 9)")
    parser.add_argument("--cascade", type=int, default=1, help="passes for the first click, with CFR-ICL's repository")
    parser.add_argument("--initial-mask", action="store_true", help="begin with a mask (only family focalclick)")
    parser.add_argument("--project", type=Path, help="also run noc by pytest, in this folder (needs --clicks 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    return parser.parse_args()


def main() -> int:
    """Compare and report."""
    options = read_options()
    warnings.simplefilter("ignore")  # of their repositories, about their age
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    open_repository(options.repo)
    family = FAMILIES[options.family]
    if options.golden:
        options.golden.write_text(json.dumps(golden(family), indent=1) + "\n")
        return 0
    samples = list(read_samples(options.data, options.per_set, options.sets))
    if not samples:
        raise SystemExit(f"{options.data} has no images with masks of the same name.")
    problems = []
    with private_cache():
        for architecture in options.architecture or family.specs:
            problems += compare_architecture(family, architecture, samples, options)
    print("\n".join(problems) or "all equal")
    return 1 if problems else 0


@contextlib.contextmanager
def private_cache() -> Iterator[None]:
    """Keep conversions of random weights out of the user's cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMPTSEG_CACHE"] = folder
        yield


if __name__ == "__main__":
    raise SystemExit(main())
