"""SAM-HQ: SAM with one more output for finer masks (L. Ke et al., arXiv 2306.01567).

Training data: HQSeg-44K for what it adds; the rest is SAM's, frozen, hence SA-1B. All are natural images.
The authors' code keeps the best of SAM's three masks by predicted IoU and adds the finer one to it; here it is added to
each of the three, best first. So candidate 0 is the authors' answer, and ``first`` and ``confident`` agree.

The weights and the modules are those of transformers; `promptseg.models.sam._hq_decoder` says why the decoding is not.
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import COMMIT_UNSEEN, FILE_UNSEEN, transformers_spec
from promptseg.specs import ModelSpec, Origin


def _spec(architecture: str, size: str, revision: str | None) -> ModelSpec:
    seen = FILE_UNSEEN if revision else COMMIT_UNSEEN
    return transformers_spec(
        f"sam_hq_{architecture}",
        "sam_hf",
        Origin(host="hub", repo=f"syscv-community/sam-hq-vit-{size}", revision=revision, seen=seen),
        family="sam",
        training_data=("sa_1b", "hqseg_44k"),
        url="https://arxiv.org/abs/2306.01567",
        gpu=True,
    )


SAM_HQ_VIT_B = _spec("vit_b", "base", None)
SAM_HQ_VIT_L = _spec("vit_l", "large", None)
SAM_HQ_VIT_H = _spec("vit_h", "huge", "9d9d53502fbf666297e7eb3804f64137f930055e")
