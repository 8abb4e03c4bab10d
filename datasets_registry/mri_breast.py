"""mri_breast: breast and fibroglandular tissue in MRI (Duke Breast Cancer MRI), the study's tasks MRI-Breast.

The study cites the 2D supplement: of each volume some planes in which the breast was drawn, and some in which the
fibroglandular tissue (FGT) was. A plane with the one drawing need not have the other, so each drawing is a case of its
own: label 1 is breast, label 2 FGT, and no case holds both. The picture is the plane of the fat-saturated T1 series
before contrast that the DICOM segmentation refers to; the whole series is scaled at once.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, MRI
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="mri_breast",
    modality="mri",
    load=CANONICAL,
    tasks=(
        TaskSpec(name="mri_breast_whole", labels=(1,), target="breast"),
        TaskSpec(name="mri_breast_fgt", labels=(2,), target="fibroglandular tissue"),
    ),
    licence="CC BY-NC 4.0, not verified; read the terms at the page of the collection",
    non_commercial=True,
    citation=(
        "Saha, A., Harowicz, M.R., Grimm, L.J., et al.: A machine learning approach to radiogenomics of breast cancer: "
        "a study of 922 subjects and 529 DCE-MRI features. British Journal of Cancer 119(4), 508-516 (2018); Hu, S., "
        "Park, C., Lew, C.O., et al.: Fully automated deep learning method for fibroglandular tissue segmentation in "
        "breast MRI (2022)"
    ),
    url="https://doi.org/10.7937/TCIA.e3sv-re93",
    layouts=(
        Layout(
            name="TCIA, DICOM with DICOM segmentations",
            expects="folders Breast_MRI_NNN/STUDY/SERIES/*.dcm: the series that was drawn on and the segmentations",
            read="promptseg.preparation.layouts_dicom:drawn_planes",
            options={
                "file": r"(?P<subject>Breast_MRI_\d+)/(?P<series>[^/]+/[^/]+)/[^/]+\.dcm",
                "case": "{subject}",
                "subject": "{subject}",
                "objects": [["fgt", "fgt|fibro|dense", 2], ["breast", "breast", 1]],
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="https://doi.org/10.7937/TCIA.e3sv-re93",
        how="Under the supplements of the collection, download with the NBIA Data Retriever the DICOM segmentations of "
        "breast and FGT (127 subjects) and the series before contrast of the same subjects, into one folder.",
    ),
    mirrors=(
        Origin(host="hub", repo="chehablab/DBCM", seen="Holds tumours of the collection, neither breast nor FGT."),
        Origin(
            host="hub",
            repo="flp-r/breast-mri-segmentation-dataset",
            seen="Holds refined masks of vessels, neither breast nor FGT.",
        ),
    ),
    study="MRI-Breast",
    n_masks=503,
    overlaps=("mri_breast_3d",),
    faults=(
        "The names of the segments and folders of the 2D supplement were not seen: a segment is recognised by the "
        "words breast, or FGT, fibro or dense, in its label or in the description of its series.",
    ),
)
