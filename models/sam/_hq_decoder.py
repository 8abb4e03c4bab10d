"""SAM-HQ's decoding, by the modules of ``transformers.SamHQModel`` in the order of SAM-HQ's authors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptseg.models.sam._segmenter import Features, Prompts
from promptseg.models.sam._transformers import prompt_inputs


class HqDecoder:
    """A `promptseg.models.sam._segmenter.Decoder` of a ``SamHQModel``.

    The modules are right, but ``SamHQMaskDecoder.forward`` of transformers (seen in 5.23) upsamples the features that
    go into the two-way transformer, with rows and columns exchanged, and drops those that come out: its masks are not
    SAM-HQ's. Here the order is that of the authors (github.com/SysCV/sam-hq, ``mask_decoder_hq.py``, commit fb181f8);
    on random weights, logits and predicted IoUs agree with their ``SamPredictor`` to 1e-5.

    The candidates are SAM's three, best first by predicted IoU, each with the finer mask added. The authors offer the
    first of them alone; transformers offers all three.

    Args:
        model: ``transformers.SamHQModel``, on its device.
        three: whether to offer three candidates, or the one of ``multimask_output=False``.
    """

    def __init__(self, model: Any, *, three: bool) -> None:
        self._model = model
        self._decoder = model.mask_decoder
        self._three = three
        with torch.no_grad():
            self._position = model.get_image_wide_positional_embeddings()

    def __call__(self, features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Decode the encoder's features and its first layer with global attention, (B, C, h, w) and (B, h, w, D)."""
        image, of_layer = features
        sparse, dense = self._model.prompt_encoder(input_masks=prompts.logits, **prompt_inputs(prompts))
        answers, keys = self._attend(image + dense, sparse)
        masks = self._masks(keys, answers[:, 1:-1], answers[:, -1:], self._fine_features(image, of_layer))
        many = self._three and prompts.logits is None
        return _offered(masks, self._decoder.iou_prediction_head(answers[:, 0]), three=many)

    def _attend(self, source: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answers to IoU token, mask tokens and finer token, (B, 6, C), and (B, C, h, w) features."""
        decoder = self._decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
        tokens = torch.cat([own.expand(len(sparse), 1, -1, -1), sparse], dim=2)
        answers, keys = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=source,
            image_positional_embeddings=self._position.expand(len(source), -1, -1, -1),
            attention_similarity=None,
            target_embedding=None,
        )
        return answers[:, 0, : len(own)], keys.transpose(2, 3).reshape(source.shape)

    def _fine_features(self, image: Tensor, of_layer: Tensor) -> Tensor:
        """Return (B, C / 8, 4h, 4w): what an early and the last layer of the encoder say, at the masks' resolution."""
        decoder = self._decoder
        late = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(image))))
        early = decoder.compress_vit_conv1(of_layer.permute(0, 3, 1, 2))
        early = decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(early)))
        fine: Tensor = late + early
        return fine

    def _masks(self, keys: Tensor, coarse: Tensor, finer: Tensor, fine: Tensor) -> Tensor:
        """Return SAM's four masks, each with the finer one added: (B, 4, 4h, 4w)."""
        decoder = self._decoder
        upscaled = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(keys)))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled))
        refined = decoder.activation(decoder.mask_norm(decoder.mask_conv1(upscaled)))
        refined = decoder.mask_conv2(refined) + fine
        mlps = decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlp(coarse[:, i]) for i, mlp in enumerate(mlps)], dim=1)
        return _dot(hyper, upscaled) + _dot(decoder.hq_mask_mlp(finer), refined)


def _offered(masks: Tensor, scores: Tensor, *, three: bool) -> tuple[Tensor, Tensor]:
    """Return the three candidates with their predicted IoUs, best first, or the one of ``multimask_output=False``."""
    if not three:
        return masks[:, :1], scores[:, :1]
    best, order = scores[:, 1 : masks.shape[1]].sort(dim=1, descending=True)
    return torch.stack([m[o] for m, o in zip(masks[:, 1:], order, strict=True)]), best


def _dot(hyper: Tensor, maps: Tensor) -> Tensor:
    """Return (B, M, h, w): for each of (B, M, C) vectors its product with every pixel of (B, C, h, w) maps."""
    return (hyper @ maps.flatten(2)).reshape(*hyper.shape[:2], *maps.shape[2:])
