"""SAM's prompt encoder and mask decoder from the official package, decoding prompts of many images in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from promptseg.models.sam_common import Features, Prompts, import_torchvision, load_strict


class OfficialDecoder:
    """A `promptseg.models.sam_common.Decoder` of the official modules.

    The official ``MaskDecoder.forward`` takes many prompts on one image. This runs its parts for prompt i on image
    i; for a batch of one it computes the very same.

    Args:
        prompt_encoder: ``segment_anything.modeling.PromptEncoder``, on its device.
        mask_decoder: ``segment_anything.modeling.MaskDecoder``, on its device.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder
        with torch.no_grad():
            self._position = _pixels_last(prompt_encoder.get_dense_pe())

    def __call__(self, features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Decode as `promptseg.models.sam_common.Decoder` says; M is 3, or 1."""
        points = None if prompts.points_xy is None else (prompts.points_xy, prompts.labels)
        sparse, dense = self._prompt_encoder(points=points, boxes=prompts.boxes_xyxy, masks=prompts.logits)
        logits, scores = self._all_candidates(_pixels_last(features[0] + dense), sparse)
        kept = candidates(prompts)
        return logits[:, kept], scores[:, kept]

    def _all_candidates(self, source: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self._mask_decoder
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        answers, keys = decoder.transformer(source, self._position.expand(len(source), -1, -1, -1), tokens)
        upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(source.shape))
        mlps = decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlp(answers[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)
        logits = (hyper @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return logits, decoder.iou_prediction_head(answers[:, 0])


def candidates(prompts: Prompts) -> slice:
    """Return which of SAM's four masks answer: the first is the one for ``multimask_output=False``."""
    return slice(1, None) if prompts.logits is None else slice(0, 1)


def _pixels_last(maps: Tensor) -> Tensor:
    """Lay (B, C, h, w) maps out in memory as the transformer reads them: saves a fifth of its time on a CPU."""
    return maps.contiguous(memory_format=torch.channels_last)


def build_decoder(state: Mapping[str, Tensor], source: object, side: int, device: str) -> OfficialDecoder:
    """Return SAM's decoder (256 channels, three candidates) with the weights of ``state``.

    Args:
        state: ``prompt_encoder.*`` and ``mask_decoder.*`` under the names of segment_anything.
        source: where the state comes from, for the message.
        side: side of the encoder's square in pixels; one feature covers 16.
        device: as torch writes it.

    Raises:
        IntegrityError: the state does not fit.
    """
    with torch.device("meta"):
        modules = _empty_modules(side)
    load_strict(modules, state, source)
    modules.eval().requires_grad_(requires_grad=False).to(device)
    return OfficialDecoder(modules["prompt_encoder"], modules["mask_decoder"])


def _empty_modules(side: int) -> torch.nn.ModuleDict:
    import_torchvision()
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    dim, grid = 256, side // 16
    prompt_encoder = PromptEncoder(
        embed_dim=dim, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=2048, num_heads=8)
    mask_decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=dim)
    return torch.nn.ModuleDict({"prompt_encoder": prompt_encoder, "mask_decoder": mask_decoder})
