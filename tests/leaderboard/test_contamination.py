"""Which data sets a model has seen, as far as published."""

from __future__ import annotations

import pytest

from promptseg.errors import RegistryError
from promptseg.leaderboard.contamination import COLLECTIONS, overlap
from promptseg.registry.entries import build
from promptseg.specs import DatasetSpec, TaskSpec

# The data sets of the reference study, as the registry names them.
STUDY = {
    *("mri_spine", "mri_heart", "mri_prostate", "mri_brain", "mri_breast", "xray_chest", "xray_hip"),
    *("us_breast", "us_kidney", "us_muscle", "us_nerve", "us_ovarian_tumor"),
    *("ct_colon", "ct_hepatic_vessel", "ct_pancreas", "ct_spleen", "ct_liver", "ct_organ", "pet_whole_body"),
}


@pytest.mark.parametrize(
    ("training_data", "dataset", "expected"),
    [
        (None, "us_kidney", "unknown"),
        ((), "us_kidney", "none"),
        (("sa_1b", "sa_v"), "us_kidney", "none"),
        (("sa_1b", "us_kidney"), "us_kidney", "known"),
        (("medsam",), "us_kidney", "known"),
        (("medsam",), "us_breast", "likely"),
        (("medsam",), "us_muscle", "none"),
        (("medsam_2023",), "us_kidney", "likely"),
        (("sa_med2d_20m",), "ct_spleen", "likely"),
        (("sa_med2d_20m", "ct_spleen"), "ct_spleen", "known"),
        (("our_kidneys",), "us_kidney", "none"),
    ],
)
def test_overlap(training_data: tuple[str, ...] | None, dataset: str, expected: str) -> None:
    """A name tells what a model has seen; a collection does so for what it holds; nothing published is not nothing."""
    assert overlap(training_data, dataset) == expected


def test_a_data_set_is_also_known_by_the_name_of_the_study() -> None:
    """Whoever registers the same data under a name of his own says which data set of the study it is."""
    assert overlap(("ct_spleen",), "our_spleens", study="CT-Spleen") == "known"
    assert overlap(("medsam",), "our_spleens", study="CT-Spleen") == "known"
    assert overlap(("medsam",), "our_spleens") == "none"


def test_data_sets_that_share_images_are_a_likely_overlap() -> None:
    """A model that was trained on one has probably seen the other; by a collection too."""
    assert overlap(("lits",), "ct_liver", shares=("lits",)) == "likely"
    assert overlap(("medsam",), "our_livers", shares=("ct_organ",)) == "likely"
    assert overlap(("lits",), "ct_liver", shares=("ct_organ",)) == "none"


def test_collections_speak_of_data_sets_of_the_study() -> None:
    """Every name is one of the registry, nothing is both known and likely, and each list has a source."""
    assert COLLECTIONS
    for collection in COLLECTIONS.values():
        assert collection.known | collection.likely <= STUDY
        assert not collection.known & collection.likely
        assert collection.source


def test_every_registered_model_says_what_is_published() -> None:
    """Names without blanks or capitals, which cannot be mistaken for the registry's; None is said by leaving it out."""
    names = [name for entry in build().models.values() for name in entry.get().training_data or ()]
    assert names
    for name in names:
        assert name == name.lower().replace(" ", "_").replace("-", "_")


def test_overlaps_of_a_data_set_are_names() -> None:
    """A single string in the place of a tuple is a mistake that would be read letter by letter."""
    with pytest.raises(RegistryError, match="data set livers: overlaps must be a tuple of str, not 'lits'"):
        DatasetSpec(
            name="livers",
            modality="ct",
            load="m:f",
            licence="MIT",
            tasks=(TaskSpec(name="livers"),),
            overlaps="lits",  # type: ignore[arg-type]
        )
