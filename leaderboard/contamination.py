"""Has a model seen the data that it is scored on? What is published about training data, and a pure function of it.

A model's spec names data sets and collections (`promptseg.specs.ModelSpec.training_data`). Names of data sets are those
of the registry; `COLLECTIONS` lists what a collection holds, as far as its owners say so. A name in neither place is a
data set that shares images with those that declare it (`promptseg.specs.DatasetSpec.overlaps`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Overlap = Literal["known", "likely", "none", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The data sets of the registry in a collection of training data; collections of natural images need no entry.

    Attributes:
        source: where the list is published.
        known: data sets that the list names.
        likely: data sets that the collection holds in part, in another edition, or under another name.
    """

    source: str
    known: frozenset[str] = frozenset()
    likely: frozenset[str] = frozenset()


# Breast Cancer (ultrasound) and Spine (MR) are named without saying which set they are. AbdomenCT-1K and ORG (CT-ORG)
# took over the training volumes of LiTS.
_MEDSAM = Collection(
    source="J. Ma et al., Nature Communications 15:654 (2024), supplementary tables 1 to 4, by a transcription of them",
    known=frozenset(
        {
            "ct_colon",
            "ct_hepatic_vessel",
            "ct_organ",
            "ct_pancreas",
            "ct_spleen",
            "mri_brain",
            "mri_heart",
            "mri_prostate",
            "pet_whole_body",
            "us_kidney",
            "us_nerve",
            "xray_chest",
        }
    ),
    likely=frozenset({"ct_liver", "mri_spine", "us_breast"}),
)

COLLECTIONS = {
    "medsam": _MEDSAM,
    "medsam_2023": Collection(
        source="the sets of the release that followed; no list of those of the first one was found",
        likely=_MEDSAM.known | _MEDSAM.likely,
    ),
    "sa_med2d_20m": Collection(
        source="the names of the files of OpenGVLab/SA-Med2D-20M (arXiv 2311.11969)",
        likely=frozenset(
            {
                "ct_colon",
                "ct_hepatic_vessel",
                "ct_liver",
                "ct_organ",
                "ct_pancreas",
                "ct_spleen",
                "mri_brain",
                "mri_heart",
                "pet_whole_body",
                "us_breast",
                "us_nerve",
                "xray_chest",
            }
        ),
    ),
}


def overlap(
    training_data: Iterable[str] | None, dataset: str, *, study: str = "", shares: Iterable[str] = ()
) -> Overlap:
    """Return whether a model has seen a data set in training.

    Args:
        training_data: names of data sets and collections, None if nothing is published.
        dataset: registry name.
        study: its name in the study of the reference protocol, as in CT-Spleen.
        shares: names of data sets that it has images in common with.

    Returns:
        ``known``: the model was trained on it. ``likely``: on a collection that holds it, or on a data set that
        shares images with it. ``none``: on neither, as far as published. ``unknown``: nothing is published.
    """
    if training_data is None:
        return "unknown"
    given = set(training_data)
    collections = [COLLECTIONS[name] for name in given & COLLECTIONS.keys()]
    known = given.union(*(c.known for c in collections))
    if known & {dataset, study.lower().replace("-", "_")}:
        return "known"
    likely = known.union(*(c.likely for c in collections))
    return "likely" if likely & {dataset, *shares} else "none"
