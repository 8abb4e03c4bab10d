"""mri_breast_3d: breast and fibroglandular tissue in MRI, 3D supplement: a substitute for the study's MRI-Breast.

The study cites the 2D supplement of the collection (mri_breast). This one has whole volumes of 100 subjects, drawn
later, by other rules. All axial slices of the fat-saturated T1 series before contrast that hold breast.

Label 1 is breast, 2 fibroglandular tissue, 3 vessels. By the owners' rule the last two are inside the breast, so the
breast is all three.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, MRI, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Original, TaskSpec

# Descriptions of the series before contrast differ by scanner; these words distinguish it from the later phases.
_BEFORE = r"(?=[^/]*(?i:dyn|pre|vibrant))(?![^/]*(?i:ph\d|1st|2nd|3rd|4th|t1))"

SPEC = DatasetSpec(
    name="mri_breast_3d",
    modality="mri",
    load=CANONICAL,
    tasks=(
        TaskSpec(name="mri_breast_3d_whole", labels=(1, 2, 3), target="breast"),
        TaskSpec(name="mri_breast_3d_fgt", labels=(2,), target="fibroglandular tissue"),
    ),
    licence="CC BY-NC 4.0, not verified; read the terms at the page of the collection",
    non_commercial=True,
    citation=(
        "Lew, C.O., Harouni, M., Kirksey, E.R., et al.: A publicly available deep learning model and dataset for "
        "segmentation of breast, fibroglandular tissue, and vessels in breast MRI. Scientific Reports 14, 5383 (2024)"
    ),
    url="https://doi.org/10.7937/TCIA.e3sv-re93",
    layouts=(
        Layout(
            name="TCIA, DICOM with the supplement in NRRD",
            expects="Breast_MRI_NNN/STUDY/SERIES/*.dcm of the series before contrast, and Segmentation_Masks_NRRD/",
            read=VOLUMES,
            options={
                "image": rf"(?P<id>Breast_MRI_\d+)/[^/]+/{_BEFORE}[^/]+/[^/]+\.dcm",
                "masks": [
                    r"(?:Segmentation_)?(?P<id>Breast_MRI_\d+)_Breast\.seg\.nrrd",
                    r"(?:Segmentation_)?(?P<id>Breast_MRI_\d+)_Dense_and_Vessels\.seg\.nrrd",
                ],
                "series": True,
                "masks_are": "segments",
                "segments": [{"": 1}, {"vessel": 3, "dense|fgt|fibro": 2}],
                "case": "{id}",
                "subject": "{id}",
                "without_mask": "left out",
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="https://doi.org/10.7937/TCIA.e3sv-re93",
        how="Download the 3D supplement (Segmentation_Masks_NRRD, 100 subjects) and, with the NBIA Data Retriever, the "
        "fat-saturated T1 series before contrast of the same subjects, into one folder.",
    ),
    overlaps=("mri_breast",),
    faults=(
        "Another supplement than the study's: whole volumes, not chosen planes. A substitute, not a reproduction.",
        "The series before contrast is recognised by its description, as other users of the collection do; where "
        "several series of a subject match, preparation stops and names them.",
    ),
)
