"""ct_colon: primary cancer of the colon in CT (Medical Segmentation Decathlon, task 10), the study's task CT-Colon.

Axial slices of the 126 volumes with labels, in the abdominal window of -160 to 240 Hounsfield units. The test volumes
of the Decathlon have no labels and are not used.
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
    name="ct_colon",
    modality="ct",
    load=PREPARED,
    tasks=(TaskSpec(name="ct_colon", labels=(1,), target="colon cancer primaries", n_masks=1285),),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="MedOtter/msd-colon",
        seen="Its page was seen: 126 volumes, imagesTr and labelsTr as the owners publish them. No commit was seen.",
    ),
    files=("*imagesTr/colon_*.nii.gz", "*labelsTr/colon_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("colon", ABDOMEN),),
    original=msd_original("Task10_Colon", "a26bfd23faf2de703f5a51a262cd4e2b9774c47e7fb86f0e0a854f8446ec2325"),
    mirrors=(
        Origin(host="hub", repo="Angelou0516/msd-colon", seen="Shows the same page; perhaps the same repository."),
    ),
    study="CT-Colon",
    n_masks=1285,
    faults=(NOT_NAMED,),
    shareable=True,
)
