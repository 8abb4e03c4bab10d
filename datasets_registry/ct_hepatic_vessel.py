"""ct_hepatic_vessel: vessels and tumours of the liver in CT (Decathlon, task 8), the study's task CT-HepaticVessel.

Axial slices of the 303 volumes with labels, in the abdominal window of -160 to 240 Hounsfield units. Vessels (1) and
tumours (2) are one object, as in the study: its code takes every value above 0.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import (
    ABDOMEN,
    MSD_CITATION,
    MSD_LICENCE,
    MSD_URL,
    NOT_NAMED,
    PREPARED,
    msd_layout,
    msd_original,
)
from promptseg.specs import DatasetSpec, Origin, TaskSpec

SPEC = DatasetSpec(
    name="ct_hepatic_vessel",
    modality="ct",
    load=PREPARED,
    tasks=(
        TaskSpec(name="ct_hepatic_vessel", labels=(1, 2), target="vessels and tumours of the liver", n_masks=13046),
    ),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="MedOtter/msd-hepatic-vessel",
        seen="Named in public code, with the owners' file names and labels. Neither its page nor a commit was seen.",
    ),
    files=("*imagesTr/hepaticvessel_*.nii.gz", "*labelsTr/hepaticvessel_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("hepaticvessel", ABDOMEN),),
    original=msd_original("Task08_HepaticVessel", "ee880799f12e3b6e1ef2f8645f6626c5b39de77a4f1eae6f496c25fbf306ba04"),
    mirrors=(
        Origin(
            host="hub", repo="Angelou0516/msd-hepatic-vessel", seen="Named in public code; perhaps the same repository."
        ),
    ),
    study="CT-HepaticVessel",
    n_masks=13046,
    faults=(
        "The object is many small, disconnected pieces; prompts of the kind `each` give at most three.",
        NOT_NAMED,
    ),
    shareable=True,
)
