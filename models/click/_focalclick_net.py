"""The network of FocalClick: a SegFormer that also reads clicks and a mask, and a refiner for one part of the image.

X. Chen et al.: FocalClick: Towards Practical Interactive Image Segmentation. CVPR 2022, arXiv 2204.02574. Written anew
for inference; each parameter has the name, the shape and the use that it has in the authors' ClickSEG, so that their
checkpoints load strictly. The SegFormer of transformers does not fit: here the clicks join between its first and its
second stage, and the layer norms of the blocks have another epsilon than those around them.

Maps are (B, C, H, W). Inside the encoder they are (B, H, W, C), where linear layers and layer norms need no reshaping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, in 0 to 1
IMAGENET_STD = (0.229, 0.224, 0.225)
_BLOCK_EPS = 1e-6  # of the norms in and after the blocks; those of patches and keys have torch's 1e-5
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)  # of keys and values, along each axis


@dataclass(frozen=True)
class Size:
    """Sizes of a backbone, one number for each of its four stages, and the width of the decoder."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    decoder: int


SIZES = {
    "b0": Size(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2), decoder=256),
    "b3": Size(widths=(64, 128, 320, 512), depths=(3, 4, 18, 3), decoder=512),
}


class FocalClickNet(nn.Module):
    """Both networks of FocalClick.

    Args:
        size: of the backbone.
        halve: whether the backbone sees its input at half the size (the authors' "S1"; their "S2" sees all of it).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: Size, *, halve: bool) -> None:
        super().__init__()
        self._halve = halve
        self.feature_extractor = _SegFormer(size)
        self.refiner = _Refiner(size.decoder)
        self.maps_transform = _unused_maps_transform()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            constant = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, image: Tensor, previous: Tensor, clicks: Tensor) -> tuple[Tensor, Tensor]:
        """Segment.

        Args:
            image: (B, 3, H, W) in 0 to 1.
            previous: (B, 1, H, W) probabilities of the previous answer, zeros without one.
            clicks: (B, 2, H, W) 0 or 1: discs round the positive and round the negative clicks.

        Returns:
            (B, 1, H, W) logits, and (B, C, h, w) features for `refine`.
        """
        inputs = (image - self.mean) / self.std, torch.cat([previous, clicks], dim=1)
        logits, features = self.feature_extractor(*(self._seen(maps) for maps in inputs))
        return _resized(logits, image), features

    def _seen(self, maps: Tensor) -> Tensor:
        if not self._halve:
            return maps
        return functional.interpolate(maps, scale_factor=0.5, mode="bilinear", align_corners=True)

    def refine(self, image: Tensor, clicks: Tensor, features: Tensor, logits: Tensor) -> Tensor:
        """Segment a part of the image again.

        Args:
            image: (B, 3, H, W) the part, in 0 to 1.
            clicks: (B, 2, H, W) discs in it.
            features: (B, C, h, w) of `forward`, cut out for this part.
            logits: (B, 1, H, W) of `forward`, cut out for this part.

        Returns:
            (B, 1, H, W) logits.
        """
        refined: Tensor = self.refiner(image, clicks, features, logits)
        return refined


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=True)


def _unused_maps_transform() -> nn.Sequential:
    """Return layers that no answer passes through: checkpoints hold them, and every key must have its place."""
    scale = nn.Module()
    scale.register_parameter("scale", nn.Parameter(torch.full((1,), 0.05)))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1), scale)


# ---------------------------------------------------------------------------------------------- the SegFormer


class _SegFormer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.backbone = _Encoder(size)
        self.decode_head = _Decoder(size)

    def forward(self, image: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        answer: tuple[Tensor, Tensor] = self.decode_head(self.backbone(image, side))
        return answer


class _Encoder(nn.Module):
    """Four stages at 1/4, 1/8, 1/16 and 1/32; what the user gave is added to the output of the first."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        inputs = (3, *size.widths[:3])
        for i, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            kernel, stride = (7, 4) if i == 0 else (3, 2)
            blocks = [_Block(width, _HEADS[i], _REDUCTIONS[i]) for _ in range(depth)]
            self.add_module(f"patch_embed{i + 1}", _PatchEmbed(inputs[i], width, kernel, stride))
            self.add_module(f"block{i + 1}", nn.Sequential(*blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width, eps=_BLOCK_EPS))
        self.patch_embed_side1 = _PatchEmbed(3, size.widths[0], 7, 4)

    def forward(self, image: Tensor, side: Tensor) -> list[Tensor]:
        """Return the (B, C, H, W) outputs of the stages."""
        outputs = [self._stage(1, image)]
        following = outputs[0] + _channels_first(self.patch_embed_side1(side))
        for number in (2, 3, 4):
            outputs.append(self._stage(number, following))
            following = outputs[-1]
        return outputs

    def _stage(self, number: int, maps: Tensor) -> Tensor:
        for name in ("patch_embed", "block", "norm"):
            maps = self.get_submodule(f"{name}{number}")(maps)
        return _channels_first(maps)


