"""Every layout of every data set of the catalogue finds in its files exactly what was put into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import (
    BUILDERS,
    DATA,
    Builder,
    Content,
    builder_of,
    check,
    found,
    real,
    real_volume,
    spec_of,
    synthetic,
    zipped,
)

from promptseg.preparation.tree import open_tree
from promptseg.references import resolve

NAMES = [f"{builder.dataset}-{builder.layout}" for builder in BUILDERS]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files lie in a cache of the test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_every_layout_has_a_builder() -> None:
    """No layout of the catalogue is left without a test."""
    names = {builder.dataset for builder in BUILDERS}
    layouts = {(name, position) for name in names for position in range(len(spec_of(name).layouts))}
    assert {(builder.dataset, builder.layout) for builder in BUILDERS} == layouts


@pytest.mark.parametrize("builder", BUILDERS, ids=NAMES)
def test_what_was_built_is_found(builder: Builder, tmp_path: Path) -> None:
    """Ids, pictures, label maps, subjects and spacings are those that the files were made of."""
    expected = builder.build(tmp_path, synthetic(builder.kind))
    check(found(spec_of(builder.dataset), tmp_path), expected)
    labels = {int(label) for case in expected.values() for label in np.unique(case.labels)} - {0}
    assert labels


@pytest.mark.parametrize("name", ["us_breast", "mri_heart", "pet_whole_body", "mri_prostate"])
def test_an_archive_is_read_as_its_folder_is(name: str, tmp_path: Path) -> None:
    """One zip, with the owners' folders below another one, gives the same cases."""
    expected = builder_of(name).build(tmp_path / "files/any folder", synthetic(builder_of(name).kind))
    check(found(spec_of(name), zipped(tmp_path / "files", tmp_path / "all.zip")), expected)


@pytest.mark.parametrize("builder", BUILDERS, ids=NAMES)
def test_the_files_of_another_data_set_are_no_layout(builder: Builder, tmp_path: Path) -> None:
    """A wrong archive is not taken for the right one: the layout finds nothing and says so."""
    other = builder_of("us_nerve") if builder.dataset != "us_nerve" else builder_of("mri_heart")
    other.build(tmp_path, synthetic(other.kind))
    layout = spec_of(builder.dataset).layouts[builder.layout]
    with open_tree(tmp_path) as tree:
        assert list(resolve(layout.read)(tree, layout.options)) == []


# --- real images in the owners' layouts ---------------------------------------------------------------------


def _split(content: Content) -> Content:
    """Return an object with a part of it in label 2."""
    labels = (content.labels > 0).astype(np.uint8)
    labels[labels.shape[0] // 2 :] *= 2
    return Content(content.image, labels, content.spacing_mm, content.pet)


def _spine() -> list[Content]:
    cord = real_volume("mri_spine_cord_gm", "t2s.nii.gz", "t2s_seg.nii.gz")
    grey = real_volume("mri_spine_cord_gm", "t2s.nii.gz", "t2s_gmseg_manual.nii.gz")
    labels = np.where(grey.labels > 0, 1, np.where(cord.labels > 0, 2, 0)).astype(np.uint8)
    return [Content(cord.image, labels, cord.spacing_mm)]


def _brain() -> list[Content]:
    """BraTS 2015 counts the non-enhancing core apart (3); later editions count it to the necrosis (1)."""
    brain = real_volume(
        "mri_brain", "brats_2013_pat0001_1_T1c_subtrMeanDivStd.nii.gz", "brats_2013_pat0001_1_OTMultiClass.nii.gz"
    )
    labels = np.where(brain.labels == 3, 1, brain.labels)
    planes = slice(60, 80)
    return [Content(brain.image[planes], labels[planes], brain.spacing_mm)]


def _spleen() -> list[Content]:
    return [real_volume("ct_spleen", "sub-spleen2_ct.nii.gz", "sub-spleen2_ct_seg-manual.nii.gz")]


def _whole(values: Content) -> Content:
    return Content(np.rint(values.image).astype(np.int16), values.labels, values.spacing_mm, values.pet)


def _lesion() -> list[Content]:
    """A tenth of the planes, those with the lesion, of a real PET/CT."""
    one = real_volume("petct_lesion", "STS_002_CT_image.nii.gz", "STS_002_CT_mask.nii.gz", "STS_002_PET_image.nii.gz")
    kept = [z for z in range(len(one.labels)) if one.labels[z].any()][:6]
    assert one.pet is not None
    pet = np.clip(one.pet[kept[0] : kept[-1] + 1], 0, None)
    image, labels = (array[kept[0] : kept[-1] + 1] for array in (one.image, one.labels))
    return [_whole(Content(image, labels, one.spacing_mm, pet))]


REAL: dict[str, tuple[str, int, Callable[[], list[Content]]]] = {
    "BUSI": ("us_breast", 0, lambda: real("us_breast", 6)),
    "BUSI on the Hub": ("us_breast", 1, lambda: real("us_breast", 3)),
    "MMOTU": ("us_ovarian_tumor", 0, lambda: real("us_ovarian_tumor")),
    "chest": ("xray_chest", 0, lambda: real("xray_chest")),
    "hip": ("xray_hip", 0, lambda: [_split(content) for content in real("xray_hip")]),
    "nerve": ("us_nerve", 0, lambda: real("us_nerve_usgra")),
    "spine": ("mri_spine", 0, _spine),
    "BraTS": ("mri_brain", 0, _brain),
    "spleen": ("ct_spleen", 0, _spleen),
    "LiTS": ("ct_liver", 0, lambda: [_split(_spleen()[0])]),
    "PET/CT on the Hub": ("pet_whole_body", 0, _lesion),
    "PET/CT": ("pet_whole_body", 1, _lesion),
    "PET/CT in DICOM": ("pet_whole_body", 2, _lesion),
    "prostate in DICOM": ("mri_prostate", 0, lambda: [_whole(Content(*_scaled(_spine()[0])))]),
}


def _scaled(content: Content) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return whole numbers, as DICOM stores them."""
    top = float(content.image.max())
    return content.image / top * 2000, content.labels, content.spacing_mm


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}")
@pytest.mark.parametrize("name", REAL)
def test_real_images_in_the_layout_of_their_owners(name: str, tmp_path: Path) -> None:
    """Real images and masks, under the owners' names, come out as they went in."""
    dataset, layout, contents = REAL[name]
    expected = builder_of(dataset, layout).build(tmp_path, contents())
    assert expected
    check(found(spec_of(dataset), tmp_path), expected)
