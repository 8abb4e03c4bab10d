"""Segment Anything by the official ``segment-anything`` package: the models of the reference paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.models._feedback import with_feedback
from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from promptseg.models.sam._segmenter import SamSegmenter
    from promptseg.segmenter import Runtime

ARCHITECTURES = ("vit_b", "vit_l", "vit_h")

# A mirror of the authors' files. They carry part of their sha256 in their names, and other mirrors have equal hashes,
# so the hash is the real pin.
_ORIGIN = Origin(host="hub", repo="ybelkada/segment-anything", revision="7790786db131bcdc639f24a915d9f2c331d843ee")


def _spec(architecture: str, file: str, sha256: str, size: int) -> ModelSpec:
    return ModelSpec(
        name=f"sam_{architecture}",
        family="sam",
        load="promptseg.models.sam.sam:load",
        licence="Apache-2.0",
        accepts=frozenset({"points", "boxes", "everything"}),
        origin=_ORIGIN,
        weights=(WeightFile(role="checkpoint", path=f"checkpoints/{file}", sha256=sha256, size=size),),
        options={"architecture": architecture},
        training_data=("sa_1b",),
        url="https://arxiv.org/abs/2304.02643",
        gpu=True,
    )


SAM_VIT_B = _spec(
    "vit_b", "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375_042_383
)
SAM_VIT_L = _spec(
    "vit_l", "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1_249_524_607
)
SAM_VIT_H = _spec(
    "vit_h", "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2_564_550_879
)


SAM_VIT_B_FEEDBACK = with_feedback(SAM_VIT_B)
SAM_VIT_L_FEEDBACK = with_feedback(SAM_VIT_L)
SAM_VIT_H_FEEDBACK = with_feedback(SAM_VIT_H)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> SamSegmenter:
    """Load a SAM with the original names of its weights.

    Options: ``architecture``, one of vit_b, vit_l, vit_h. Files: ``checkpoint``, a .pth or safetensors file.

    Raises:
        ConfigError: an option or the file is missing or unknown.
        IntegrityError: the checkpoint is unreadable or does not fit the architecture.
    """
    import torch

    from promptseg.models._loading import check_options, file_of, import_torchvision, option
    from promptseg.models._weights import load_weights

    check_options(spec, {"architecture"})
    architecture = option(spec, "architecture", ARCHITECTURES)
    checkpoint = file_of(spec, files, "checkpoint")
    import_torchvision()
    from segment_anything import sam_model_registry

    def build(name: str) -> Any:
        with torch.device("meta"):
            return sam_model_registry[name]()

    sam = build(architecture)
    load_weights(sam, spec, checkpoint, others=lambda: ((name, build(name)) for name in ARCHITECTURES))
    return wrap(spec, sam, runtime)


def wrap(spec: ModelSpec, sam: Any, runtime: Runtime) -> SamSegmenter:
    """Make a segmenter of a ``segment_anything.modeling.Sam`` of any size, with its weights in it."""
    from promptseg.models._fast import ENCODER_PATHS, check_fast, speed_up
    from promptseg.models.sam._decoder import OfficialDecoder
    from promptseg.models.sam._sdpa import use_sdpa
    from promptseg.models.sam._segmenter import SamSegmenter

    check_fast(spec, runtime, ENCODER_PATHS)
    # By parts: sam.to() would also move pixel_mean and pixel_std, which have no memory after a build on meta.
    encoder, prompt_encoder, mask_decoder = (
        module.eval().requires_grad_(requires_grad=False).to(runtime.device)
        for module in (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    )
    if "sdpa" in runtime.fast:
        use_sdpa(encoder)
    speed_up(encoder, runtime)
    decoder = OfficialDecoder(prompt_encoder, mask_decoder)
    return SamSegmenter(spec, lambda batch: (encoder(batch),), decoder, runtime, side=encoder.img_size)
