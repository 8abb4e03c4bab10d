"""How the authors of each family build and evaluate their networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from promptseg.models.click import focalclick, ritm, simpleclick
from promptseg.specs import ModelSpec
from rivals.repository import theirs


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
