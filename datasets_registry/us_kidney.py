"""us_kidney: kidneys in ultrasound-like images (CT2US), the study's task US-Kidney.

Read before the numbers are quoted: CT2US was made by an unpaired translation of CT slices to ultrasound
(Song et al. 2022), and the card of the Hub mirror calls its images CT slices of the source domain. They are not plain
ultrasound recordings. The modality below is the study's.

The mirror has as many pairs as the study has masks, 4586. The edges of the
owners' PNG masks are said to be grey: kidney is what is above half of a mask's highest value. The ids are the image
numbers (2 to 6010 in the mirror, with gaps).
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PARQUET, PICTURES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="us_kidney",
    modality="ultrasound",
    load=CANONICAL,
    tasks=(TaskSpec(name="us_kidney", labels=(1,), target="kidney", n_masks=4586),),
    licence="GPL-2.0 by the mirror's card and at Kaggle",
    origin=Origin(
        host="hub",
        repo="Angelou0516/CT2USforKidneySeg",
        seen="Its page was seen: one split of 4586 rows with id, image and mask. No commit was seen.",
    ),
    files=("*.parquet",),
    citation=(
        "Song, Y., Zheng, J., Lei, L., Ni, Z., Zhao, B., Hu, Y.: CT2US: Cross-modal transfer learning for kidney "
        "segmentation in ultrasound images with synthesized data. Ultrasonics 122, 106706 (2022)"
    ),
    url="https://huggingface.co/datasets/Angelou0516/CT2USforKidneySeg",
    layouts=(
        Layout(
            name="Parquet with id",
            expects="*.parquet with the columns id, image and mask",
            read=PARQUET,
            options={"image": "image", "mask": "mask", "id": "id", "case": "{id:0>4}", "edges": "grey"},
        ),
        Layout(
            name="the owners' archive at Kaggle",
            expects="slice/N.png with mask/N.png",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "CT2US",
                        "image": r"slice/(?P<n>\d+)\.png",
                        "masks": [r"mask/(?P<n>\d+)\.png"],
                        "case": "{n:0>4}",
                        "edges": "grey",
                    }
                ]
            },
        ),
    ),
    original=Original(
        page="https://www.kaggle.com/datasets/siatsyx/ct2usforkidneyseg",
        how="With an account at Kaggle, download the archive. It need not be unpacked.",
        archives=(Archive(name="ct2usforkidneyseg.zip"),),
    ),
    study="US-Kidney",
    n_masks=4586,
    faults=(
        "The images are made from CT slices by a network; they are not recordings.",
        "Patients are not named, and neighbouring slices of one patient look alike: intervals are too narrow.",
    ),
    shareable=True,
)
