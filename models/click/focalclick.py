"""FocalClick: click models on SegFormer (Chen et al. 2022), from their authors' checkpoints; see docs/rivals.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import IntegrityError
from promptseg.models.click._specs import paper2023
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from promptseg.models.click._checkpoint import Checkpoint
    from promptseg.models.click._focalclick import FocalClickSegmenter
    from promptseg.segmenter import Runtime

# The arguments of the authors' class. In its pipeline s1 the first network sees half the size.
ARCHITECTURES = {
    "segformer_b0_s1": {"model_version": "b0", "pipeline_version": "s1"},
    "segformer_b0_s2": {"model_version": "b0", "pipeline_version": "s2"},
    "segformer_b3_s2": {"model_version": "b3", "pipeline_version": "s2"},
}
CLASS = "SegFormerModel"
_CLICK_RADIUS = {"s1": 3, "s2": 5}  # as the networks were trained
_INPUTS = {"with_prev_mask": True, "binary_prev_mask": False}
_FOLDER = Origin(
    host="web",
    repo="https://drive.google.com/drive/folders/1XzUlpPqbzAyMt009HVpEeW31ln1FeXfX",
    seen="The authors' README leads to this folder. The file of B3 was seen by name; the files and sums were not seen.",
)
_SETTINGS = {
    "input_size": 256,
    "previous_mask": True,
    "zoom_in_from_click": 2,
    "zoom_in_expansion": 1.4,
    "zoom_in_min_crop": 10,
    "focus_expansion": 1.4,
    "focus_click_radius": 5,
    "focus_only_after": 10,
    "crop_threshold": 0.49,
    "threshold": 0.5,
}


def _spec(name: str, architecture: str, file: str, training_data: tuple[str, ...]) -> ModelSpec:
    radius = _CLICK_RADIUS[ARCHITECTURES[architecture]["pipeline_version"]]
    return ModelSpec(
        name=f"focalclick_{name}",
        family="focalclick",
        load="promptseg.models.click.focalclick:load",
        licence="Apache-2.0",
        accepts=frozenset({"points", "feedback"}),
        origin=_FOLDER,
        weights=(WeightFile(role="checkpoint", path=file),),
        options={"architecture": architecture, "click_radius": radius, **_SETTINGS},
        training_data=training_data,
        url="https://arxiv.org/abs/2204.02574",
    )


def _paper2023(spec: ModelSpec) -> ModelSpec:
    """Return a model as the study of 2023 ran it: also without the second look, and with another threshold."""
    shared = paper2023(spec)
    return dataclasses.replace(shared, options={**shared.options, "focus_expansion": 0.0, "threshold": 0.49})


_COCO_LVIS = ("coco", "lvis")
_COMBINED = (*_COCO_LVIS, "youtube_vos", "ade20k", "msra10k", "duts", "hflickr", "thinobject_5k")

SEGFORMER_B0_S1 = _spec("segformer_b0_s1", "segformer_b0_s1", "segformerB0_S1_cclvs.pth", _COCO_LVIS)
SEGFORMER_B0_S2 = _spec("segformer_b0_s2", "segformer_b0_s2", "segformerB0_S2_cclvs.pth", _COCO_LVIS)
SEGFORMER_B3 = _spec("segformer_b3", "segformer_b3_s2", "segformerB3_S2_comb.pth", _COMBINED)
SEGFORMER_B0_S1_PAPER2023, SEGFORMER_B0_S2_PAPER2023, SEGFORMER_B3_PAPER2023 = map(
    _paper2023, (SEGFORMER_B0_S1, SEGFORMER_B0_S2, SEGFORMER_B3)
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> FocalClickSegmenter:
    """Load a FocalClick model from a checkpoint of its authors' code; the config in it says the architecture.

    Files: ``checkpoint``. Options: ``architecture``, one of `ARCHITECTURES`, which the checkpoint must then be of; and
    those of `promptseg.models.click._focalclick.FocalSettings`.

    Raises:
        ConfigError: an unknown option or value, or a missing file.
        IntegrityError: the file is unreadable, names code, or does not fit.
    """
    import torch

    from promptseg.models._loading import check_options, file_of, load_strict
    from promptseg.models.click._checkpoint import check_architecture, read_checkpoint
    from promptseg.models.click._focalclick import FocalClickSegmenter, FocalSettings
    from promptseg.models.click._focalclick_net import SIZES, FocalClickNet

    check_options(spec, {"architecture", *FocalSettings.names()})
    settings = FocalSettings.of(spec)
    checkpoint = read_checkpoint(spec, file_of(spec, files, "checkpoint"), CLASS)
    check_architecture(checkpoint, spec, ARCHITECTURES)
    _check_network(checkpoint, settings.click_radius, spec)
    with torch.device("meta"):
        network = FocalClickNet(SIZES[checkpoint.params["model_version"]], halve=_pipeline(checkpoint) == "s1")
    load_strict(network, checkpoint.state, spec, checkpoint.path)
    network.eval().requires_grad_(requires_grad=False).to(runtime.device)
    return FocalClickSegmenter(spec, network, settings, runtime)


def _pipeline(checkpoint: Checkpoint) -> str:
    return str(checkpoint.params.get("pipeline_version"))


def _check_network(checkpoint: Checkpoint, click_radius: int, spec: ModelSpec) -> None:
    """Raise unless a checkpoint is of a known architecture, and trained on what it will be shown."""
    held = {key: checkpoint.params.get(key) for key in ("model_version", "pipeline_version")}
    if held not in ARCHITECTURES.values():
        raise IntegrityError(
            f"{spec.name}: {checkpoint.path} is of a network with {held}; known are "
            f"{', '.join(map(str, ARCHITECTURES.values()))}."
        )
    expected = {**_INPUTS, "click_radius": _CLICK_RADIUS[_pipeline(checkpoint)]}
    shown = {**{key: checkpoint.params.get(key) for key in _INPUTS}, "click_radius": click_radius}
    if shown != expected:
        raise IntegrityError(f"{spec.name}: {checkpoint.path} and its options are {shown}; they must be {expected}.")
