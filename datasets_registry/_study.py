"""What the data sets of the study share: how intensities become pictures, and the Medical Segmentation Decathlon.

The study released neither its slicing nor its windows, so these are ours, and the same for all data sets of a kind:

- CT: Hounsfield units of a window to 0..255. -160..240 (width 400, level 40) is the common abdominal window.
- MRI has no units: the 0.5th and 99.5th percentile of a volume, of the values other than 0, go to 0 and 255, so that a
  few bright voxels do not darken the rest. The whole volume is scaled at once: its slices stay comparable.
"""

from __future__ import annotations

from typing import Any

from promptseg.specs import Archive, Layout, Original

PREPARED = "promptseg.data.prepared:load"
VOLUMES = "promptseg.preparation.layouts_volumes:volumes"
PICTURES = "promptseg.preparation.layouts_pictures:pictures"
PARQUET = "promptseg.preparation.layouts_pictures:parquet_rows"

ABDOMEN = {"rule": "ct_window", "low": -160, "high": 240}
MRI = {"rule": "mr_percentiles", "low": 0.5, "high": 99.5}

MSD_LICENCE = "CC BY-SA 4.0"
MSD_URL = "http://medicaldecathlon.com"
MSD_CITATION = (
    "Simpson, A.L., Antonelli, M., Bakas, S., et al.: A large annotated medical image dataset for the development and "
    "evaluation of segmentation algorithms. arXiv:1902.09063 (2019)"
)
NOT_NAMED = "The study does not say how it cut slices: the count of those with an object may differ from its own."


def msd_layout(prefix: str, intensity: dict[str, Any]) -> Layout:
    """Return the Decathlon's own layout, which the mirrors keep, for volumes named ``prefix_N.nii.gz``."""
    name = rf"(?P<id>{prefix}_\d+)\.nii\.gz"
    return Layout(
        name="Medical Segmentation Decathlon",
        expects=f"imagesTr/{prefix}_N.nii.gz with labelsTr/{prefix}_N.nii.gz (imagesTs, without labels, is left alone)",
        read=VOLUMES,
        options={
            "image": f"imagesTr/{name}",
            "masks": [f"labelsTr/{name}"],
            "case": "{id}",
            "subject": "{id}",
            "listed": r"dataset\.json",
            "intensity": intensity,
        },
    )


def msd_original(task: str, sha256: str) -> Original:
    """Return where the Decathlon is published."""
    return Original(
        page=MSD_URL,
        how=f"No registration. Download {task}.tar, from the links of the page or from the copy of the MONAI project, "
        f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar. It need not be unpacked.",
        archives=(Archive(name=f"{task}.tar", sha256=sha256),),
    )
