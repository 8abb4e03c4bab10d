"""MobileSAM: SAM's decoder behind a TinyViT that was distilled from SAM's vit_h (C. Zhang et al., arXiv 2306.14289).

No code of the authors is needed: their file of weights is read into timm's TinyViT and the decoder of the official
``segment_anything``. On random weights under the authors' names, this encoder and theirs (github.com/ChaoningZhang/
MobileSAM, commit 34bbbfd) agree to 3e-6.

Training data: one per cent of SA-1B for the encoder; the decoder is SAM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.specs import ModelSpec, Origin, WeightFile

if TYPE_CHECKING:
    from promptseg.models.sam._segmenter import SamSegmenter
    from promptseg.segmenter import Runtime

SPEC = ModelSpec(
    name="mobile_sam",
    family="sam",
    load="promptseg.models.sam.mobile_sam:load",
    licence="Apache-2.0 (the mirror on the Hub says MIT)",
    accepts=frozenset({"points", "boxes"}),
    # A mirror; other projects recorded the same sha256 for the file of the authors' own repository.
    origin=Origin(host="hub", repo="dhkim2810/MobileSAM", revision="87955d8f45ddcaa0212ca6ebcd13785902988e2a"),
    weights=(
        WeightFile(
            role="checkpoint",
            path="mobile_sam.pt",
            sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            size=40_728_226,
        ),
    ),
    training_data=("sa_1b",),
    url="https://arxiv.org/abs/2306.14289",
)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> SamSegmenter:
    """Load MobileSAM. Files: ``checkpoint``, the authors' mobile_sam.pt. There are no options.

    Raises:
        ConfigError: an option is given, or the file is missing.
        IntegrityError: the checkpoint is unreadable or does not fit.
        UnavailableError: the package timm is missing.
    """
    import torch

    from promptseg.models._loading import check_options, check_package, file_of
    from promptseg.models._weights import load_weights
    from promptseg.models.sam._segmenter import SamSegmenter

    check_options(spec, ())
    checkpoint = file_of(spec, files, "checkpoint")
    check_package(spec.name, "timm")
    from promptseg.models._fast import ENCODER_PATHS, check_fast, speed_up
    from promptseg.models.sam._decoder import OfficialDecoder, empty_modules
    from promptseg.models.sam._mobile_encoder import SIDE, empty_encoder, timm_names

    check_fast(spec, runtime, ENCODER_PATHS)  # timm always uses sdpa
    with torch.device("meta"):
        modules = empty_modules(SIDE)
    modules["image_encoder"] = empty_encoder()
    load_weights(modules, spec, checkpoint, timm_names)
    modules.eval().requires_grad_(requires_grad=False).to(runtime.device)
    encoder = modules["image_encoder"]
    speed_up(encoder, runtime)
    decoder = OfficialDecoder(modules["prompt_encoder"], modules["mask_decoder"])
    return SamSegmenter(spec, lambda batch: (encoder(batch),), decoder, runtime, side=SIDE)
