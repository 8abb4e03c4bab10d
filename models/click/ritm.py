"""RITM: click models on HRNet (Sofiiuk et al. 2021), from their authors' checkpoints; see docs/rivals.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.models.click._specs import paper2023
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from torch import nn

    from promptseg.models.click._inference import ClickSegmenter
    from promptseg.segmenter import Runtime

ARCHITECTURES = {
    "hrnet18s": {"width": 18, "ocr_width": 48, "small": True},
    "hrnet18": {"width": 18, "ocr_width": 64, "small": False},
    "hrnet32": {"width": 32, "ocr_width": 128, "small": False},
}
CLASS = "HRNetModel"
_RELEASE = Origin(
    host="web",
    repo="https://github.com/SamsungLabs/ritm_interactive_segmentation/releases/tag/v1.0",
    revision="v1.0",
    seen="Names and sizes of the files were seen in the authors' README, the files and their sums were not.",
)
_SETTINGS = {
    "zoom_in": 400,
    "zoom_in_from_click": 2,
    "flip": True,
    "threshold": 0.49,
    "click_radius": 5,
    "previous_mask": True,
}


def _spec(architecture: str, file: str) -> ModelSpec:
    return ModelSpec(
        name=f"ritm_{architecture}",
        family="ritm",
        load="promptseg.models.click.ritm:load",
        licence="MIT",
        accepts=frozenset({"points", "feedback"}),
        origin=_RELEASE,
        weights=(WeightFile(role="checkpoint", path=file),),
        options={"architecture": architecture, **_SETTINGS},
        training_data=("coco", "lvis"),
        url="https://arxiv.org/abs/2102.06583",
    )


HRNET18S = _spec("hrnet18s", "coco_lvis_h18s_itermask.pth")
HRNET18 = _spec("hrnet18", "coco_lvis_h18_itermask.pth")
HRNET32 = _spec("hrnet32", "coco_lvis_h32_itermask.pth")
HRNET18S_PAPER2023, HRNET18_PAPER2023, HRNET32_PAPER2023 = map(paper2023, (HRNET18S, HRNET18, HRNET32))


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> ClickSegmenter:
    """Load a RITM model from a checkpoint of its authors' code; the config in it says the architecture.

    Files: ``checkpoint``. Options: ``architecture``, one of `ARCHITECTURES`, which the checkpoint must then be of; and
    those of `promptseg.models.click._inference.ClickSettings`.

    Raises:
        ConfigError: an unknown option or value, or a missing file.
        IntegrityError: the file is unreadable, names code, or does not fit.
        UnavailableError: timm is not installed.
    """
    from promptseg.models._loading import check_options, file_of
    from promptseg.models.click._checkpoint import check_architecture, read_checkpoint
    from promptseg.models.click._inference import ClickSettings, check_network_inputs, place, setting_names

    check_options(spec, {"architecture", *setting_names()})
    settings = ClickSettings.of(spec, ClickSettings())
    checkpoint = read_checkpoint(spec, file_of(spec, files, "checkpoint"), CLASS)
    check_network_inputs(checkpoint, settings, owner=spec.name)
    check_architecture(checkpoint, spec, ARCHITECTURES)
    return place(spec, checkpoint, network, settings, runtime)


def network(params: Mapping[str, Any]) -> nn.Module:
    """Return the network, without weights, for the arguments that the config of a checkpoint holds."""
    from promptseg.models._loading import import_torchvision

    import_torchvision()  # timm imports it
    from promptseg.models.click._hrnet_ocr import ClickHRNet

    return ClickHRNet(**{name: params[name] for name in ("width", "ocr_width", "small", "use_leaky_relu")})
