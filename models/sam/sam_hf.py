"""Segment Anything and its kin by transformers with scaled dot product attention: the fast path.

Its kin have SAM's square and its decoder: ``SamModel`` with other weights (MedSAM), pruned (SlimSAM), or with an output
for finer masks (``SamHQModel``). Another geometry has an adapter of its own, `promptseg.models.sam.sam2_hf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.models._feedback import with_feedback
from promptseg.models.sam._transformers_spec import CONFIG_UNSEEN, FILE_UNSEEN
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

    from promptseg.models.sam._segmenter import Features, Prompts, SamSegmenter
    from promptseg.segmenter import Runtime

# One tensor under two names; a safetensors file may hold either or both.
_SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")

# The authors' mask decoders were trained with torch's default. The published configs say 1e-6, which moves logits by
# more than 1e-4 from those of the official package.
_DECODER_NORM_EPS = 1e-5

CANDIDATES = ("three", "one")


def _spec(architecture: str, repo: str, revision: str, sha256: str | None) -> ModelSpec:
    return ModelSpec(
        name=f"sam_hf_{architecture}",
        family="sam",
        load="promptseg.models.sam.sam_hf:load",
        licence="Apache-2.0",
        accepts=frozenset({"points", "boxes", "everything"}),
        origin=Origin(host="hub", repo=repo, revision=revision, seen=FILE_UNSEEN if sha256 is None else CONFIG_UNSEEN),
        weights=(
            WeightFile(role="checkpoint", path="model.safetensors", sha256=sha256),
            WeightFile(role="config", path="config.json"),
        ),
        training_data=("sa_1b",),
        url="https://arxiv.org/abs/2304.02643",
        gpu=True,
    )


# Revisions and hashes as other public projects recorded them for model.safetensors; where none was seen, the first
# pull prints the sha256 to pin. For vit_l an older commit, 70009d56, has only a pickle (pytorch_model.bin).
SAM_HF_VIT_B = _spec("vit_b", "facebook/sam-vit-base", "70c1a07f894ebb5b307fd9eaaee97b9dfc16068f", None)
SAM_HF_VIT_L = _spec(
    "vit_l",
    "facebook/sam-vit-large",
    "6851e0441005b0fb96f2cc4dfac472f3d1b14af1",
    "a57e1b13cd1545938dfcbc9fb26df7f60de6650237a9383382a874a623564b81",
)
SAM_HF_VIT_H = _spec(
    "vit_h",
    "facebook/sam-vit-huge",
    "87aecf0df4ce6b30cd7de76e87673c49644bdf67",
    "edfb0462392541fca9af44ff039bfb32dbd0c939997f3abb77a26e23af7afd7c",
)


SAM_HF_VIT_B_FEEDBACK = with_feedback(SAM_HF_VIT_B)
SAM_HF_VIT_L_FEEDBACK = with_feedback(SAM_HF_VIT_L)
SAM_HF_VIT_H_FEEDBACK = with_feedback(SAM_HF_VIT_H)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> SamSegmenter:
    """Load a SAM with the names that transformers gives to its weights, from local files alone.

    Files: ``checkpoint`` (safetensors, or pytorch_model.bin read without running its pickle) and ``config``
    (config.json, which says the architecture: ``sam`` or ``sam_hq``). Options: ``candidates``, ``three`` by default,
    or ``one``, the mask of ``multimask_output=False``, for a model that was trained for it alone.

    Raises:
        ConfigError: an option is unknown, or a file is missing.
        IntegrityError: a file is unreadable or the checkpoint does not fit the config.
    """
    from promptseg.models._loading import check_options, file_of, option
    from promptseg.models._weights import load_weights
    from promptseg.models.sam._transformers import OTHER_CONFIG, Kind, build, read_config

    check_options(spec, {"candidates"})
    option(spec, "candidates", CANDIDATES, CANDIDATES[0])
    checkpoint, config_file = file_of(spec, files, "checkpoint"), file_of(spec, files, "config")
    kinds = {"sam": Kind("SamConfig", "SamModel"), "sam_hq": Kind("SamHQConfig", "SamHQModel")}
    config, kind = read_config(spec, config_file, kinds)
    config.mask_decoder_config.layer_norm_eps = _DECODER_NORM_EPS
    model = build(kind, config)
    load_weights(model, spec, checkpoint, _with_both_names, hint=OTHER_CONFIG)
    return wrap(spec, model, runtime)


def wrap(spec: ModelSpec, model: Any, runtime: Runtime) -> SamSegmenter:
    """Make a segmenter of a ``transformers.SamModel`` or ``SamHQModel`` of any size, with its weights in it."""
    from promptseg.models._fast import ENCODER_PATHS, check_fast, speed_up
    from promptseg.models.sam._hq_decoder import HqDecoder
    from promptseg.models.sam._segmenter import SamSegmenter
    from promptseg.models.sam._transformers import answer, ready

    check_fast(spec, runtime, ENCODER_PATHS)  # sdpa is always on
    ready(model, runtime.device)
    speed_up(model.vision_encoder, runtime)
    three = spec.options.get("candidates", CANDIDATES[0]) == "three"

    def encode(batch: Tensor) -> Features:
        return (model.get_image_embeddings(batch),)

    def encode_hq(batch: Tensor) -> Features:
        features, of_layers = model.get_image_embeddings(batch)
        return features, of_layers[0]  # the decoder looks at the first layer with global attention alone

    def decode(features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        return answer(model, prompts, three=three, image_embeddings=features[0])

    side = model.config.vision_config.image_size
    if model.config.model_type == "sam_hq":
        return SamSegmenter(spec, encode_hq, HqDecoder(model, three=three), runtime, side=side)
    return SamSegmenter(spec, encode, decode, runtime, side=side)


def _with_both_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    stored = [state[name] for name in _SHARED if name in state]
    return state | dict.fromkeys(_SHARED, stored[0]) if len(stored) == 1 else state
