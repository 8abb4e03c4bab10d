"""What promptseg.toml may call a modality."""

from __future__ import annotations

import pytest

from promptseg.errors import UnknownNameError
from promptseg.registry import build
from promptseg.registry.modalities import OTHER_NAMES, modality


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("MR", "mri"),
        ("Magnetic Resonance", "mri"),
        ("us", "ultrasound"),
        ("X-Ray", "xray"),
        ("x ray", "xray"),
        ("DX", "xray"),
        ("PET-CT", "pet_ct"),
        ("PT", "pet"),
    ],
)
def test_codes_and_usual_words(written: str, meant: str) -> None:
    """In any case, with or without signs."""
    assert modality(written) == meant


@pytest.mark.parametrize("name", ["synthetic", "thermography", "elasto_2"])
def test_a_modality_of_ones_own_is_taken_as_it_is(name: str) -> None:
    """Not everything that people segment is on the list."""
    assert modality(name) == name


def test_a_word_that_is_nearly_one_is_refused_with_the_list() -> None:
    """A misspelt modality would be one of its own on the board."""
    with pytest.raises(UnknownNameError, match=r"Unknown modality 'ultrasuond'\. Did you mean 'ultrasound'\?"):
        modality("ultrasuond")
    for name in ("", "my scanner", "Thermography"):
        with pytest.raises(UnknownNameError, match="Registered: angiography, ct"):
            modality(name)


def test_no_name_means_two_modalities() -> None:
    """And each modality that a data set registers is among them."""
    for name, others in OTHER_NAMES.items():
        assert {modality(one) for one in (name, *others)} == {name}
    assert {d.spec.modality for d in build().datasets.values() if d.spec} <= {*OTHER_NAMES}
