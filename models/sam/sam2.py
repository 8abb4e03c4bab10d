"""SAM 2.1 (N. Ravi et al., arXiv 2408.00714), for single images.

Training data: SA-1B, SA-V and licensed videos of Meta that are not published (section 5 of the paper).
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import CONFIG_UNSEEN, FILE_UNSEEN, transformers_spec
from promptseg.specs import ModelSpec, Origin, WeightFile


def _spec(
    size: str, repo: str, revision: str, *, gpu: bool, checkpoint: WeightFile | None = None, seen: str = FILE_UNSEEN
) -> ModelSpec:
    return transformers_spec(
        f"sam2_1_{size}",
        "sam2_hf",
        Origin(host="hub", repo=f"facebook/sam2.1-hiera-{repo}", revision=revision, seen=seen),
        checkpoint,
        family="sam2",
        training_data=("sa_1b", "sa_v", "meta_internal_videos"),
        url="https://arxiv.org/abs/2408.00714",
        gpu=gpu,
    )


# Commits as other public projects recorded them.
SAM2_1_TINY = _spec("tiny", "tiny", "de431c4043854a71d8101e17995dfe596bf101a5", gpu=False)
SAM2_1_SMALL = _spec(
    "small",
    "small",
    "ee5bba1d82bb8749febdf90f45e84b687142ba03",
    gpu=False,
    checkpoint=WeightFile(
        role="checkpoint",
        path="model.safetensors",
        sha256="0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
        size=184_305_280,
    ),
    seen=CONFIG_UNSEEN,
)
SAM2_1_BASE_PLUS = _spec("base_plus", "base-plus", "b7320756a13354e7530a63935656d35b2f91a290", gpu=True)
SAM2_1_LARGE = _spec("large", "large", "665f8e2ad61cf5f53d65644ff27c8ee525124610", gpu=True)
