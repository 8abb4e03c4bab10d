"""The modalities that promptseg.toml may name, and what else they are called."""

from __future__ import annotations

import re

from promptseg.errors import UnknownNameError
from promptseg.text import near

OTHER_NAMES = {
    "angiography": ("XA", "DSA"),
    "ct": ("computed tomography", "CAT", "CBCT"),
    "dermoscopy": ("dermatoscopy", "DMS"),
    "endoscopy": ("ES", "colonoscopy", "gastroscopy", "laparoscopy"),
    "fluoroscopy": ("RF",),
    "fundus": ("OP", "fundus photography", "fundus photograph", "CFP"),
    "mammography": ("MG", "mammogram"),
    "microscopy": ("GM",),
    "mri": ("MR", "MRT", "magnetic resonance", "magnetic resonance imaging", "magnetic resonance tomography"),
    "oct": ("OPT", "optical coherence tomography"),
    "pathology": ("SM", "WSI", "histology", "histopathology", "whole slide image"),
    "pet": ("PT", "positron emission tomography"),
    "pet_ct": ("PET/CT",),
    "pet_mri": ("PET/MRI", "PET/MR"),
    "phantom": (),
    "photograph": ("XC", "photo", "photography"),
    "spect": ("single photon emission computed tomography",),
    "ultrasound": ("US", "sonography", "ultrasonography", "echography", "echocardiography"),
    "xray": ("XR", "X-ray", "CR", "DX", "DR", "RX", "radiograph", "radiography", "roentgen"),
}
"""Name to synonyms: the codes of DICOM, and usual words."""


def _plain(name: str) -> str:
    """Return a name without case, blanks and signs."""
    return re.sub(r"[\W_]+", "", name.lower())


_NAMES = {_plain(name): modality for modality, others in OTHER_NAMES.items() for name in (modality, *others)}


def modality(name: str) -> str:
    """Return the modality that a name means, as in ``MR`` for ``mri``; another word of ``[a-z0-9_]`` means itself.

    Raises:
        UnknownNameError: with all modalities, for a word that is nearly one of them, or that no modality can be called.
    """
    known = _NAMES.get(_plain(name))
    if known is not None:
        return known
    if not re.fullmatch(r"[a-z0-9_]+", name) or near(name, OTHER_NAMES, mistyped=True):
        raise UnknownNameError("modality", name, OTHER_NAMES)
    return name
