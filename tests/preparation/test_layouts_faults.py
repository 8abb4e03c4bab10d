"""What layouts do with files that are missing, doubled, damaged or at odds: a clear error, or a rule that is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.archives import (
    builder_of,
    found,
    png,
    spec_of,
    synthetic,
    write,
    write_nifti,
    write_parquet,
    write_picture,
)

from promptseg.errors import CaseError, IntegrityError, RegistryError
from promptseg.preparation.cases import Unit
from promptseg.preparation.layouts_volumes import picture_of, volumes
from promptseg.preparation.tree import open_tree
from promptseg.preparation.volumes import Volume, scalar
from promptseg.registry.references import resolve

GREY = np.full((6, 7), 90, np.uint8)
MASK = np.zeros((6, 7), np.uint8)
MASK[2:4, 1:5] = 255


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files lie in a cache of the test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def units(name: str, source: Path, layout: int = 0) -> Sequence[Unit]:
    """Return the units of one layout; the tree is closed, so they cannot be read."""
    one = spec_of(name).layouts[layout]
    with open_tree(source) as tree:
        return list(resolve(one.read)(tree, one.options))


def built(name: str, root: Path, layout: int = 0) -> Path:
    """Write a complete data set."""
    one = builder_of(name, layout)
    one.build(root, synthetic(one.kind))
    return root


# --- files that are missing or doubled ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("us_breast", "**/benign (2)_mask*.png", r"missing label file: 1 of 2 images lack a mask: .*benign \(2\)\.png"),
        ("us_breast", "**/benign (2).png", r"missing image file: 2 files have no image: .*benign \(2\)_mask"),
        ("us_nerve", "train/1_10_mask.tif", r"missing label file: 1 of 3 images lack a mask: train/1_10\.tif"),
        ("us_ovarian_tumor", "**/7_binary.PNG", "missing label file: .*OTU_2d/images/7.JPG"),
        ("xray_chest", "**/leftMask/MCUCXR_0001_0.png", "missing label file: .*MCUCXR_0001_0"),
        ("xray_chest", "**/*_mask.png", "missing label file: 3 of 3 images lack a mask: .*CHNCXR_0001_1"),
        ("xray_hip", "labels/*_3.nii.gz", r"missing label file: .*images/image_3\.nii\.gz"),
        ("mri_spine", "site1-sc01-mask-r3.nii.gz", "missing label file: .*site1-sc01-image"),
        ("mri_heart", "**/labelsTr/la_003.nii.gz", "missing label file: 1 of 2 images lack a mask: .*imagesTr/la_003"),
        ("mri_heart", "**/*Tr/la_003.nii.gz", r"1 images that .*dataset\.json lists are not there: la_003\.nii\.gz"),
        ("mri_brain", "**/BraTS2021_00001_t1ce.nii.gz", "missing image file: .*BraTS2021_00001_seg"),
        ("ct_organ", "labels/labels-20.nii.gz", "missing label file: .*volume-20"),
        ("mri_prostate", "**/Patient 41/GT/prostate/*", "missing label file: .*GE/Patient 41/T2W"),
        ("mri_breast_3d", "**/*_002_Breast.seg.nrrd", "missing label file: .*Breast_MRI_002"),
    ],
)
def test_a_missing_file_is_named(name: str, gone: str, message: str, tmp_path: Path) -> None:
    """An image without its mask, a mask without its image, a rater or a listed volume that is not there."""
    built(name, tmp_path)
    removed = list(tmp_path.glob(gone))
    assert removed
    for path in removed:
        path.unlink()
    with pytest.raises(IntegrityError, match=message):
        units(name, tmp_path)


def test_a_pet_without_its_ct_is_named(tmp_path: Path) -> None:
    """The message says that it may be the CT that is missing."""
    (built("pet_whole_body", tmp_path, 1) / "FDG-PET-CT-Lesions/PETCT_00a/01-01-2000-NA/CTres.nii.gz").unlink()
    with pytest.raises(IntegrityError, match=r"1 of 2 images lack a CT or a mask: .*PETCT_00a/01-01-2000-NA/SUV"):
        units("pet_whole_body", tmp_path, 1)


def test_a_part_of_a_data_set_is_asked_for(tmp_path: Path) -> None:
    """Shenzhen without Montgomery is not silently the whole."""
    built("xray_chest", tmp_path)
    for path in tmp_path.rglob("MCUCXR*"):
        path.unlink()
    with pytest.raises(IntegrityError, match="no image of Montgomery is there, only of the rest"):
        units("xray_chest", tmp_path)


def test_two_copies_are_an_error(tmp_path: Path) -> None:
    """A folder with the data set twice would count every case twice."""
    for copy in ("a", "b"):
        built("us_ovarian_tumor", tmp_path / copy)
    with pytest.raises(IntegrityError, match=r"several files stand for one image: a/MMOTU.*, b/MMOTU"):
        units("us_ovarian_tumor", tmp_path)


def test_two_series_of_a_subject_are_named(tmp_path: Path) -> None:
    """Nothing tells which of two series before contrast was drawn on."""
    built("mri_breast_3d", tmp_path)
    study = tmp_path / "Duke-Breast-Cancer-MRI/Breast_MRI_002/01-01-1990-NA"
    write(study / "9.0-ax dyn pre repeated/1-1.dcm", b"")
    with pytest.raises(IntegrityError, match=r"several series stand for one image: .*dyn pre-1, .*dyn pre repeated"):
        units("mri_breast_3d", tmp_path)


def test_a_damaged_listing_is_named(tmp_path: Path) -> None:
    """A dataset.json that is no JSON is not passed over; one of another form says nothing."""
    path = built("ct_spleen", tmp_path) / "Task09_Spleen/dataset.json"
    write(path, b"[]")
    assert len(units("ct_spleen", tmp_path)) == 2
    write(path, b"{")
    with pytest.raises(IntegrityError, match=r"dataset\.json is not JSON"):
        units("ct_spleen", tmp_path)


# --- masks at odds with their image -------------------------------------------------------------------------


def test_a_picture_mask_of_another_size_names_the_case(tmp_path: Path) -> None:
    """Both sizes are in the message."""
    write_picture(tmp_path / "train/3_1.tif", GREY)
    write_picture(tmp_path / "train/3_1_mask.tif", MASK[:-1])
    with pytest.raises(CaseError, match=r"case '03_001': the image is 7 x 6 pixels .*, its mask 7 x 5"):
        found(spec_of("us_nerve"), tmp_path)


def test_a_further_mask_of_another_size_is_left_out_and_told(tmp_path: Path) -> None:
    """BUSI has one such file; the first mask must fit all the same."""
    for name, picture in (("", GREY), ("_mask", MASK), ("_mask_1", np.full((3, 9), 255, np.uint8))):
        write_picture(tmp_path / f"benign (4){name}.png", picture)
    [case] = found(spec_of("us_breast"), tmp_path).values()
    np.testing.assert_array_equal(case.labels, MASK > 0)
    assert case.metadata == {"masks_left_out": ["benign (4)_mask_1.png (9 x 3)"]}
    write_picture(tmp_path / "benign (4)_mask.png", MASK[1:])
    with pytest.raises(CaseError, match=r"case 'benign_004': the image is 7 x 6"):
        found(spec_of("us_breast"), tmp_path)


def test_a_mask_on_another_grid_names_the_case(tmp_path: Path) -> None:
    """Another shape, and another place of the same shape."""
    [content] = synthetic("volume", 1)
    write_nifti(tmp_path / "volume-7.nii", content.image, (1, 1, 1))
    write_nifti(tmp_path / "segmentation-7.nii", content.labels[1:], (1, 1, 1))
    with pytest.raises(CaseError, match=r"case 'volume_007': the mask segmentation-7\.nii is not on the grid"):
        found(spec_of("ct_liver"), tmp_path)
    write_nifti(tmp_path / "segmentation-7.nii", content.labels, (1, 1, 1), flipped=True)
    assert found(spec_of("ct_liver"), tmp_path)
    write_nifti(tmp_path / "segmentation-7.nii", content.labels, (1, 1.1, 1))
    with pytest.raises(CaseError, match="spacing"):
        found(spec_of("ct_liver"), tmp_path)


def test_a_picture_stored_as_a_volume_has_one_plane(tmp_path: Path) -> None:
    """An X-ray of two planes, or of one value, is an error."""
    for values, message in ((np.zeros((2, 4, 5)), "image_001.*holds 2 planes"), (np.ones((1, 4, 5)), "all its values")):
        for folder in ("images", "labels"):
            write_nifti(tmp_path / folder / "x1.nii.gz", values.astype(np.float32), (1, 1, 1))
        with pytest.raises(CaseError, match=message):
            found(spec_of("xray_hip"), tmp_path)


# --- rules for several masks --------------------------------------------------------------------------------


def test_raters_decide_by_majority(tmp_path: Path) -> None:
    """Three of four make grey matter (1) or cord (2); two of four make nothing."""
    votes = {  # by pixel: what the four raters say, and what must come out
        (1, 1, 1, 1): 1,
        (1, 1, 1, 0): 1,
        (1, 1, 2, 2): 2,
        (1, 2, 2, 0): 2,
        (1, 1, 1, 2): 1,
        (2, 2, 0, 0): 0,
        (1, 1, 0, 0): 0,
        (2, 0, 0, 0): 0,
    }
    drawn = np.array([list(votes)], np.uint8)  # (1, pixels, raters)
    write_nifti(tmp_path / "site2-sc03-image.nii.gz", np.arange(8, dtype=np.int16).reshape(1, 1, 8) + 1, (1, 1, 1))
    for rater in range(4):
        write_nifti(tmp_path / f"site2-sc03-mask-r{rater + 1}.nii.gz", drawn[None, 0, None, :, rater], (1, 1, 1))
    [case] = found(spec_of("mri_spine"), tmp_path).values()
    assert case.labels.tolist() == [list(votes.values())]
    write_nifti(tmp_path / "site2-sc03-mask-r2.nii.gz", np.full((1, 1, 8), 3, np.uint8), (1, 1, 1))
    with pytest.raises(CaseError, match="case 'site2-sc03': a rater's mask holds the label 3"):
        found(spec_of("mri_spine"), tmp_path)


def test_two_masks_on_one_plane_are_an_error(tmp_path: Path) -> None:
    """One of them would be lost."""
    folder = built("mri_prostate", tmp_path) / "GE/Patient 41/GT/prostate"
    write(folder / "copy.dcm", min(folder.iterdir()).read_bytes())
    with pytest.raises(CaseError, match="case 'GE_41': two of its mask files are of one plane"):
        found(spec_of("mri_prostate"), tmp_path)


def test_a_study_without_one_series_of_each_kind_lists_what_it_has(tmp_path: Path) -> None:
    """PET/CT in DICOM needs a CT, a PET and a segmentation."""
    study = built("pet_whole_body", tmp_path, 2) / "FDG-PET-CT-Lesions/PETCT_0b/01-02-2001-PET"
    for path in (study / "2.0-CT-7").iterdir():
        path.unlink()
    with pytest.raises(CaseError, match=r"0 series of modality CT, not one; .*3\.0-PET corr-9 \(PT\), .*\(SEG\)"):
        found(spec_of("pet_whole_body"), tmp_path)


def test_a_segmentation_of_another_series_is_an_error(tmp_path: Path) -> None:
    """The picture must be the series that was drawn on."""
    study = built("mri_breast", tmp_path) / "Duke-Breast-Cancer-MRI/Breast_MRI_002/01-01-1990-NA"
    for path in (study / "5.0-ax dyn pre-1").iterdir():
        path.unlink()
    with pytest.raises(CaseError, match="refer to 1 image series, 0 of them are here"):
        found(spec_of("mri_breast"), tmp_path)


# --- Parquet ------------------------------------------------------------------------------------------------


def rows(*ids: object, **columns: Sequence[object]) -> dict[str, Sequence[object]]:
    """Return the columns of the Hub's form of CT2US."""
    cells = [{"bytes": png(GREY), "path": None} for _ in ids]
    masks = [{"bytes": png(MASK), "path": None} for _ in ids]
    return {"id": ids, "image": cells, "mask": masks, **columns}


