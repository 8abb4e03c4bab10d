"""xray_hip: ilium and femur in X-rays of the hip (Gut 2021), the study's tasks Xray-Hip.

140 X-rays, each a NIfTI file of one plane, with a label map of the same size. An X-ray has no units: its lowest value
becomes 0 and its highest 255, nothing is cut.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

SPEC = DatasetSpec(
    name="xray_hip",
    modality="xray",
    load=CANONICAL,
    tasks=(
        TaskSpec(name="xray_hip_ilium", labels=(1,), target="ilium"),
        TaskSpec(name="xray_hip_femur", labels=(2,), target="femur"),
    ),
    licence="CC BY 4.0",
    citation="Gut, D.: X-ray images of the hip joints. Mendeley Data, version 1 (2021), doi:10.17632/zm6bxzhmfz.1",
    url="https://data.mendeley.com/datasets/zm6bxzhmfz/1",
    layouts=(
        Layout(
            name="NIfTI files of one plane",
            expects="images/*N.nii.gz with labels/*N.nii.gz, N the number of the image",
            read=VOLUMES,
            options={
                "image": r"images/[^/]*?(?P<n>\d+)\.nii(?:\.gz)?",
                "masks": [r"labels/[^/]*?(?P<n>\d+)\.nii(?:\.gz)?"],
                "case": "image_{n:0>3}",
                "planes": "one",
                "intensity": {"rule": "full_range"},
            },
        ),
    ),
    original=Original(
        page="https://data.mendeley.com/datasets/zm6bxzhmfz/1",
        how='No registration. "Download all", one archive. It need not be unpacked.',
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="PuWang0/hip_joints",
            revision="28e60ffb109b25722deebcb59da9ff57a0687b7d",
            seen="Name and topic fit; neither its files nor masks were seen.",
        ),
    ),
    study="Xray-Hip",
    n_masks=140,
    faults=(
        "The owners' order of the two labels was not seen. 1 is taken as the ilium and 2 as the femur because the "
        "study numbers its classes in the order of its tables. Look at a few cases before you quote numbers: the femur "
        "is the one with the round head.",
        "The patients are not named: intervals treat every image as a patient of its own.",
    ),
    shareable=True,
)
