"""pet_whole_body: FDG-avid lesions in PET/CT of the whole body (autoPET), the study's task PET-Whole-Body.

Axial slices on the grid of the PET. As in the study, red shows the PET and green and blue the CT. The study does not
say how it scaled them; here standardised uptake values of 0 to 10 and Hounsfield units of -160 to 240 go to 0..255: a
lesion is mostly above 2.5, and the brain and the bladder are above 10, where more would only darken the rest.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import PREPARED
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_STUDY = r"(?P<patient>PETCT_[^/]+)/(?P<study>[^/]+)"
_FDG = r"(?P<id>fdg_(?P<patient>[^_/]+)_[^/]+)"

SPEC = DatasetSpec(
    name="pet_whole_body",
    modality="pet_ct",
    load=PREPARED,
    tasks=(TaskSpec(name="pet_whole_body", labels=(1,), target="FDG-avid tumour lesion", n_masks=1015),),
    licence="terms of TCIA (a form must be accepted); CC BY-NC 4.0 by the mirror's card",
    non_commercial=True,
    origin=Origin(
        host="hub",
        repo="YongchengYAO/autoPET-III-Lite",
        seen="Named with its files and sizes in the profile of its owner and in public code: CT 37 GB, PET 29 GB. No "
        "commit was seen.",
    ),
    files=("*Images-CT.zip", "*Images-PET.zip", "*Masks.zip"),
    citation=(
        "Gatidis, S., Hepp, T., Frueh, M., et al.: A whole-body FDG-PET/CT dataset with manually annotated tumor "
        "lesions. Scientific Data 9, 601 (2022)"
    ),
    url="https://doi.org/10.7937/gkr0-xv29",
    layouts=(
        Layout(
            name="autoPET III",
            expects="fdg_*_0000.nii.gz (CT), fdg_*_0001.nii.gz (PET) and fdg_*.nii.gz (mask); psma_* are left alone",
            read="promptseg.preparation.layouts_volumes:pet_ct",
            options={
                "ct": rf"{_FDG}_0000\.nii\.gz",
                "pet": rf"{_FDG}_0001\.nii\.gz",
                "mask": rf"{_FDG}(?<!_000[01])\.nii\.gz",
                "case": "{id}",
                "subject": "{patient}",
            },
        ),
        Layout(
            name="autoPET, NIfTI",
            expects="PETCT_*/STUDY/CTres.nii.gz, SUV.nii.gz and SEG.nii.gz",
            read="promptseg.preparation.layouts_volumes:pet_ct",
            options={
                "ct": rf"{_STUDY}/CTres\.nii\.gz",
                "pet": rf"{_STUDY}/SUV\.nii\.gz",
                "mask": rf"{_STUDY}/SEG\.nii\.gz",
                "case": "{patient}_{study}",
                "subject": "{patient}",
            },
        ),
        Layout(
            name="TCIA, DICOM",
            expects="PETCT_*/STUDY/SERIES/*.dcm: a CT, a PET and a segmentation in each study",
            read="promptseg.preparation.layouts_dicom:pet_ct",
            options={
                "file": rf"{_STUDY}/(?P<series>[^/]+)/[^/]+\.dcm",
                "case": "{patient}_{study}",
                "subject": "{patient}",
            },
        ),
    ),
    original=Original(
        page="https://doi.org/10.7937/gkr0-xv29",
        how="Accept the licence form of TCIA and download the collection FDG-PET-CT-Lesions with the NBIA Data "
        "Retriever, or the NIfTI archive of the autoPET challenge. It need not be unpacked.",
        archives=(
            Archive(name="nifti.zip", sha256="0ac2186ea6d936ff41ce605c6a9588aeb20f031085589897dbab22fc82a12972"),
        ),
    ),
    study="PET-Whole-Body",
    n_masks=1015,
    faults=(
        "The collection has 1,014 studies, the study 1,015 masks, and the slices with lesions are many more: what was "
        "counted is not known.",
        "The layout autoPET III has the 501 studies with lesions; they are all that can give a target.",
    ),
)
