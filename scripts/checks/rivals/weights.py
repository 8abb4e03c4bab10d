"""Random weights whose last layer makes masks that follow objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from promptseg.models.click._inference import Roi, clicks_of, crop, object_roi
from promptseg.prompts import ritm_click
from promptseg.segmenter import Prompt
from rivals.clicking import UNUSED, Sample, clicker
from rivals.families import Family


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