def _channels_first(x: Tensor) -> Tensor:
    """Return (B, C, H, W) of (B, H, W, C) and lay it out so: torch chooses kernels by layout, and they round apart."""
    return x.permute(0, 3, 1, 2).contiguous()


class _PatchEmbed(nn.Module):
    """(B, C, H, W) to (B, h, w, C)."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        embedded: Tensor = self.norm(self.proj(maps).permute(0, 2, 3, 1))
        return embedded


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_BLOCK_EPS)
        self.attn = _Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=_BLOCK_EPS)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class _Attention(nn.Module):
    """Every position asks; keys and values come from a coarser grid."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self._heads = heads
        self._reduction = reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        query = self.q(x).flatten(1, 2).unflatten(-1, (self._heads, -1)).transpose(1, 2)
        pairs = self.kv(self._reduced(x)).flatten(1, 2).unflatten(-1, (2, self._heads, -1))
        key, value = pairs.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
        attended: Tensor = self.proj((weights @ value).transpose(1, 2).reshape(x.shape))
        return attended

    def _reduced(self, x: Tensor) -> Tensor:
        if self._reduction == 1:
            return x
        reduced: Tensor = self.norm(self.sr(_channels_first(x)).permute(0, 2, 3, 1))
        return reduced


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.Sequential()
        self.dwconv.add_module("dwconv", nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden))
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dwconv(_channels_first(self.fc1(x))).permute(0, 2, 3, 1)
        mixed: Tensor = self.fc2(functional.gelu(hidden))
        return mixed


class _Decoder(nn.Module):
    """Fuses all stages at one width and at 1/4 of the size; the refiner starts from the fused map too."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        for i, width in enumerate(size.widths):
            projection = nn.Sequential()
            projection.add_module("proj", nn.Linear(width, size.decoder))
            self.add_module(f"linear_c{i + 1}", projection)
        self.linear_fuse = nn.Sequential()
        self.linear_fuse.add_module("conv", nn.Conv2d(4 * size.decoder, size.decoder, 1, bias=False))
        self.linear_fuse.add_module("bn", nn.BatchNorm2d(size.decoder))
        self.linear_fuse.add_module("relu", nn.ReLU())
        self.linear_pred = nn.Conv2d(size.decoder, 1, 1)

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor]:
        maps = [self._projected(number, stage) for number, stage in enumerate(stages, 1)]
        size_hw = maps[0].shape[2:]
        coarse = [functional.interpolate(m, size_hw, mode="bilinear", align_corners=False) for m in maps[1:]]
        features = self.linear_fuse(torch.cat([*reversed(coarse), maps[0]], dim=1))
        return self.linear_pred(features), features

    def _projected(self, number: int, stage: Tensor) -> Tensor:
        projected: Tensor = self.get_submodule(f"linear_c{number}")(stage.flatten(2).mT)
        return projected.mT.reshape(len(stage), -1, *stage.shape[2:])


# ---------------------------------------------------------------------------------------------- the refiner


class _Refiner(nn.Module):
    """Correct logits at half the resolution of the part; a gate says where the correction counts."""

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.image_conv1 = _conv_bn(conv=nn.Conv2d(6, width, 3, 2, 1))
        self.image_conv2 = _separable_bn(width)
        self.image_conv3 = _separable_bn(width)
        self.refine_fusion = _conv_bn(conv=nn.Conv2d(features, width, 1))
        self.refine_fusion2 = _separable_bn(width)
        self.refine_fusion3 = _separable_bn(width)
        self.feature_gate = nn.Sequential(nn.Conv2d(width, 1, 1))  # in the checkpoints, but unused
        self.refine_pred = nn.Conv2d(width, 1, 3, 1, 1)
        self.refine_trimap = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, image: Tensor, clicks: Tensor, features: Tensor, logits: Tensor) -> Tensor:
        details = self.image_conv1(torch.cat([image, clicks, logits.sigmoid()], dim=1))
        details = self.image_conv3(self.image_conv2(details))
        fused = details + _resized(self.refine_fusion(features), details)
        fused = self.refine_fusion3(self.refine_fusion2(fused))
        gate = _resized(self.refine_trimap(fused), image).sigmoid()
        return _resized(self.refine_pred(fused), image) * gate + logits * (1 - gate)


def _conv_bn(**convolutions: nn.Conv2d) -> nn.Sequential:
    """Return the named convolutions one after the other, then batch norm and ReLU."""
    layers = nn.Sequential()
    for name, convolution in convolutions.items():
        layers.add_module(name, convolution)
    layers.add_module("norm", nn.BatchNorm2d(next(reversed(convolutions.values())).out_channels))
    layers.add_module("activation", nn.ReLU())
    return layers


def _separable_bn(width: int) -> nn.Sequential:
    return _conv_bn(conv3x3=nn.Conv2d(width, width, 3, 1, 1, groups=width), conv1x1=nn.Conv2d(width, width, 1))
