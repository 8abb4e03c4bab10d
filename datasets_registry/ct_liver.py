"""ct_liver: the liver in CT (LiTS), the study's task CT-Liver.

Axial slices of the training volumes of the Liver Tumor Segmentation challenge, in the abdominal window of -160 to 240
Hounsfield units. Liver (1) and tumour (2) are one object, as in the study.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import ABDOMEN, PREPARED, VOLUMES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="ct_liver",
    modality="ct",
    load=PREPARED,
    tasks=(TaskSpec(name="ct_liver", labels=(1, 2), target="liver, its tumours included", n_masks=5501),),
    licence="CC BY-NC-ND 4.0 or CC BY-NC-SA 4.0, by different copies; read the terms of the challenge",
    non_commercial=True,
    citation=(
        "Bilic, P., Christ, P., Li, H.B., et al.: The liver tumor segmentation benchmark (LiTS). Medical Image "
        "Analysis 84, 102680 (2023)"
    ),
    url="https://competitions.codalab.org/competitions/17094",
    layouts=(
        Layout(
            name="LiTS",
            expects="volume-N.nii with segmentation-N.nii (Training Batch 1 and 2)",
            read=VOLUMES,
            options={
                "image": r"volume-(?P<n>\d+)\.nii(?:\.gz)?",
                "masks": [r"segmentation-(?P<n>\d+)\.nii(?:\.gz)?"],
                "case": "volume_{n:0>3}",
                "subject": "volume_{n:0>3}",
                "intensity": ABDOMEN,
            },
        ),
    ),
    original=Original(
        page="https://competitions.codalab.org/competitions/17094",
        how="With an account at CodaLab, take part in the challenge and download Training Batch 1 and 2 into one "
        "folder. They need not be unpacked.",
        archives=(Archive(name="Training_Batch1.zip"), Archive(name="Training_Batch2.zip")),
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="MedOtter/msd-liver",
            seen="The Decathlon's edition, registered as ct_liver_msd.",
        ),
        Origin(
            host="hub",
            repo="pycad/liver-segmentation-100",
            revision="2e4e7153338202aa31542e6e9102e6f3cfa0b9ec",
            seen="100 CT of unnamed origin: not this data set.",
        ),
    ),
    study="CT-Liver",
    n_masks=5501,
    overlaps=("ct_liver_msd", "ct_organ", "lits", "msd_liver"),
    faults=(
        "The 131 volumes hold far more slices with liver than the study's 5,501: it used a part that it does not name.",
    ),
)