def test_one_bad_row_is_one_bad_case(tmp_path: Path) -> None:
    """The others are read, and the message names the case."""
    table = rows(1, 2, 3, image=[{"bytes": png(GREY)}, {"bytes": b"no image"}, {"bytes": None}])
    write_parquet(tmp_path / "x.parquet", table)
    layout = spec_of("us_kidney").layouts[0]
    with open_tree(tmp_path) as tree:
        good, bad, none = resolve(layout.read)(tree, layout.options)
        assert [one.case_id for one in good.read()] == ["0001"]
        with pytest.raises(CaseError, match="0002"):
            list(bad.read())
        with pytest.raises(CaseError, match="case '0003': column 'image' holds NoneType, not image bytes"):
            list(none.read())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train-00000-of-00002.parquet": rows(1)}, r"1 of 2 files train-\*-of-00002\.parquet are there"),
        ({"a.parquet": rows(1, 2), "b.parquet": rows(2)}, "several cases have the id 0002"),
    ],
)
def test_parquet_files_that_do_not_add_up(
    files: dict[str, dict[str, Sequence[object]]], message: str, tmp_path: Path
) -> None:
    """A missing shard, and an id in two of them."""
    for name, table in files.items():
        write_parquet(tmp_path / name, table)
    with pytest.raises(IntegrityError, match=message):
        units("us_kidney", tmp_path)


