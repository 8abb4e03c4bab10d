"""Compare our model with their predictor, image by image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from promptseg.segmenter import Mask, Segmenter
from rivals.clicking import Run, Sample, run_ours, run_theirs
from rivals.families import Family
from rivals.repository import theirs

TOLERANCE = 1e-4
SLOWDOWN = 1.3
NOC_AT = tuple(i / 20 for i in range(1, 20))  # the protocol's 0.80, 0.85 and 0.90, and what random weights reach
SHIFT = (7, 5)  # pixels


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
