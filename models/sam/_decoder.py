"""SAM's prompt encoder and mask decoder from the official package, rearranged so that nothing is computed twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.models._loading import import_torchvision
from promptseg.models.sam._segmenter import Features, Prompts


class OfficialDecoder:
    """A `promptseg.models.sam._segmenter.Decoder` of the official modules, for prompt i on image i.

    It computes what the official ``MaskDecoder.forward`` computes, from the same weights and up to the rounding of sums
    in another order, with half (one point or a box) to three quarters (nine clicks) of the arithmetic:

    - What the first layer asks of the pixels does not depend on the prompt, as long as no mask is fed back: `prepare`
      computes it once for an image.
    - In the other attentions between tokens and pixels the few tokens are projected into the space of the many pixels,
      not the other way round; see `_TokensAsk` and `_PixelsAsk`.
    - Both transposed convolutions have a stride of their width: they are products with each pixel by itself, and pixels
      are put in order at the end, when only the logits of the masks are left.

    Args:
        prompt_encoder: ``segment_anything.modeling.PromptEncoder``, on its device.
        mask_decoder: ``segment_anything.modeling.MaskDecoder``, on its device.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder
        with torch.no_grad():
            self._position = _pixels_in_rows(prompt_encoder.get_dense_pe())
            self._first, *self._others = (_Layer(layer) for layer in mask_decoder.transformer.layers)
            self._final = _TokensAsk(mask_decoder.transformer.final_attn_token_to_image)
            self._upscaling = [_as_product(mask_decoder.output_upscaling[i]) for i in (0, 3)]

    def prepare(self, features: Features) -> Features:
        """Return what a prompt without a mask needs of (B, C, h, w) features; each begins with B."""
        return self._of_image(features[0] + self._prompt_encoder.no_mask_embed.weight[..., None, None])

    def __call__(self, features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Decode as `promptseg.models.sam._segmenter.Decoder` says; M is 3, or 1.

        ``features`` are those of `prepare` or, for prompts with a mask, those of the encoder.
        """
        points = None if prompts.points_xy is None else (prompts.points_xy, prompts.labels)
        sparse, dense = self._prompt_encoder(points=points, boxes=prompts.boxes_xyxy, masks=prompts.logits)
        of_image = features if prompts.logits is None else self._of_image(features[0] + dense)
        answers, pixels = self._attend(of_image, self._tokens(sparse))
        kept, mlps = candidates(prompts), self._mask_decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlp(answers[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)[:, kept]
        return self._logits(pixels, hyper), self._mask_decoder.iou_prediction_head(answers[:, 0])[:, kept]

    def _of_image(self, maps: Tensor) -> Features:
        """Return (B, N, C) pixels of (B, C, h, w) maps, and what the first layer makes of them alone."""
        pixels = _pixels_in_rows(maps)
        placed = pixels + self._position
        return pixels, *self._first.tokens_ask.image_part(placed, pixels), self._first.pixels_ask.image_part(placed)

    def _tokens(self, sparse: Tensor) -> Tensor:
        decoder = self._mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        return torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)

    def _attend(self, of_image: Features, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, T, C) tokens and the (B, N, C) pixels that leave the transformer."""
        (pixels, keys, values, asked), layer = of_image, self._first
        answers = layer.norm1(layer.self_attention(q=tokens, k=tokens, v=tokens))
        answers = layer.thought(answers + layer.tokens_ask.of_part(answers + tokens, keys, values))
        pixels = layer.norm4(layer.pixels_ask.of_part(pixels, asked, answers + tokens, answers))
        placed = pixels + self._position
        for layer in self._others:
            placed_tokens = answers + tokens
            answers = layer.norm1(answers + layer.self_attention(q=placed_tokens, k=placed_tokens, v=answers))
            answers = layer.thought(answers + layer.tokens_ask(answers + tokens, placed, pixels))
            pixels = layer.norm4(layer.pixels_ask(pixels, placed, answers + tokens, answers))
            placed = pixels + self._position
        answers = answers + self._final(answers + tokens, placed, pixels)
        return self._mask_decoder.transformer.norm_final_attn(answers), pixels

    def _logits(self, pixels: Tensor, hyper: Tensor) -> Tensor:
        """Return (B, M, 4h, 4w) logits of (B, N, C) pixels and (B, M, C / 8) vectors."""
        first, second = self._upscaling
        _, norm, activate, _, activate_again = self._mask_decoder.output_upscaling
        fine = functional.linear(pixels, *first).view(*pixels.shape[:2], 4, -1)
        fine = activate(functional.layer_norm(fine, fine.shape[3:], norm.weight, norm.bias, norm.eps))
        fine = activate_again(functional.linear(fine, *second)).reshape(len(pixels), -1, hyper.shape[2])
        h, w = self._prompt_encoder.image_embedding_size
        logits = (hyper @ fine.transpose(1, 2)).view(*hyper.shape[:2], h, w, 2, 2, 2, 2)
        in_order: Tensor = logits.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return in_order.reshape(*hyper.shape[:2], 4 * h, 4 * w)


class _Layer:
    """The parts of an official ``TwoWayAttentionBlock``."""

    def __init__(self, block: Any) -> None:
        self.self_attention = block.self_attn
        self.norm1, self.norm4 = block.norm1, block.norm4
        self.tokens_ask = _TokensAsk(block.cross_attn_token_to_image)
        self.pixels_ask = _PixelsAsk(block.cross_attn_image_to_token)
        self._block = block

    def thought(self, answers: Tensor) -> Tensor:
        """Return the (B, T, C) tokens, updated by the pixels, after MLP and norms."""
        answers = self._block.norm2(answers)
        thought: Tensor = self._block.norm3(answers + self._block.mlp(answers))
        return thought


class _TokensAsk:
    """An official ``Attention`` of (B, T, C) tokens to (B, N, C) pixels.

    ``q @ (pixels @ K + k).T`` is ``(q @ K.T) @ pixels.T`` and the same number for all pixels, which a softmax takes
    away again; ``a @ (pixels @ V + v)`` is ``(a @ pixels) @ V + v``, since the weights ``a`` sum to one. The right
    sides cost less while heads times tokens is less than the attention's width: up to 16 tokens, or ten points.
    """

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._by_head = (attention.num_heads, attention.internal_dim // attention.num_heads)
        self._scale = 1 / math.sqrt(self._by_head[1])
        self._keys = attention.k_proj.weight.unflatten(0, self._by_head)  # (heads, D, C)
        self._values = attention.v_proj.weight.unflatten(0, self._by_head).transpose(1, 2)  # (heads, C, D)
        self._value_bias = attention.v_proj.bias

    def __call__(self, tokens: Tensor, placed: Tensor, pixels: Tensor) -> Tensor:
        """Return (B, T, C): the attended values of the pixels; ``placed`` are the pixels with their position."""
        asked = (self._queries(tokens) @ self._keys).flatten(1, 2)
        weights = (asked @ placed.transpose(1, 2)).softmax(dim=-1)
        attended = (weights @ pixels).view(len(tokens), self._by_head[0], -1, pixels.shape[2]) @ self._values
        return self._outwards(attended, self._value_bias)

    def image_part(self, placed: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, heads, D, N) keys and (B, heads, N, D) values of the pixels."""
        keys = self._attention.k_proj(placed).unflatten(2, self._by_head).permute(0, 2, 3, 1)
        values = self._attention.v_proj(pixels).unflatten(2, self._by_head).transpose(1, 2)
        return keys.contiguous(), values.contiguous()

    def of_part(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what the call does, given the `image_part`."""
        return self._outwards((self._queries(tokens) @ keys).softmax(dim=-1) @ values, 0)

    def _queries(self, tokens: Tensor) -> Tensor:
        queries: Tensor = self._attention.q_proj(tokens).unflatten(2, self._by_head).transpose(1, 2)
        return queries * self._scale

    def _outwards(self, attended: Tensor, bias: Tensor | int) -> Tensor:
        outwards: Tensor = self._attention.out_proj(attended.transpose(1, 2).flatten(2) + bias)
        return outwards


class _PixelsAsk:
    """An official ``Attention`` of (B, N, C) pixels to (B, T, C) tokens, added to the pixels.

    As in `_TokensAsk` the tokens' keys go through the projection of the pixels' queries, and the tokens' values at once
    through the one behind the attention. Scores are (B, heads, T, N): the many pixels last.
    """

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._by_head = (attention.num_heads, attention.internal_dim // attention.num_heads)
        self._scale = 1 / math.sqrt(self._by_head[1])
        self._queries = attention.q_proj.weight.unflatten(0, self._by_head)  # (heads, D, C)
        self._query_bias = attention.q_proj.bias.unflatten(0, self._by_head)[..., None]  # (heads, D, 1)
        self._outwards = attention.out_proj.weight.T.unflatten(0, self._by_head)  # (heads, D, C)

    def __call__(self, pixels: Tensor, placed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return (B, N, C) pixels plus what they attend to; ``placed`` are the pixels with their position."""
        keys = self._keys(keys)
        asked = (keys @ self._queries).flatten(1, 2)
        scores = asked @ placed.transpose(1, 2) + (keys @ self._query_bias).flatten(1, 2)
        return self._updated(pixels, scores, values)

    def image_part(self, placed: Tensor) -> Tensor:
        """Return (B, heads, D, N) queries of the pixels."""
        queries: Tensor = self._attention.q_proj(placed).unflatten(2, self._by_head).permute(0, 2, 3, 1)
        return queries.contiguous()

    def of_part(self, pixels: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what the call does, given the `image_part`."""
        return self._updated(pixels, (self._keys(keys) @ queries).flatten(1, 2), values)

    def _keys(self, tokens: Tensor) -> Tensor:
        keys: Tensor = self._attention.k_proj(tokens).unflatten(2, self._by_head).transpose(1, 2)
        return keys * self._scale

    def _updated(self, pixels: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
        """Return pixels + weights @ values, for (B, heads x T, N) scores."""
        by_head = scores.view(len(scores), self._by_head[0], -1, scores.shape[2])
        weights = by_head.softmax(dim=2).flatten(1, 2)
        values = self._attention.v_proj(tokens).unflatten(2, self._by_head).transpose(1, 2) @ self._outwards
        return torch.baddbmm(pixels + self._attention.out_proj.bias, weights.transpose(1, 2), values.flatten(1, 2))


def _as_product(convolution: Any) -> tuple[Tensor, Tensor]:
    """Return (4 C', C) and (4 C',): a transposed convolution of 2 x 2 with stride 2, as a product with each pixel."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return weight.contiguous(), convolution.bias.repeat(4)


def _pixels_in_rows(maps: Tensor) -> Tensor:
    """Return (B, h x w, C) of (B, C, h, w)."""
    return maps.flatten(2).transpose(1, 2).contiguous()


def candidates(prompts: Prompts) -> slice:
    """Return which of SAM's four masks answer: the first is the one for ``multimask_output=False``."""
    return slice(1, None) if prompts.logits is None else slice(0, 1)


def build_decoder(fill: Callable[[torch.nn.Module], None], side: int, device: str) -> OfficialDecoder:
    """Return SAM's decoder (256 channels, three candidates) with weights.

    Args:
        fill: puts the weights into a module; their names are ``prompt_encoder.*`` and ``mask_decoder.*``, as those of
            segment_anything.
        side: side of the encoder's square in pixels; one feature covers 16.
        device: as torch writes it.

    Raises:
        IntegrityError: the weights do not fit.
    """
    with torch.device("meta"):
        modules = empty_modules(side)
    fill(modules)
    modules.eval().requires_grad_(requires_grad=False).to(device)
    return OfficialDecoder(modules["prompt_encoder"], modules["mask_decoder"])


def empty_modules(side: int) -> torch.nn.ModuleDict:
    """Return SAM's ``prompt_encoder`` and ``mask_decoder``, for a square of ``side`` pixels."""
    import_torchvision()
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    dim, grid = 256, side // 16
    prompt_encoder = PromptEncoder(
        embed_dim=dim, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=2048, num_heads=8)
    mask_decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=dim)
    return torch.nn.ModuleDict({"prompt_encoder": prompt_encoder, "mask_decoder": mask_decoder})
