"""The tracker of SAM 3 (Meta, 2025): the part that takes points and boxes, for single images.

SAM 3 itself looks for all instances of a concept. Its boxes are examples of the concept, not the prompts of this
benchmark; those go to the tracker, which has SAM 2's decoder on SAM 3's encoder.

Training data: SA-Co, whose external part holds public sets that were not compared with those here, beside SA-1B and
SA-V. The weights are gated and have a licence of their own.
"""

from __future__ import annotations

from promptseg.models.sam._transformers_spec import FILE_UNSEEN, transformers_spec
from promptseg.specs import Origin

TRACKER = transformers_spec(
    "sam3_tracker",
    "sam2_hf",
    Origin(
        host="hub",
        repo="facebook/sam3",
        revision="3c879f39826c281e95690f02c7821c4de09afae7",
        gated=True,
        seen=FILE_UNSEEN,
    ),
    family="sam3",
    licence="SAM License (19 November 2025)",
    training_data=("sa_co", "sa_1b", "sa_v"),
    url="https://github.com/facebookresearch/sam3",
    gpu=True,
)
