"""us_ovarian_tumor: tumours of the ovary in ultrasound (MMOTU, OTU_2d), the study's task US-Ovarian-Tumor.

The 1,469 images of OTU_2d; the 170 contrast images of OTU_3d are left alone. The black and white masks
``N_binary.PNG`` are read; ``N.PNG`` shows the kind of the tumour in colours, and a few ``N_binary_binary.PNG`` are
copies. Colour is kept where an image has it (Doppler, callipers).
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PICTURES
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="us_ovarian_tumor",
    modality="ultrasound",
    load=CANONICAL,
    tasks=(TaskSpec(name="us_ovarian_tumor", labels=(1,), target="ovarian tumour", n_masks=1469),),
    licence="not stated by the owners nor by the mirror",
    origin=Origin(
        host="hub",
        repo="us-segmentator/us-segmentation-dataset",
        seen="zips/Ovary/MMOTU.zip and the names in it were seen; the commit in short form only, 3f12256.",
    ),
    files=("*Ovary/MMOTU.zip",),
    citation=(
        "Zhao, Q., Lyu, S., Bai, W., et al.: A multi-modality ovarian tumor ultrasound image dataset for unsupervised "
        "cross-domain semantic segmentation. arXiv:2207.06799 (2022)"
    ),
    url="https://github.com/cv516Buaa/MMOTU_DS2Net",
    layouts=(
        Layout(
            name="MMOTU",
            expects="OTU_2d/images/N.JPG with OTU_2d/annotations/N_binary.PNG",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "OTU_2d",
                        "image": r"OTU_2d/images/(?P<n>\d+)\.(?i:jpg)",
                        "masks": [r"OTU_2d/annotations/(?P<n>\d+)_binary\.(?i:png)"],
                        "case": "{n:0>4}",
                    }
                ]
            },
        ),
    ),
    original=Original(
        page="https://github.com/cv516Buaa/MMOTU_DS2Net",
        how="Download OTU_2d from the Google Drive folder that the page links. No registration.",
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="AIGeeksGroup/SegTTA-data",
            revision="114be63ed2ca7bdec2c86b5dbb20c42b396990bc",
            seen="Loose files under MMOTU/OTU_2d/; later commits moved files about.",
        ),
    ),
    study="US-Ovarian-Tumor",
    n_masks=1469,
    faults=(
        "Callipers and text are burnt into many images.",
        "Patients are not named: intervals treat every image as a patient of its own and are too narrow.",
    ),
)
