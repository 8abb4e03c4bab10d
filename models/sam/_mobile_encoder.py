"""MobileSAM's image encoder: timm's TinyViT with the neck of SAM's encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from promptseg.models._loading import import_torchvision, parameters_on_meta

SIDE = 1024
_PREFIX = "image_encoder."
_CLASSIFIER = (
    f"{_PREFIX}norm_head.",
    f"{_PREFIX}head.",
)  # of the TinyViT that MobileSAM began with; it has no part in segmentation
# What timm calls the authors' weights, in this order. Their layers end with a step down; timm's stages begin with it.
_RULES = (
    (r"^neck\.", "1."),
    (r"^(?!1\.)", "0."),
    (r"^0\.patch_embed\.seq\.0\.", "0.patch_embed.conv1."),
    (r"^0\.patch_embed\.seq\.2\.", "0.patch_embed.conv2."),
    (r"^0\.layers\.0\.downsample\.", "0.stages.1.downsample."),
    (r"^0\.layers\.1\.downsample\.", "0.stages.2.downsample."),
    (r"^0\.layers\.2\.downsample\.", "0.stages.3.downsample."),
    (r"^0\.layers\.", "0.stages."),
    (r"\.c\.", ".conv."),
)


def empty_encoder() -> nn.Module:
    """Return the encoder, (B, 3, 1024, 1024) to (B, 256, 64, 64), without weights."""
    with parameters_on_meta():
        return nn.Sequential(_trunk(), _neck())


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint of the authors under the names that `empty_encoder` has as ``image_encoder``.

    Other parts keep their names; what the encoder has no use for is left out.
    """
    return {_timm_name(name): tensor for name, tensor in state.items() if not _of_classifier(name)}


def _of_classifier(name: str) -> bool:
    return name.startswith(_CLASSIFIER)


def _timm_name(name: str) -> str:
    if not name.startswith(_PREFIX):
        return name
    name = name.removeprefix(_PREFIX)
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return _PREFIX + name


class _Trunk(nn.Module):
    """A TinyViT without its classifier. Its children stand under their own names, as in timm."""

    def __init__(self, tiny_vit: Any) -> None:
        super().__init__()
        self.patch_embed, self.stages = tiny_vit.patch_embed, tiny_vit.stages

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, 320, 64, 64)."""
        features: Tensor = self.stages(self.patch_embed(pixels))
        return features


def _trunk() -> _Trunk:
    import_torchvision()
    import timm

    tiny_vit: Any = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=0)
    # MobileSAM's last stage keeps the resolution: SAM's decoder wants 64 x 64.
    tiny_vit.stages[3].downsample.conv2.conv.stride = (1, 1)
    return _Trunk(tiny_vit)


def _neck() -> nn.Sequential:
    from segment_anything.modeling.common import LayerNorm2d

    return nn.Sequential(
        nn.Conv2d(320, 256, kernel_size=1, bias=False),
        LayerNorm2d(256),
        nn.Conv2d(256, 256, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(256),
    )
