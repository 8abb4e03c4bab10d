"""Segment Anything by ``transformers.SamModel`` with scaled dot product attention: the fast path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.models._feedback import with_feedback
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

    from promptseg.models.sam_common import Prompts, SamSegmenter
    from promptseg.segmenter import Runtime

# One tensor under two names; a safetensors file may hold either or both.
_SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")

# The authors' mask decoder was trained with torch's default. The published configs say 1e-6, which moves logits by
# more than 1e-4 from those of the official package.
_DECODER_NORM_EPS = 1e-5


def _spec(architecture: str, repo: str, revision: str, sha256: str | None) -> ModelSpec:
    return ModelSpec(
        name=f"sam_hf_{architecture}",
        family="sam",
        load="promptseg.models.sam_hf:load",
        licence="Apache-2.0",
        accepts=frozenset({"points", "boxes", "everything"}),
        origin=Origin(host="hub", repo=repo, revision=revision),
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
    (config.json, which says the architecture; there are no options).

    Raises:
        ConfigError: an option is given, or a file is missing.
        IntegrityError: a file is unreadable or the checkpoint does not fit the config.
    """
    import torch

    from promptseg.models.sam_common import check_options, file_of, import_torchvision, load_strict, read_state

    check_options(spec, ())
    checkpoint, config_file = file_of(spec, files, "checkpoint"), file_of(spec, files, "config")
    config = _read_config(config_file)
    import_torchvision()
    from transformers import SamModel

    with torch.device("meta"):
        model = SamModel._from_config(config, attn_implementation="sdpa")
    load_strict(model, _with_both_names(read_state(checkpoint)), checkpoint)
    return wrap(spec, model, runtime)


def wrap(spec: ModelSpec, model: Any, runtime: Runtime) -> SamSegmenter:
    """Make a segmenter of a ``transformers.SamModel`` of any size, with its weights in it."""
    from promptseg.models.sam_common import SamSegmenter

    model.eval().requires_grad_(requires_grad=False).to(runtime.device)

    def encode(batch: Tensor) -> Any:
        return model.get_image_embeddings(batch)

    def decode(features: Tensor, prompts: Prompts) -> tuple[Any, Any]:
        # transformers wants (image, prompt of the image, ...): each row of the batch is an image with one prompt.
        given = {"input_points": prompts.points_xy, "input_labels": prompts.labels, "input_boxes": prompts.boxes_xyxy}
        inputs = {name: None if value is None else value[:, None] for name, value in given.items()}
        output = model(
            image_embeddings=features, input_masks=prompts.logits, multimask_output=prompts.logits is None, **inputs
        )
        return output.pred_masks[:, 0], output.iou_scores[:, 0]

    return SamSegmenter(spec, encode, decode, runtime, side=model.config.vision_config.image_size)


def _read_config(path: Path) -> Any:
    from transformers import SamConfig

    from promptseg.errors import IntegrityError

    try:
        config = SamConfig.from_json_file(path)
    except Exception as error:
        raise IntegrityError(f"{path}: not a config of transformers.SamModel ({error}). Pull it again.") from error
    config.mask_decoder_config.layer_norm_eps = _DECODER_NORM_EPS
    return config


def _with_both_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = [state[name] for name in _SHARED if name in state]
    return state | dict.fromkeys(_SHARED, found[0]) if len(found) == 1 else state
