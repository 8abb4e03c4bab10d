"""SimpleClick: click models on plain ViTs (Liu et al. 2023), from their authors' checkpoints; see docs/rivals.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import ConfigError
from promptseg.models.click._specs import paper2023
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from torch import Tensor, nn

    from promptseg.models.click._checkpoint import Checkpoint
    from promptseg.models.click._inference import ClickSegmenter, ClickSettings
    from promptseg.segmenter import Runtime
from promptseg.models.click._specs import WINDOW

ARCHITECTURES = {
    "vit_b": {"backbone_params": {"embed_dim": 768, "depth": 12, "patch_size": [16, 16]}},
    "vit_l": {"backbone_params": {"embed_dim": 1024, "depth": 24, "patch_size": [16, 16]}},
    "vit_h": {"backbone_params": {"embed_dim": 1280, "depth": 32, "patch_size": [14, 14]}},
}
CLASS = "PlainVitModel"
_PAGE = Origin(
    host="web",
    repo="https://github.com/uncbiag/SimpleClick#download",
    seen="The page leads to a folder of Google Drive. Names of the files were seen, the files and their sums were not.",
)
_SETTINGS = {
    "zoom_in": [448, 448],
    "zoom_in_from_click": 1,
    "flip": True,
    "threshold": 0.49,
    "click_radius": 5,
    "previous_mask": True,
}


def _spec(architecture: str, file: str, *, gpu: bool) -> ModelSpec:
    return ModelSpec(
        name=f"simpleclick_{architecture}",
        family="simpleclick",
        load="promptseg.models.click.simpleclick:load",
        licence="MIT",
        accepts=frozenset({"points", "feedback"}),
        origin=_PAGE,
        weights=(WeightFile(role="checkpoint", path=file),),
        options={"architecture": architecture, **_SETTINGS},
        training_data=("coco", "lvis"),
        url="https://arxiv.org/abs/2210.11006",
        gpu=gpu,
    )


VIT_B = _spec("vit_b", "cocolvis_vit_base.pth", gpu=False)
VIT_L = _spec("vit_l", "cocolvis_vit_large.pth", gpu=True)
VIT_H = _spec("vit_h", "cocolvis_vit_huge.pth", gpu=True)
VIT_B_PAPER2023, VIT_L_PAPER2023, VIT_H_PAPER2023 = map(paper2023, (VIT_B, VIT_L, VIT_H))


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> ClickSegmenter:
    """Load a SimpleClick or CFR-ICL model from a checkpoint of its authors; the config in it says the architecture.

    Files: ``checkpoint``. Options: ``architecture``, one of `ARCHITECTURES`, which the checkpoint must then be of; and
    those of `promptseg.models.click._inference.ClickSettings`. The input has one size, so ``zoom_in`` is a height and a
    width, multiples of 224, from the first click on; positions are interpolated where the training had another size.

    Raises:
        ConfigError: an unknown option or value, or a missing file.
        IntegrityError: the file is unreadable, names code, or does not fit.
        UnavailableError: timm is not installed.
    """
    from promptseg.models._loading import check_options, file_of
    from promptseg.models.click._checkpoint import check_architecture, read_checkpoint
    from promptseg.models.click._inference import ClickSettings, check_network_inputs, place, setting_names

    check_options(spec, {"architecture", *setting_names()})
    settings = ClickSettings.of(spec, ClickSettings(zoom_in=(448, 448), zoom_in_from_click=1))
    checkpoint = read_checkpoint(spec, file_of(spec, files, "checkpoint"), CLASS)
    check_network_inputs(checkpoint, settings, owner=spec.name)
    check_architecture(checkpoint, spec, ARCHITECTURES)
    return place(spec, _fitted(checkpoint, _input_size(spec, settings)), network, settings, runtime)


def network(params: Mapping[str, Any]) -> nn.Module:
    """Return the network, without weights, for the arguments that the config of a checkpoint holds."""
    from promptseg.models._loading import import_torchvision

    import_torchvision()  # timm imports it
    from promptseg.models.click._plain_vit import ClickViT

    return ClickViT(params["backbone_params"], params["neck_params"], params["head_params"])


def _input_size(spec: ModelSpec, settings: ClickSettings) -> tuple[int, int]:
    size = settings.zoom_in
    if not isinstance(size, tuple) or settings.zoom_in_from_click > 1 or any(n == 0 or n % WINDOW for n in size):
        raise ConfigError(
            f"model {spec.name}: its input has one size, so zoom_in must be [height, width], multiples of {WINDOW}, "
            f"and zoom_in_from_click 1; they are {size} and {settings.zoom_in_from_click}."
        )
    return size


def _fitted(checkpoint: Checkpoint, size_hw: tuple[int, int]) -> Checkpoint:
    """Return the checkpoint for inputs of another size than it was trained on: its positions interpolated."""
    backbone = checkpoint.params["backbone_params"]
    trained_hw, (patch_height, patch_width) = backbone["img_size"], backbone["patch_size"]
    if tuple(trained_hw) == size_hw:
        return checkpoint
    grid_hw, wanted_hw = ((h // patch_height, w // patch_width) for h, w in (trained_hw, size_hw))
    positions = _resampled(checkpoint.state["backbone.pos_embed"], grid_hw, wanted_hw)
    return dataclasses.replace(
        checkpoint,
        state={**checkpoint.state, "backbone.pos_embed": positions},
        params={**checkpoint.params, "backbone_params": {**backbone, "img_size": list(size_hw)}},
    )


def _resampled(positions: Tensor, grid_hw: tuple[int, int], wanted_hw: tuple[int, int]) -> Tensor:
    """Return the (1, 1 + N, C) embedding of positions for another grid; the first, of the class token, stays."""
    import torch
    from torch.nn import functional

    grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, *grid_hw)
    fitted = functional.interpolate(grid, size=wanted_hw, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], fitted.flatten(2).transpose(1, 2)], dim=1)
