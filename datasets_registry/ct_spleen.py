"""ct_spleen: the spleen in CT (Medical Segmentation Decathlon, task 9), the study's task CT-Spleen.

Axial slices of the 41 volumes with labels, in the abdominal window of -160 to 240 Hounsfield units.
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
    name="ct_spleen",
    modality="ct",
    load=PREPARED,
    tasks=(TaskSpec(name="ct_spleen", labels=(1,), target="spleen", n_masks=1051),),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="MedOtter/msd-spleen",
        revision="6ba3d36fc2521cd079658f7787ccbb9f7d4185d7",
        seen="Commit and page were seen, and the files in public code that downloads them. The card of this commit "
        "points to a file that is missing; the files are listed, so that does no harm.",
    ),
    files=("*imagesTr/spleen_*.nii.gz", "*labelsTr/spleen_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("spleen", ABDOMEN),),
    original=msd_original("Task09_Spleen", "dfeba347daae4fb08c38f4d243ab606b28b91b206ffc445ec55c35489fa65e60"),
    study="CT-Spleen",
    n_masks=1051,
    faults=(NOT_NAMED,),
    shareable=True,
)
