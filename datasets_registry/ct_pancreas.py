"""ct_pancreas: the pancreas with its masses in CT (Decathlon, task 7), the study's task CT-Pancreas.

Axial slices of the 281 volumes with labels, in the abdominal window of -160 to 240 Hounsfield units. Parenchyma (1) and
mass (2) are one object, as in the study.
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
    name="ct_pancreas",
    modality="ct",
    load=PREPARED,
    tasks=(TaskSpec(name="ct_pancreas", labels=(1, 2), target="pancreas and its masses", n_masks=8792),),
    licence=MSD_LICENCE,
    origin=Origin(
        host="hub",
        repo="Angelou0516/msd-pancreas",
        revision="327dd551a9e51295c34e14f311d8330ef44b6cac",
        seen="Commit and file names were seen in public code that uses it.",
    ),
    files=("*imagesTr/pancreas_*.nii.gz", "*labelsTr/pancreas_*.nii.gz"),
    citation=MSD_CITATION,
    url=MSD_URL,
    layouts=(msd_layout("pancreas", ABDOMEN),),
    original=msd_original("Task07_Pancreas", "e40181a0229ca85c2588d6ebb90fa6674f84eb1e66f0f968cda088d011769732"),
    mirrors=(
        Origin(host="hub", repo="MedOtter/msd-pancreas", seen="Named in public code; perhaps the same repository."),
    ),
    study="CT-Pancreas",
    n_masks=8792,
    faults=(NOT_NAMED,),
    shareable=True,
)
