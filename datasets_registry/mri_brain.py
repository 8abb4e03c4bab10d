"""mri_brain: the three parts of a glioma in MRI (BraTS 2018 to 2021), the study's tasks MRI-Brain.

Axial slices of the contrast-enhanced T1. The study shows one picture for all three parts and does not say which
contrast; this is the one on which the enhancing tumour and the necrotic core are defined, while the oedema
is only slightly darker than white matter here and would be bright in FLAIR.

The labels are those of the editions 2018 to 2021: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour. The
released code of the study turns 4 into 3 when it reads masks, so its files had them too.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, MRI, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="mri_brain",
    modality="mri",
    load=CANONICAL,
    tasks=(
        TaskSpec(name="mri_brain_core", labels=(1,), target="necrotic and non-enhancing tumour core"),
        TaskSpec(name="mri_brain_edema", labels=(2,), target="peritumoural oedema"),
        TaskSpec(name="mri_brain_enhancing", labels=(4,), target="gadolinium-enhancing tumour"),
    ),
    licence="terms of the BraTS challenge, accepted at registration",
    citation=(
        "Menze, B.H., Jakab, A., Bauer, S., et al.: The multimodal brain tumor image segmentation benchmark (BRATS). "
        "IEEE Transactions on Medical Imaging 34(10), 1993-2024 (2014)"
    ),
    url="https://www.med.upenn.edu/cbica/brats2021/",
    layouts=(
        Layout(
            name="BraTS 2018 to 2021",
            expects="folders BraTS.../BraTS..._t1ce.nii.gz with BraTS..._seg.nii.gz, labels 1, 2 and 4",
            read=VOLUMES,
            options={
                "image": r"(?P<id>BraTS[^/]+)_t1ce\.nii(?:\.gz)?",
                "masks": [r"(?P<id>BraTS[^/]+)_seg\.nii(?:\.gz)?"],
                "case": "{id}",
                "subject": "{id}",
                "without_mask": "left out",
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="https://www.synapse.org",
        how="Register at Synapse (editions up to 2020: at the image processing portal of CBICA), accept the terms of "
        "the challenge, and download the training data of one edition from 2018 to 2021. Give the folder or the "
        "archive of one edition, not of several: they share patients.",
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="rocky93/BraTS_segmentation",
            revision="28768c67b58e4335d884c39b51328fbaa9f231a9",
            seen="BraTS 2021 in the right layout, but about 347 cases of 1,251; its licence is not the owners'.",
        ),
    ),
    study="MRI-Brain",
    n_masks=12591,
    overlaps=("mri_brain_brats2023",),
    faults=(
        "The study names neither the edition of BraTS nor the slices: the complete training data of any edition has "
        "another count than its 12,591.",
        "The study does not name the contrast that it shows; here it is the contrast-enhanced T1.",
        "The parts are nested by definition and touch each other; the core alone is often a ring or splinters.",
    ),
)