def test_ids_of_another_form_and_damaged_files_are_named(tmp_path: Path) -> None:
    """Another revision of the Hub's files must not pass as the one that the spec was written for."""
    table = {**rows("benign"), "image_id": ["image 7"], "class_label": ["benign"]}
    write_parquet(tmp_path / "x.parquet", table)
    with pytest.raises(IntegrityError, match=r"x\.parquet has the id 'image 7', which is not of the form"):
        units("us_breast", tmp_path, 1)
    write(tmp_path / "x.parquet", b"PAR1")
    with pytest.raises(IntegrityError, match=r"x\.parquet cannot be read as Parquet"):
        units("us_breast", tmp_path, 1)


# --- options ------------------------------------------------------------------------------------------------


def test_options_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    """A misspelt rule of a plugin's layout is an error that names the ones there are."""
    [content] = synthetic("volume", 1)
    for name, values in (("a.nii", content.image), ("a_mask.nii", content.labels)):
        write_nifti(tmp_path / name, values, (1, 1, 1))
    options = {"image": r"(?P<id>a)\.nii", "masks": [r"(?P<id>a)_mask\.nii"], "case": "{id}", "masks_are": "drawings"}
    with open_tree(tmp_path) as tree:
        [unit] = volumes(tree, {**options, "intensity": {"rule": "full_range"}})
        with pytest.raises(
            RegistryError, match="masks_are is 'drawings', not labels, raters, parts, planes or segments"
        ):
            list(unit.read())
    volume = Volume(name="v", values=content.image, affine=np.eye(4), slope=scalar(1), intercept=scalar(0))
    with pytest.raises(RegistryError, match="intensity rule 'window' is not ct_window"):
        picture_of(volume, {"rule": "window"})
