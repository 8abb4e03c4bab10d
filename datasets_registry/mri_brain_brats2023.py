"""mri_brain_brats2023: the three parts of a glioma in MRI, BraTS 2023, as a substitute for the study's MRI-Brain.

The same objects as mri_brain in a later edition that is on the Hub without registration: its cases are those of 2021,
with masks that were revised and numbered anew (3 is the enhancing tumour). Its scores are not the study's.

Axial slices of the contrast-enhanced T1, as in mri_brain.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import MRI, PREPARED, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="mri_brain_brats2023",
    modality="mri",
    load=PREPARED,
    tasks=(
        TaskSpec(name="mri_brain_brats2023_core", labels=(1,), target="necrotic tumour core"),
        TaskSpec(name="mri_brain_brats2023_edema", labels=(2,), target="peritumoural oedema"),
        TaskSpec(name="mri_brain_brats2023_enhancing", labels=(3,), target="gadolinium-enhancing tumour"),
    ),
    licence="terms of the BraTS challenge; CC BY 4.0 by the mirror's card",
    origin=Origin(
        host="hub",
        repo="MedOtter/brats2023-gli-dataset",
        revision="b032d353a3e80911a5f850bc54e6fb575298a354",
        seen="Commit, file names and labels were seen in public code that uses it; the number of cases was not.",
    ),
    files=("*-t1c.nii.gz", "*-seg.nii.gz"),
    citation=(
        "Baid, U., Ghodasara, S., Mohan, S., et al.: The RSNA-ASNR-MICCAI BraTS 2021 benchmark on brain tumor "
        "segmentation and radiogenomic classification. arXiv:2107.02314 (2021)"
    ),
    url="https://huggingface.co/datasets/MedOtter/brats2023-gli-dataset",
    layouts=(
        Layout(
            name="BraTS 2023",
            expects="folders BraTS-GLI-.../BraTS-GLI-...-t1c.nii.gz with -seg.nii.gz, labels 1, 2 and 3",
            read=VOLUMES,
            options={
                "image": r"(?P<id>BraTS-GLI-(?P<patient>\d+)-\d+)-t1c\.nii\.gz",
                "masks": [r"(?P<id>BraTS-GLI-(?P<patient>\d+)-\d+)-seg\.nii\.gz"],
                "case": "{id}",
                "subject": "BraTS-GLI-{patient}",
                "without_mask": "left out",
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="https://www.synapse.org",
        how="Register at Synapse, accept the terms of the challenge, and download the training data of BraTS 2023 GLI.",
    ),
    overlaps=("mri_brain",),
    faults=("A later edition than the study's, with revised masks: a substitute, not a reproduction.",),
)
