"""An official SAM so small that it is made in a moment."""

from __future__ import annotations

from typing import Any

import torch

from promptseg.models._loading import import_torchvision

SIDE, DIM = 256, 32


def tiny_architecture() -> Any:
    """Return an official Sam of two layers, one windowed and one global."""
    import_torchvision()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    encoder = ImageEncoderViT(
        img_size=SIDE,
        embed_dim=DIM,
        depth=2,
        num_heads=2,
        out_chans=DIM,
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
        norm_layer=_norm,
    )
    prompt_encoder = PromptEncoder(
        embed_dim=DIM, image_embedding_size=(16, 16), input_image_size=(SIDE, SIDE), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=64, num_heads=2)
    decoder = MaskDecoder(transformer_dim=DIM, transformer=transformer, iou_head_hidden_dim=DIM)
    return Sam(encoder, prompt_encoder, decoder).eval()


def tiny_sam() -> Any:
    """Return it with random weights whose logits lie on both sides of zero."""
    torch.manual_seed(0)
    model = tiny_architecture()
    for parameter in model.parameters():
        if not parameter.any():  # positions and biases start at zero and would hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(model.mask_decoder.output_upscaling[3].weight, std=1.0)
    return model


def _norm(dim: int) -> torch.nn.Module:
    return torch.nn.LayerNorm(dim, eps=1e-6)  # as build_sam does
