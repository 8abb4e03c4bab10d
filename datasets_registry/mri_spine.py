"""mri_spine: spinal cord and its grey matter in MRI, the study's tasks MRI-Spine.

The images are the axial slices of the training subjects of the Spinal Cord Grey Matter Segmentation Challenge: four
sites with ten subjects each, the only ones whose masks were published.

Four raters drew each subject. A pixel is cord where more than half of them (at least three of four) say grey or white
matter, and grey matter where more than half say grey matter; that is how a consensus of raters is commonly made, and
no rater is preferred. The cord is grey and white matter together.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import MRI, NOT_NAMED, PREPARED, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Original, TaskSpec

_SUBJECT = r"(?P<id>site\d-sc\d+)"

SPEC = DatasetSpec(
    name="mri_spine",
    modality="mri",
    load=PREPARED,
    tasks=(
        TaskSpec(name="mri_spine_gm", labels=(1,), target="grey matter of the spinal cord"),
        TaskSpec(name="mri_spine_cord", labels=(1, 2), target="spinal cord: grey and white matter"),
    ),
    licence="terms of the challenge, accepted at registration",
    citation=(
        "Prados, F., Ashburner, J., Blaiotta, C., et al.: Spinal cord grey matter segmentation challenge. NeuroImage "
        "152, 312-329 (2017)"
    ),
    url="http://niftyweb.cs.ucl.ac.uk/program.php?p=CHALLENGE",
    layouts=(
        Layout(
            name="challenge archive",
            expects="siteS-scNN-image.nii.gz with siteS-scNN-mask-r1.nii.gz to -r4 (test subjects have none)",
            read=VOLUMES,
            options={
                "image": rf"{_SUBJECT}-image\.nii\.gz",
                "masks": [rf"{_SUBJECT}-mask-r{rater}\.nii\.gz" for rater in (1, 2, 3, 4)],
                "case": "{id}",
                "subject": "{id}",
                "without_mask": "left out",
                "masks_are": "raters",
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="http://niftyweb.cs.ucl.ac.uk/program.php?p=CHALLENGE",
        how="Register for the challenge by mail to its organisers, then download the training data.",
    ),
    study="MRI-Spine",
    n_masks=551,
    faults=(
        "The study does not say which of the four raters it used; here it is their majority.",
        NOT_NAMED,
    ),
)
