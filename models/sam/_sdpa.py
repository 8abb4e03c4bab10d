"""Scaled dot product attention for the image encoder of the official ``segment_anything``, which takes it in steps."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.models._loading import import_torchvision


def use_sdpa(encoder: nn.Module) -> None:
    """Make every attention of an official ``ImageEncoderViT`` compute in one call of torch; the weights stay."""
    original, fused = _classes()
    for module in encoder.modules():
        if type(module) is original:
            module.__class__ = fused


@functools.cache
def _classes() -> tuple[type[nn.Module], type[nn.Module]]:
    """Return the official attention, and the same by torch's ``scaled_dot_product_attention``."""
    import_torchvision()
    from segment_anything.modeling.image_encoder import Attention, get_rel_pos

    class SdpaAttention(Attention):  # type: ignore[misc] # a class without types
        """The official attention: its relative positions are what torch calls a mask, added to the logits."""

        def forward(self, x: Tensor) -> Tensor:
            """Attend among the pixels of (B, H, W, C)."""
            batch, height, width, _ = x.shape
            qkv = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H * W, C / heads)
            bias = self._bias(q, height, width) if self.use_rel_pos else None
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
            projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
            return projected

        def _bias(self, q: Tensor, height: int, width: int) -> Tensor:
            """Return (B, heads, H * W, H * W): what the place of a key adds, by row and by column, to each query."""
            rows = get_rel_pos(height, height, self.rel_pos_h)
            columns = get_rel_pos(width, width, self.rel_pos_w)
            grid = q.reshape(*q.shape[:2], height, width, q.shape[-1])
            by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, rows)
            by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, columns)
            bias = by_row[..., :, None] + by_column[..., None, :]
            return bias.flatten(4).flatten(2, 3).to(q.dtype)

    return Attention, SdpaAttention
