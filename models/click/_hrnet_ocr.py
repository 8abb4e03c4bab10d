"""The network of RITM: timm's HRNet with upsampling as in the authors' training, and their head with object context.

Names of parameters are those of the authors' checkpoints. Sources: HRNet (arXiv:1908.07919), object-contextual
representations (arXiv:1909.11065), RITM (arXiv:2102.06583).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.models.hrnet import HighResolutionModule, HighResolutionNet
from torch import Tensor, nn
from torch.nn import functional


class ClickHRNet(nn.Module):
    """RITM's network.

    Args:
        width: channels of the branch of highest resolution; the others have 2, 4 and 8 times as many.
        ocr_width: channels of the object context.
        small: half as deep.
        use_leaky_relu: between the two layers that see the maps.
    """

    def __init__(self, *, width: int, ocr_width: int, small: bool, use_leaky_relu: bool) -> None:
        super().__init__()
        self.maps_transform = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=1),
            nn.LeakyReLU(0.2) if use_leaky_relu else nn.ReLU(),
            nn.Conv2d(16, 64, kernel_size=3, stride=2, padding=1),
            Scale(),
        )
        self.feature_extractor = ContextHRNet(width, ocr_width, small=small)

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """Return (B, 1, H/4, W/4) logits, rounded up, of a `promptseg.models.click._inference.Network`."""
        logits: Tensor = self.feature_extractor(image, self.maps_transform(maps))
        return logits


class Scale(nn.Module):
    """Multiplies by one learnt number, without its sign."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` scaled."""
        return x * self.scale.abs()


class ContextHRNet(HighResolutionNet):  # type: ignore[misc] # timm's types are not followed
    """HRNet that adds the features of the maps behind its first convolution, and the head that reads all branches."""

    def __init__(self, width: int, ocr_width: int, *, small: bool) -> None:
        super().__init__(_config(width, small=small), num_classes=0, head="")
        channels, middle = 15 * width, 2 * ocr_width
        self.aux_head = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 1, 1)
        )
        self.conv3x3_ocr = nn.Sequential(nn.Conv2d(channels, middle, 3, padding=1), nn.BatchNorm2d(middle), nn.ReLU())
        self.ocr_distri_head = ObjectContext(middle, ocr_width)
        self.cls_head = nn.Conv2d(middle, 1, 1)

    def forward(self, image: Tensor, map_features: Tensor) -> Tensor:
        """Return (B, 1, H/4, W/4) logits."""
        x = self.act1(self.bn1(self.conv1(image))) + map_features
        x = self.layer1(self.act2(self.bn2(self.conv2(x))))
        branches = [transition(x) for transition in self.transition1]
        for stage, transition in ((self.stage2, self.transition2), (self.stage3, self.transition3)):
            branches = _widened(_run(stage, branches), transition)
        features = _joined(_run(self.stage4, branches))
        logits: Tensor = self._head(features)
        return logits

    def _head(self, features: Tensor) -> Tensor:
        likely = self.aux_head(features)
        pixels = self.conv3x3_ocr(features)
        logits: Tensor = self.cls_head(self.ocr_distri_head(pixels, _gathered(pixels, likely)))
        return logits


class ObjectContext(nn.Module):
    """Adds to each pixel the context that its resemblance to the object gives."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.object_context_block = ContextAttention(channels, key_channels)
        self.conv_bn_dropout = nn.Sequential(*_conv_norm(2 * channels, channels))

    def forward(self, pixels: Tensor, proxy: Tensor) -> Tensor:
        """Return (B, C, h, w) of (B, C, h, w) pixels and a (B, C, 1, 1) object."""
        mixed: Tensor = self.conv_bn_dropout(torch.cat([self.object_context_block(pixels, proxy), pixels], dim=1))
        return mixed


class ContextAttention(nn.Module):
    """Attention of pixels to objects; the authors have one object, so each pixel attends to it alone."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.f_pixel = nn.Sequential(*_conv_norm(channels, key_channels), *_conv_norm(key_channels, key_channels))
        self.f_object = nn.Sequential(*_conv_norm(channels, key_channels), *_conv_norm(key_channels, key_channels))
        self.f_down = nn.Sequential(*_conv_norm(channels, key_channels))
        self.f_up = nn.Sequential(*_conv_norm(key_channels, channels))

    def forward(self, pixels: Tensor, proxy: Tensor) -> Tensor:
        """Return (B, C, h, w): a softmax over one object is 1 everywhere, so query and key need not be computed."""
        context: Tensor = self.f_up(self.f_down(proxy))
        return context.expand_as(pixels)


def _conv_norm(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a convolution of one pixel and, as the one module that its names make it, norm with activation."""
    return [
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU()),
    ]


def _gathered(pixels: Tensor, likely: Tensor) -> Tensor:
    """Return the (B, C, 1, 1) mean of (B, C, h, w) pixels, weighted by a softmax over (B, 1, h, w) logits."""
    weights = functional.softmax(likely.flatten(2), dim=2)
    return (pixels.flatten(2) @ weights.transpose(1, 2))[..., None]


def _config(width: int, *, small: bool) -> dict[str, Any]:
    """Return timm's description of an HRNet of this width."""
    blocks = 2 if small else 4
    modules = (1, 1, 3, 2) if small else (1, 1, 4, 3)
    stages: dict[str, Any] = {
        f"stage{branches}": {
            "num_modules": modules[branches - 1],
            "num_branches": branches,
            "block_type": "BASIC" if branches > 1 else "BOTTLENECK",
            "num_blocks": (blocks,) * branches,
            "num_channels": tuple(width * 2**i for i in range(branches)) if branches > 1 else (64,),
            "fuse_method": "SUM",
        }
        for branches in (1, 2, 3, 4)
    }
    return {"stem_width": 64, **stages}


def _widened(branches: list[Tensor], transition: nn.ModuleList) -> list[Tensor]:
    """Add a branch of half the resolution."""
    return [*branches, transition[-1](branches[-1])]


def _run(stage: Iterable[HighResolutionModule], branches: list[Tensor]) -> list[Tensor]:
    for module in stage:
        branches = _fused(module, [branch(x) for branch, x in zip(module.branches, branches, strict=True)])
    return branches


def _fused(module: HighResolutionModule, branches: list[Tensor]) -> list[Tensor]:
    """Exchange between branches: as timm's, but lower resolutions are upsampled bilinearly to the size that is there.

    timm repeats pixels by a power of two, which fits only where every size is even.
    """
    fused = []
    for i, row in enumerate(module.fuse_layers):
        terms = [
            _upsampled(layer[:2](x), branches[i]) if j > i else layer(x)  # [:2] leaves timm's upsampling out
            for j, (layer, x) in enumerate(zip(row, branches, strict=True))
        ]
        fused.append(functional.relu(sum(terms[1:], terms[0])))
    return fused


def _joined(branches: list[Tensor]) -> Tensor:
    return torch.cat([branches[0], *(_upsampled(x, branches[0]) for x in branches[1:])], dim=1)


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
