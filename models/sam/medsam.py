"""MedSAM: SAM's vit_b fine-tuned on medical images with boxes (J. Ma et al., Nature Communications 15:654, 2024).

The authors trained it with one box and one mask (``multimask_output=False``): it takes boxes alone, and its other masks
come from outputs that this training never saw. The authors' repository for transformers is of May 2023, and its
processor prepares images like SAM's. It is older than the release that goes with the paper, a file elsewhere whose
images are prepared in another way: do not expect the paper's numbers.

Training data: the paper lists its sets in supplementary tables 1 to 4; a list of the release of 2023 was not seen.
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import CONFIG_UNSEEN, transformers_spec
from promptseg.specs import Origin, WeightFile

SPEC = transformers_spec(
    "medsam_vit_b",
    "sam_hf",
    Origin(
        host="hub",
        repo="wanglab/medsam-vit-base",
        revision="de8488bca37bb1d4fb190f612c516126d739ce3b",
        seen=f"of 3 May 2023; {CONFIG_UNSEEN}",
    ),
    WeightFile(
        role="checkpoint",
        path="pytorch_model.bin",  # read without running its pickle; the commit has no safetensors
        sha256="0ef67838fba16f16c0e308eaf7a3ae6fbf4fe8e13d7a120ca932671ed9c47db0",
        size=375_045_749,
    ),
    family="sam",
    accepts=frozenset({"boxes"}),
    options={"candidates": "one"},
    training_data=("sa_1b", "medsam_2023"),
    url="https://doi.org/10.1038/s41467-024-44824-z",
    gpu=True,
)
