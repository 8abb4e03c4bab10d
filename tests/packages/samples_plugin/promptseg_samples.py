"""Data sets made of small samples of real ones, to be prepared from the folders that hold them.

A sample is no data set of the study, whatever it was taken from: the names say ``sample_``.
"""

from __future__ import annotations

from typing import Any

from promptseg import DatasetSpec, Layout, Original, TaskSpec

_PICTURES = "promptseg.preparation.layouts_pictures:pictures"
_VOLUMES = "promptseg.preparation.layouts_volumes:volumes"
_MRI = {"rule": "mr_percentiles", "low": 0.5, "high": 99.5}
_ABDOMEN = {"rule": "ct_window", "low": -160, "high": 240}


def _sample(name: str, modality: str, layout: Layout, tasks: dict[str, tuple[int, ...]]) -> DatasetSpec:
    own = f"sample_{name}"
    return DatasetSpec(
        name=own,
        modality=modality,
        load="promptseg.data.prepared:load",
        tasks=tuple(
            TaskSpec(name=f"{own}_{label}" if len(tasks) > 1 else own, labels=ids, target=label)
            for label, ids in tasks.items()
        ),
        licence="of its source, see SOURCE.md beside the files",
        layouts=(layout,),
        original=Original(page="SOURCE.md beside the files", how="Take the folder as it is."),
    )


def _pictures(name: str, modality: str, **tasks: tuple[int, ...]) -> DatasetSpec:
    part = {
        "name": "pictures",
        "image": r"images/(?P<id>[^/]+)\.png",
        "masks": [r"masks/(?P<id>[^/]+)\.png"],
        "case": "{id}",
        "masks_are": "labels",
    }
    layout = Layout(
        name="pictures", expects="images/NAME.png with masks/NAME.png", read=_PICTURES, options={"parts": [part]}
    )
    return _sample(name, modality, layout, tasks)


def _volume(name: str, modality: str, files: dict[str, Any], **tasks: tuple[int, ...]) -> DatasetSpec:
    options = {"case": name, "subject": name, **files}
    layout = Layout(name="volume", expects="volumes/ with an image and its masks", read=_VOLUMES, options=options)
    return _sample(name, modality, layout, tasks)


US_BREAST = _pictures("us_breast", "ultrasound", tumour=(1,))
US_OVARIAN_TUMOR = _pictures("us_ovarian_tumor", "ultrasound", tumour=(1,))
US_NERVE_USGRA = _pictures("us_nerve_usgra", "ultrasound", nerve=(1,), vessel=(2,))
XRAY_CHEST = _pictures("xray_chest", "xray", lungs=(1,))
XRAY_HIP = _pictures("xray_hip", "xray", femur=(1,))
MRI_HEART = _pictures("mri_heart", "mri", atrium=(1,))
MRI_HIPPOCAMPUS = _pictures("mri_hippocampus", "mri", anterior=(1,), posterior=(2,))
CT_HEPATIC_VESSEL = _pictures("ct_hepatic_vessel", "ct", vessel=(1,))
CT_LIVER = _pictures("ct_liver", "ct", liver=(1,))
CT_PANCREAS = _pictures("ct_pancreas", "ct", pancreas=(1,))
PETCT_LESION = _pictures("petct_lesion", "pet_ct", lesion=(1,))
CT_SPLEEN = _volume(
    "ct_spleen",
    "ct",
    {"image": r"sub-spleen2_ct\.nii\.gz", "masks": [r"sub-spleen2_ct_seg-manual\.nii\.gz"], "intensity": _ABDOMEN},
    spleen=(1,),
)
MRI_BRAIN = _volume(
    "mri_brain",
    "mri",
    {
        "image": r"brats_2013_pat0001_1_T1c_subtrMeanDivStd\.nii\.gz",
        "masks": [r"brats_2013_pat0001_1_OTMultiClass\.nii\.gz"],
        "intensity": _MRI,
    },
    core=(1, 3),
    edema=(2,),
    enhancing=(4,),
)
MRI_SPINE_CORD_GM = _volume(
    "mri_spine_cord_gm",
    "mri",
    {
        "image": r"t2s\.nii\.gz",
        "masks": [r"t2s_seg\.nii\.gz", r"t2s_gmseg_manual\.nii\.gz"],
        "masks_are": "parts",
        "intensity": _MRI,
    },
    cord=(1, 2),
    gm=(2,),
)
MRI_SPINE_GM = _volume(
    "mri_spine_gm",
    "mri",
    {
        "image": r"t2s_uncropped\.nii\.gz",
        "masks": [r"t2s_uncropped_gmseg_manual\.nii\.gz"],
        "masks_are": "parts",
        "intensity": _MRI,
    },
    gm=(1,),
)
CT_3SLICE_DCMQI = _volume(
    "ct_3slice_dcmqi",
    "ct",
    {
        "image": r"volumes/\d+\.dcm",
        "series": True,
        "masks": [rf"volumes/{organ}_seg\.nrrd" for organ in ("liver", "spine", "heart")],
        "masks_are": "parts",
        "intensity": _ABDOMEN,
    },
    liver=(1,),
    spine=(2,),
    heart=(3,),
)
