"""mri_prostate: the prostate in T2-weighted MRI (I2CVB), the study's task MRI-Prostate.

Axial slices of the series T2W of 21 patients scanned at 1.5 T (GE) and 19 at 3 T (Siemens). The published masks are
DICOM series too, one plane for each plane of the image; they are put together by the position that both files give.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, MRI, NOT_NAMED, VOLUMES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_PATIENT = r"(?P<scanner>GE|Siemens)/Patient[ _](?P<n>\d+)"

SPEC = DatasetSpec(
    name="mri_prostate",
    modality="mri",
    load=CANONICAL,
    tasks=(TaskSpec(name="mri_prostate", labels=(1,), target="prostate", n_masks=893),),
    licence="terms of I2CVB; no licence was seen at its download page",
    citation=(
        "Lemaitre, G., Marti, R., Freixenet, J., Vilanova, J.C., Walker, P.M., Meriaudeau, F.: Computer-aided "
        "detection and diagnosis for prostate cancer based on mono and multi-parametric MRI: a review. Computers in "
        "Biology and Medicine 60, 8-31 (2015)"
    ),
    url="https://i2cvb.github.io",
    layouts=(
        Layout(
            name="I2CVB, DICOM",
            expects="GE/Patient N/T2W/ and GE/Patient N/GT/prostate/ with DICOM files, the same in Siemens/",
            read=VOLUMES,
            options={
                "image": rf"{_PATIENT}/T2W/[^/]+",
                "masks": [rf"{_PATIENT}/GT/prostate/[^/]+"],
                "case": "{scanner}_{n}",
                "subject": "{scanner}_{n}",
                "series": True,
                "masks_are": "planes",
                "intensity": MRI,
            },
        ),
    ),
    original=Original(
        page="https://zenodo.org/record/162231",
        how="Download the parts ge-1-5t.tar.gz.a? and siemens-3t.tar.gz.a? and join them: cat ge-1-5t.tar.gz.a? > "
        "ge-1-5t.tar.gz, the same for siemens-3t, into one folder. One public list says that access must be requested.",
        archives=(Archive(name="ge-1-5t.tar.gz"), Archive(name="siemens-3t.tar.gz")),
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="Angelou0516/BIDMC",
            revision="3db754a449513bdb5ecc742a3cd998802b3cb2e2",
            seen="Parquet previews with one picture for each case, of other sites too: not this data set.",
        ),
    ),
    study="MRI-Prostate",
    n_masks=893,
    faults=(
        "The mask of Siemens patient 428260 is said to lack a plane. A plane without a mask is left out, since nothing "
        "shows that the prostate is not in it.",
        "Every value above 0 in a mask is prostate; the values themselves were not seen.",
        NOT_NAMED,
    ),
)
