"""us_kidney: kidneys in ultrasound-like images (CT2US), the paper's task US-Kidney.

Read before the numbers are quoted: CT2US was made by an unpaired translation of CT slices to ultrasound
(Song et al. 2022), and the card of the Hub mirror calls its images CT slices of the source domain. They are not plain
ultrasound recordings. The modality below is the paper's.

The mirror has as many pairs as the paper has masks, 4586. Its commit has not been seen yet: the first pull records and
prints it. Any mask value above 0 is kidney. The ids are the image numbers of the mirror (2 to 6010, with gaps).
"""

from __future__ import annotations

from promptseg.specs import DatasetSpec, Origin, TaskSpec

SPEC = DatasetSpec(
    name="us_kidney",
    modality="ultrasound",
    load="promptseg.datasets_registry.hub_parquet:load",
    tasks=(TaskSpec(name="us_kidney", target="kidney", n_masks=4586),),
    licence="GPL-2.0 by the mirror's card",
    origin=Origin(host="hub", repo="Angelou0516/CT2USforKidneySeg"),
    files=("*.parquet",),
    options={"image": "image", "mask": "mask", "id": "id"},
    citation=(
        "Song, Y., Zheng, J., Lei, L., Ni, Z., Zhao, B., Hu, Y.: CT2US: Cross-modal transfer learning for kidney "
        "segmentation in ultrasound images with synthesized data. Ultrasonics 122, 106706 (2022)"
    ),
    url="https://huggingface.co/datasets/Angelou0516/CT2USforKidneySeg",
)
