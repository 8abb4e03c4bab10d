"""SlimSAM: SAM's vit_b pruned to half, or to a quarter, and distilled (Z. Chen et al., arXiv 2312.05284).

Training data: 10,000 images of SA-1B, on which the pruned model learns from SAM.
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import COMMIT_UNSEEN, transformers_spec
from promptseg.specs import ModelSpec, Origin


def _spec(pruned: int) -> ModelSpec:
    return transformers_spec(
        f"slimsam_{pruned}",
        "sam_hf",
        Origin(host="hub", repo=f"Zigeng/SlimSAM-uniform-{pruned}", seen=COMMIT_UNSEEN),
        family="sam",
        training_data=("sa_1b",),
        url="https://arxiv.org/abs/2312.05284",
    )


SLIMSAM_50 = _spec(50)
SLIMSAM_77 = _spec(77)
