"""us_muscle: muscles in transverse ultrasound (Marzola et al. 2021), the study's task US-Muscle.

Images of the biceps brachii (BB), the gastrocnemius medialis (GM) and the tibialis anterior (TA), of healthy and of ill
persons, each with a mask of the same name. Any mask value above 0 is muscle. Images without a mask are left out: the
article counts 3,917 images, others count 3,910 with a usable mask.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PICTURES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_FOLDER = r"(?P<muscle>BB|GM|TA)/(?P<state>Healthy|Pathological)"

SPEC = DatasetSpec(
    name="us_muscle",
    modality="ultrasound",
    load=CANONICAL,
    tasks=(TaskSpec(name="us_muscle", labels=(1,), target="cross-section of the muscle", n_masks=4044),),
    licence="CC BY 4.0",
    citation=(
        "Marzola, F., van Alfen, N., Doorduin, J., Meiburger, K.M.: Deep learning segmentation of transverse "
        "musculoskeletal ultrasound images for neuromuscular disease assessment. Computers in Biology and Medicine "
        "135, 104623 (2021)"
    ),
    url="https://data.mendeley.com/datasets/3jykz7wz8d/1",
    layouts=(
        Layout(
            name="the owners' archive",
            expects="{BB,GM,TA}/{Healthy,Pathological}/Images/NAME.png with Masks/NAME.png",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "Polito-Radboud",
                        "image": rf"{_FOLDER}/Images/(?P<name>[^/]+)\.png",
                        "masks": [rf"{_FOLDER}/Masks/(?P<name>[^/]+)\.png"],
                        "case": "{muscle}_{state}_{name}",
                        "without_mask": "left out",
                    }
                ]
            },
        ),
    ),
    original=Original(
        page="https://data.mendeley.com/datasets/3jykz7wz8d/1",
        how="No registration. Download DATASET_10.1016j.compbiomed.2021.104623.zip (or everything; the archive in the "
        "archive is found). It need not be unpacked.",
        archives=(
            Archive(
                name="DATASET_10.1016j.compbiomed.2021.104623.zip",
                sha256="81dbec46e9f3035831f97aa828735cd6ba04171a72902a9416e7847e75148a11",
            ),
        ),
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="us-segmentator/us-segmentation-dataset",
            seen="Its Muscle/UMUD.zip is another task (aponeurosis), not this data set.",
        ),
    ),
    study="US-Muscle",
    n_masks=4044,
    faults=(
        "The study has 4,044 masks, the article 3,917 images; how the study counted is not known.",
        "How the file names identify a subject was not seen: intervals treat every image as a subject of its own.",
    ),
    shareable=True,
)
