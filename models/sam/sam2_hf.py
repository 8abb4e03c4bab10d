"""SAM 2 and its kin by transformers with scaled dot product attention: SAM 2.1, EdgeTAM and the tracker of SAM 3.

They see the image squashed to a square (1024, or 1008 for SAM 3), and decode one map of features with two finer ones.
Their checkpoints are those of video models: what only videos need is left out, everything else must fit.

On random weights, all three decode as the prompt encoder and mask decoder of SAM 2's authors do
(github.com/facebookresearch/sam2, commit 2b90b9f): logits and predicted IoUs agree to 1e-5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.specs import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from promptseg.models.sam._segmenter import Features, Prompts, SamSegmenter
    from promptseg.segmenter import Runtime

# What a checkpoint of all of SAM 3 calls the parts of its tracker, and what transformers.Sam3TrackerModel does.
_TRACKER_PARTS = (
    ("detector_model.vision_encoder.backbone.", "vision_encoder.backbone."),
    ("tracker_neck.", "vision_encoder.neck."),
    ("tracker_model.", ""),
)
_HALF = (127.5, 127.5, 127.5)  # SAM 3 maps 0 to 255 onto -1 to 1


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> SamSegmenter:
    """Load a model of the SAM 2 family, from local files alone.

    Files: ``checkpoint`` (safetensors) and ``config`` (config.json, whose ``model_type`` says which model it is: of
    SAM 2, EdgeTAM or SAM 3, for images or for videos; there are no options). EdgeTAM needs the package timm.

    Raises:
        ConfigError: an option is given, or a file is missing.
        IntegrityError: a file is unreadable or the checkpoint does not fit the config.
        UnavailableError: timm is missing.
    """
    from promptseg.models._loading import check_options, file_of
    from promptseg.models._weights import load_weights
    from promptseg.models.sam._transformers import OTHER_CONFIG, Kind, build, read_config

    check_options(spec, ())
    checkpoint, config_file = file_of(spec, files, "checkpoint"), file_of(spec, files, "config")
    sam2 = Kind("Sam2Config", "Sam2Model")
    edgetam = Kind("EdgeTamConfig", "EdgeTamModel", needs="timm")
    sam3 = Kind("Sam3TrackerConfig", "Sam3TrackerModel")
    kinds = {"sam2": sam2, "sam2_video": sam2, "edgetam": edgetam, "edgetam_video": edgetam}
    kinds |= {"sam3_tracker": sam3, "sam3_tracker_video": sam3, "sam3_video": sam3}
    config, kind = read_config(spec, config_file, kinds)
    model = build(kind, config)
    load_weights(model, spec, checkpoint, partial(_for_images, model=model), hint=OTHER_CONFIG)
    return wrap(spec, model, runtime)


def wrap(spec: ModelSpec, model: Any, runtime: Runtime) -> SamSegmenter:
    """Make a segmenter of a ``Sam2Model``, ``EdgeTamModel`` or ``Sam3TrackerModel`` with its weights in it."""
    from promptseg.models._fast import ENCODER_PATHS, check_fast, speed_up
    from promptseg.models.sam._segmenter import SamSegmenter, SquashedFrame
    from promptseg.models.sam._transformers import answer, ready

    check_fast(spec, runtime, ENCODER_PATHS)  # sdpa is always on
    ready(model, runtime.device)
    speed_up(model.vision_encoder, runtime)
    is_sam3 = type(model).__name__ == "Sam3TrackerModel"
    frame = partial(SquashedFrame, mean=_HALF, std=_HALF) if is_sam3 else SquashedFrame

    def encode(batch: Tensor) -> Features:
        return tuple(model.get_image_embeddings(batch))

    def decode(features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        return answer(model, prompts, image_embeddings=list(features))

    side = model.config.prompt_encoder_config.image_size
    return SamSegmenter(spec, encode, decode, runtime, side=side, frame=frame)


def _for_images(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return what a checkpoint holds for images, under the model's names.

    transformers itself lists, with each model, the names of a video model's checkpoint that it has no use for.
    """
    of_videos = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]  # noqa: SLF001
    named = {_of_tracker(name): tensor for name, tensor in state.items()}
    known = model.state_dict().keys()
    return {k: v for k, v in named.items() if k in known or not any(p.search(k) for p in of_videos)}


def _of_tracker(name: str) -> str:
    for prefix, replacement in _TRACKER_PARTS:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name
