"""ct_liver_msd: the liver in CT (Decathlon, task 3), as a substitute for the study's CT-Liver.

The Decathlon's task 3 was made from the training volumes of LiTS; whether voxels and masks are the same has not been
checked, and the study names LiTS. So this is a data set of its own, on the Hub without registration.

Axial slices in the abdominal window of -160 to 240 Hounsfield units; liver (1) and tumour (2) are one object.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import (
    ABDOMEN,
    MSD_CITATION,
    MSD_LICENCE,
    MSD_URL,
    PREPARED,
    msd_layout,
    msd_original,
)
from promptseg.specs import DatasetSpec, Origin, TaskSpec

SPEC = DatasetSpec(
    name="ct_liver_msd",
    modality="ct",
    load=PREPARED,
    tasks=(TaskSpec(name="ct_liver_msd", labels=(1, 2), target="liver, its tumours included"),),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="MedOtter/msd-liver",
        seen="Named in public code, with the owners' file names and labels. Neither its page nor a commit was seen.",
    ),
    files=("*imagesTr/liver_*.nii.gz", "*labelsTr/liver_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("liver", ABDOMEN),),
    original=msd_original("Task03_Liver", "4007d9db1acda850d57a6ceb2b3998b7a0d43f8ad5a3f740dc38bc0cb8b7a2c5"),
    overlaps=("ct_liver", "ct_organ", "lits", "msd_liver"),
    faults=("Made from LiTS, which the study names; a substitute, not a reproduction.",),
    shareable=True,
)
