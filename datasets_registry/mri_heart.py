"""mri_heart: the left atrium in MRI (Medical Segmentation Decathlon, task 2), the study's task MRI-Heart.

Axial slices of the 20 volumes with labels. The test volumes of the Decathlon have none and are not used.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import (
    MRI,
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
    name="mri_heart",
    modality="mri",
    load=PREPARED,
    tasks=(TaskSpec(name="mri_heart", labels=(1,), target="left atrium", n_masks=1301),),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="MedOtter/msd-cardiac",
        seen="Its page was seen: 20 volumes, imagesTr and labelsTr as the owners publish them. No commit was seen, and "
        "the licence (CC BY-SA 4.0) is that of its sister repositories.",
    ),
    files=("*imagesTr/la_*.nii.gz", "*labelsTr/la_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("la", MRI),),
    original=msd_original("Task02_Heart", "4277dc6dfe100142aa8060e895f6ff0f81c5b733703ea250bd294df8f820bcba"),
    mirrors=(
        Origin(
            host="hub", repo="Angelou0516/msd-cardiac", seen="Named in public code only; perhaps the same repository."
        ),
        Origin(
            host="hub",
            repo="YongchengYAO/MSD-Lite",
            seen='Its page calls it a "preprocessed redistribution"; what was done to the volumes was not seen.',
        ),
    ),
    study="MRI-Heart",
    n_masks=1301,
    faults=(NOT_NAMED,),
    shareable=True,
)
