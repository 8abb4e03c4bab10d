"""The network of SimpleClick: timm's plain ViT with attention in windows, a pyramid of its one scale, and an MLP head.

Names of parameters are those of the authors' checkpoints. Sources: SimpleClick (arXiv:2210.11006), plain ViT backbones
(arXiv:2203.16527).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from promptseg.models.click._specs import WINDOW


class ClickViT(nn.Module):
    """SimpleClick's network.

    Args:
        backbone: of the ViT: ``img_size`` (multiples of 224), ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``,
            ``mlp_ratio``, ``qkv_bias``.
        neck: ``in_dim`` and the four ``out_dims`` of the pyramid.
        head: ``channels`` and ``upsample`` (x1, x2, x4) of the head.
    """

    def __init__(self, backbone: Mapping[str, Any], neck: Mapping[str, Any], head: Mapping[str, Any]) -> None:
        super().__init__()
        size = {name: tuple(backbone[name]) for name in ("img_size", "patch_size")}
        self.patch_embed_coords = PatchEmbed(in_chans=3, embed_dim=backbone["embed_dim"], **size)
        self.backbone = WindowedViT(
            **size,
            # The class token, the pooled norm and the classifier come with the pretraining; they stand unused in the
            # checkpoints.
            global_pool="avg",
            num_classes=backbone.get("num_classes", 1000),
            **{name: backbone[name] for name in ("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")},
        )
        self.neck = Pyramid(neck["in_dim"], neck["out_dims"])
        self.head = Head(neck["out_dims"], head["channels"], head["upsample"])

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """Return (B, 1, h, w) logits, h from H/4 to H, of a `promptseg.models.click._inference.Network`."""
        tokens = self.backbone(image, self.patch_embed_coords(maps))
        grid = tokens.transpose(1, 2).unflatten(2, self.backbone.patch_embed.grid_size)
        logits: Tensor = self.head(self.neck(grid))
        return logits


class WindowedViT(VisionTransformer):  # type: ignore[misc] # timm's types are not followed
    """A ViT whose blocks attend within windows, except the last one of each half or quarter of the blocks."""

    def forward(self, image: Tensor, map_tokens: Tensor) -> Tensor:
        """Return (B, N, C) tokens."""
        x = self.patch_embed(image) + map_tokens + self.pos_embed[:, 1:]
        size = len(self.blocks) // (2 if len(self.blocks) == 12 else 4)
        for end in range(size, len(self.blocks) + 1, size):
            x = self._blocks_in_windows(x, end - size, end - 1)
            x = self.blocks[end - 1](x)
        tokens: Tensor = x
        return tokens

    def _blocks_in_windows(self, x: Tensor, begin: int, end: int) -> Tensor:
        if begin == end:
            return x
        counts = [side // (WINDOW // patch) for side, patch in zip(*self._grid_and_patch(), strict=True)]
        windows = _split(x, self.patch_embed.grid_size, counts)
        for block in self.blocks[begin:end]:
            windows = block(windows)
        return _unsplit(windows, self.patch_embed.grid_size, counts)

    def _grid_and_patch(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.patch_embed.grid_size, self.patch_embed.patch_size


def _split(x: Tensor, grid_hw: tuple[int, int], counts: list[int]) -> Tensor:
    """Return (B * windows, N / windows, C) of (B, N, C) tokens on a grid."""
    rows, columns = counts
    grid = x.reshape(len(x), rows, grid_hw[0] // rows, columns, grid_hw[1] // columns, -1)
    return grid.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _unsplit(windows: Tensor, grid_hw: tuple[int, int], counts: list[int]) -> Tensor:
    rows, columns = counts
    grid = windows.reshape(-1, rows, columns, grid_hw[0] // rows, grid_hw[1] // columns, windows.shape[-1])
    return grid.transpose(2, 3).flatten(1, 4)


class Pyramid(nn.Module):
    """Four scales, a fourth to a thirty-second of the image, from the one of the backbone."""

    def __init__(self, channels: int, out_channels: list[int]) -> None:
        super().__init__()
        four, eight, sixteen, thirty_two = out_channels
        half = max(2 * four, channels // 2)
        self.down_4 = nn.Sequential(
            *_doubled(channels, half), nn.GELU(), *_doubled(half, half // 2), *_projected(half // 2, four)
        )
        half = max(eight, channels // 2)
        self.down_8 = nn.Sequential(*_doubled(channels, half), *_projected(half, eight))
        self.down_16 = nn.Sequential(*_projected(channels, sixteen))
        twice = max(thirty_two, 2 * channels)
        halved = [nn.Conv2d(channels, twice, 2, stride=2), nn.GroupNorm(1, twice)]
        self.down_32 = nn.Sequential(*halved, *_projected(twice, thirty_two))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the (B, C, h, w) scales, the finest first."""
        return [scale(x) for scale in (self.down_4, self.down_8, self.down_16, self.down_32)]


def _doubled(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(channels, out_channels, 2, stride=2), nn.GroupNorm(1, out_channels)]


def _projected(channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out_channels, 1), nn.GroupNorm(1, out_channels), nn.GELU()]


class Head(nn.Module):
    """Joins the scales at the finest one, and may refine that once or twice more."""

    def __init__(self, in_channels: list[int], channels: int, upsample: str) -> None:
        super().__init__()
        self._doublings = {"x1": 0, "x2": 1, "x4": 2}[upsample]
        wide = channels * 2**self._doublings
        self.convs = nn.ModuleList(ConvRelu(size, wide) for size in in_channels)
        self.fusion_conv = ConvRelu(len(in_channels) * wide, wide)
        self.up_conv1 = nn.Sequential(*_doubled(wide, wide // 2), *_projected(wide // 2, wide // 2))
        self.up_conv2 = nn.Sequential(*_doubled(wide // 2, wide // 4), *_projected(wide // 4, wide // 4))
        self.conv_seg = nn.Conv2d(channels, 1, 1)

    def forward(self, scales: list[Tensor]) -> Tensor:
        """Return (B, 1, h, w) logits."""
        same = [
            functional.interpolate(conv(x), size=scales[0].shape[2:], mode="bilinear", align_corners=False)
            for conv, x in zip(self.convs, scales, strict=True)
        ]
        x = self.fusion_conv(torch.cat(same, dim=1))
        for double in (self.up_conv1, self.up_conv2)[: self._doublings]:
            x = double(x)
        logits: Tensor = self.conv_seg(x)
        return logits


class ConvRelu(nn.Module):
    """A convolution of one pixel, and its activation."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w) features."""
        return functional.relu(self.conv(x))
