"""us_nerve: the brachial plexus in ultrasound (Kaggle 2016), the study's task US-Nerve.

The training images of the competition. About 5,600 were published with a mask each; in 2,323 of them, the study's
count, the mask is not empty.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PICTURES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_NUMBERS = r"(?P<subject>\d+)_(?P<n>\d+)"

SPEC = DatasetSpec(
    name="us_nerve",
    modality="ultrasound",
    load=CANONICAL,
    tasks=(TaskSpec(name="us_nerve", labels=(1,), target="nerves of the brachial plexus", n_masks=2323),),
    licence="rules of the Kaggle competition; the mirror's Apache-2.0 is not its uploader's to give",
    non_commercial=True,
    origin=Origin(
        host="hub",
        repo="skylightzc/ultrasound-nerve-segmentation",
        revision="f7864006b4f1cb460423a7f787b9fb29ffd90858",
        seen="The commit holds ultrasound-nerve-segmentation.zip (2.18 GB), by its size the archive of the "
        "competition. A pickle beside it is not downloaded.",
    ),
    files=("*ultrasound-nerve-segmentation.zip",),
    citation="Montoya, A., Hasnin, kaggle446, shirzad, Cukierski, W., yffud: Ultrasound nerve segmentation (2016)",
    url="https://www.kaggle.com/competitions/ultrasound-nerve-segmentation",
    layouts=(
        Layout(
            name="the archive of the competition",
            expects="train/S_N.tif with train/S_N_mask.tif, S the subject (test/ has no masks and is left alone)",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "train",
                        "image": rf"train/{_NUMBERS}\.tif",
                        "masks": [rf"train/{_NUMBERS}_mask\.tif"],
                        "case": "{subject:0>2}_{n:0>3}",
                        "subject": "{subject:0>2}",
                    }
                ]
            },
        ),
    ),
    original=Original(
        page="https://www.kaggle.com/competitions/ultrasound-nerve-segmentation/data",
        how="With an account at Kaggle, accept the rules of the competition and download its archive. It need not be "
        "unpacked.",
        archives=(Archive(name="ultrasound-nerve-segmentation.zip"),),
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="us-segmentator/us-segmentation-dataset",
            seen="zips/Nerve/UNS.zip holds the same train/ folder; the commit was seen in short form only, 3f12256.",
        ),
    ),
    study="US-Nerve",
    n_masks=2323,
    faults=(
        "Frames of one recording look alike, and nearly equal ones carry contradicting masks (one empty, one not).",
        "Whether a nerve was marked at all depends on the annotator: empty masks do not prove its absence.",
    ),
)
