"""EdgeTAM: SAM 2 for mobile devices, with a RepViT for an encoder (C. Zhou et al., arXiv 2501.07256).

Training data: SA-1B, SA-V, DAVIS, MOSE and YouTube-VOS (section 4 of the paper); it also learns from SAM 2's features.
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import FILE_UNSEEN, transformers_spec
from promptseg.specs import Origin

SPEC = transformers_spec(
    "edgetam",
    "sam2_hf",
    # The repository that transformers names; the commit as other public projects recorded it.
    Origin(
        host="hub",
        repo="yonigozlan/EdgeTAM-hf",
        revision="c266ce53b3fc00f0f495b583f6a116c4e57f53bb",
        seen=FILE_UNSEEN,
    ),
    family="sam2",
    training_data=("sa_1b", "sa_v", "davis", "mose", "youtube_vos"),
    url="https://arxiv.org/abs/2501.07256",
)
