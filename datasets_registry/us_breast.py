"""us_breast: tumours of the breast in ultrasound (BUSI), the study's task US-Breast.

The images of the classes benign and malignant; those of the class normal have no tumour. An image may have several
masks (``X (N)_mask.png``, ``X (N)_mask_1.png``): they are put together. 437 + 210 images, as many as the study has.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PARQUET, PICTURES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_IMAGE = r"(?P<kind>benign|malignant) \((?P<n>\d+)\)"
_CASE = "{kind}_{n:0>3}"

SPEC = DatasetSpec(
    name="us_breast",
    modality="ultrasound",
    load=CANONICAL,
    tasks=(TaskSpec(name="us_breast", labels=(1,), target="breast tumour", n_masks=647),),
    licence="not stated by the owners; the article that describes it is CC BY",
    origin=Origin(
        host="hub",
        repo="Amani96/BUI_ViT",
        revision="49c311d7167b89f33475da4da963f663d01fd7d9",
        seen="The commit holds Dataset_BUSI.zip, whose sha256 is that of the owners' archive. No licence is stated.",
    ),
    files=("*Dataset_BUSI.zip",),
    citation=(
        "Al-Dhabyani, W., Gomaa, M., Khaled, H., Fahmy, A.: Dataset of breast ultrasound images. Data in Brief 28, "
        "104863 (2020)"
    ),
    url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    layouts=(
        Layout(
            name="the owners' archive",
            expects="benign/benign (N).png with benign (N)_mask.png (and _mask_1.png ...), the same in malignant/",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "BUSI",
                        "image": rf"{_IMAGE}\.png",
                        "masks": [rf"{_IMAGE}_mask(?:_\d+)?\.png"],
                        "case": _CASE,
                        "further_masks_of_other_size": "left out",
                    }
                ]
            },
        ),
        Layout(
            name="Parquet with class and image id",
            expects="*.parquet with the columns image, mask, class_label and image_id",
            read=PARQUET,
            options={
                "image": "image",
                "mask": "mask",
                "id": "image_id",
                "id_pattern": _IMAGE,
                "case": _CASE,
                "where": {"class_label": ["benign", "malignant"]},
            },
        ),
    ),
    original=Original(
        page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        how="No registration. Download https://scholar.cu.edu.eg/Dataset_BUSI.zip. It need not be unpacked.",
        archives=(
            Archive(
                name="Dataset_BUSI.zip",
                sha256="b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
            ),
        ),
    ),
    mirrors=(
        Origin(
            host="hub", repo="MedOtter/BUSI", seen="780 rows with class and image id; its masks are merged. No commit."
        ),
        Origin(
            host="hub",
            repo="josedonoso/busi-dataset-v2",
            seen="647 rows without ids or classes, so that cases cannot be distinguished; commit afcdff7.",
        ),
    ),
    study="US-Breast",
    n_masks=647,
    faults=(
        "An image may have several masks; one further mask (of benign (4)) has another size than its image. A further "
        "mask of another size is left out and named in the metadata of its case; a first one of another size is an "
        "error.",
        "Several images are near-duplicates of each other, also across the two classes.",
        "Callipers and text are burnt into many images.",
        "Patients are not named: intervals treat every image as a patient of its own and are too narrow.",
    ),
)
