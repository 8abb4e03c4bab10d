"""A folder of images/ and masks/ is a data set, or an error names the files at fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pil
from support.paths import SHARED

from promptseg.datasets_registry.folder import FolderSamples, load
from promptseg.errors import CaseError, ConfigError
from promptseg.samples import Samples
from promptseg.specs import DatasetSpec, Origin, TaskSpec

DATA = SHARED / "data"
SETS = sorted(path.parent.name for path in DATA.glob("*/masks"))


def spec_of(root: Path, *labels: int) -> DatasetSpec:
    """Return the spec of a folder with one task for each label, or one for all."""
    tasks = tuple(TaskSpec(name=f"toy_{label}", labels=(label,)) for label in labels) or (TaskSpec(name="toy"),)
    return DatasetSpec(
        name="toy",
        modality="ct",
        load="promptseg.datasets_registry.folder:load",
        tasks=tasks,
        licence="CC0-1.0",
        origin=Origin(host="local", repo=str(root)),
    )


def read(root: Path, *labels: int) -> FolderSamples:
    """Load a folder as the registry does."""
    return load(spec_of(root, *labels), root)


def write(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Write one image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of two cases, written in an order that is not theirs."""
    for stem, value in (("p2", 100), ("p10", 200)):
        write(tmp_path / "images" / f"{stem}.png", np.full((3, 4), value, np.uint8))
        write(tmp_path / "masks" / f"{stem}.png", np.eye(3, 4, dtype=np.uint8) * 255)
    return tmp_path


def test_cases_are_the_sorted_stems(root: Path) -> None:
    """Ids come sorted as text, with normalised images and label maps."""
    samples: Samples = read(root)
    assert samples.ids() == ["p10", "p2"]
    np.testing.assert_array_equal(samples.image("p2"), np.full((3, 4, 3), 255))
    np.testing.assert_array_equal(samples.labels("p2"), np.eye(3, 4))
    assert samples.subject("p2") is None


def test_suffixes_may_differ(tmp_path: Path) -> None:
    """A mask is found by its stem, whatever its suffix and the case of its letters."""
    for stem, image, mask in (("a.1", "jpg", "png"), ("b", "TIF", "bmp"), ("c", "jpeg", "tiff")):
        write(tmp_path / "images" / f"{stem}.{image}", np.full((3, 4), 9, np.uint8))
        write(tmp_path / "masks" / f"{stem}.{mask}", np.eye(3, 4, dtype=np.uint8))
    (tmp_path / "images" / ".DS_Store").touch()
    (tmp_path / "masks" / "Thumbs.db").touch()
    samples = read(tmp_path)
    assert samples.ids() == ["a.1", "b", "c"]
    for case_id in samples.ids():
        assert samples.image(case_id).shape == (*samples.labels(case_id).shape, 3)


def test_255_is_kept_where_it_is_a_label(root: Path) -> None:
    """Black and white masks become 0 and 1 for label 1, and stay as they are where other ids are asked for."""
    assert read(root, 1).labels("p2").max() == 1
    assert read(root, 255).labels("p2").max() == 255
    assert read(root, 1, 2).labels("p2").max() == 255


def test_a_missing_folder_is_a_mistake(tmp_path: Path) -> None:
    """Somebody wrote the path down, so its cells fail and say where the data was looked for."""
    with pytest.raises(ConfigError, match=r"data set toy: there is no folder .*gone\. Put the data there"):
        read(tmp_path / "gone")


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_missing_subfolder_is_named(root: Path, folder: str) -> None:
    """Both folders are needed."""
    shutil.rmtree(root / folder)
    with pytest.raises(ConfigError, match=rf"data set toy: .* has no folder {folder}/\. A folder data set holds"):
        read(root)


def test_an_empty_data_set_is_an_error(tmp_path: Path) -> None:
    """No files at all is a mistake, not a task of zero cases."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match="data set toy: images/ and masks/ are empty"):
        read(tmp_path)


def test_files_without_a_partner_are_all_named(root: Path) -> None:
    """Images without masks and masks without images stand in one message."""
    for stem in ("x1", "x2"):
        write(root / "images" / f"{stem}.png", np.ones((3, 4), np.uint8))
    write(root / "masks" / "x1_mask.png", np.ones((3, 4), np.uint8))
    with pytest.raises(ConfigError) as caught:
        read(root)
    assert str(caught.value) == (
        "data set toy: 3 files have no partner of the same stem: image x1.png has no mask; image x2.png has no mask; "
        "mask x1_mask.png has no image. Rename, add or remove files until images/ and masks/ have the same stems."
    )


def test_two_files_with_one_stem_are_named(root: Path) -> None:
    """The stem is the case id, so it cannot stand twice."""
    write(root / "images" / "p2.bmp", np.ones((3, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"files with one stem, which is the case id: p2\.bmp and p2\.png\. Keep one"):
        read(root)


def test_files_of_other_types_are_named(root: Path) -> None:
    """A volume or a subfolder among the images is not passed over."""
    (root / "images" / "p3.nii.gz").touch()
    (root / "images" / "more.png").mkdir()
    with pytest.raises(ConfigError, match=r"holds what is not an image of \.png.*: more\.png, p3\.nii\.gz\. Convert"):
        read(root)


def test_sizes_that_differ_are_a_case_error(root: Path) -> None:
    """The mask of a case must have the size of its image; other cases are not touched."""
    write(root / "masks" / "p2.png", np.ones((6, 8), np.uint8))
    samples = read(root)
    with pytest.raises(CaseError, match=r"case 'p2': the image is 4 x 3 pixels .* its mask 8 x 6"):
        samples.labels("p2")
    assert samples.labels("p10").shape == (3, 4)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_damaged_file_is_a_case_error(root: Path, folder: str) -> None:
    """Case and file are named when the file is read, not when the folder is listed."""
    (root / folder / "p2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    samples = read(root)
    reader = samples.image if folder == "images" else samples.labels
    with pytest.raises(CaseError, match=rf"case 'p2': .*{folder}.p2\.png cannot be decoded"):
        reader("p2")


def test_an_all_zero_image_is_a_case_error(root: Path) -> None:
    """The released code would divide by zero."""
    write(root / "images" / "p2.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(CaseError, match=r"case 'p2': the image \(4 x 3 pixels\) is all zero"):
        read(root).image("p2")


def test_subjects_come_from_the_table(root: Path) -> None:
    """subjects.csv names the patient of a case; cases that it leaves out have none; a BOM does not matter."""
    (root / "subjects.csv").write_text("\ufeffcase_id,age,subject_id\np2,40,anna\n", encoding="utf-8")
    samples = read(root)
    assert (samples.subject("p2"), samples.subject("p10")) == ("anna", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,subject\np2,anna\n", "must have the columns case_id and subject_id, not"),
        ("", "must have the columns case_id and subject_id, not None"),
        ("case_id,subject_id\np2,anna\np3,bob\n", "names cases that are not in images/: p3. A case id is the stem"),
        ("case_id,subject_id\np2,anna\np2,bob\n", "names a case twice"),
    ],
)
def test_a_wrong_table_of_subjects_is_an_error(root: Path, text: str, message: str) -> None:
    """A misspelt column or case would silently change the intervals."""
    (root / "subjects.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(root)
    assert message in str(caught.value)


def test_the_fingerprint_follows_names_and_contents(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A copy elsewhere has the same one; a changed pixel, name or table has another."""
    copy = tmp_path_factory.mktemp("copy") / "toy"
    shutil.copytree(root, copy)
    seen = [read(root).fingerprint]
    assert read(copy).fingerprint == seen[0]
    write(copy / "images" / "p2.png", np.full((3, 4), 101, np.uint8))
    seen.append(read(copy).fingerprint)
    for folder in ("images", "masks"):
        (copy / folder / "p2.png").rename(copy / folder / "p3.png")
    seen.append(read(copy).fingerprint)
    (copy / "subjects.csv").write_text("case_id,subject_id\np3,anna\n")
    seen.append(read(copy).fingerprint)
    assert len(set(seen)) == 4


@pytest.mark.real
@pytest.mark.skipif(not SETS, reason=f"no real images at {DATA}")
@pytest.mark.parametrize("name", SETS)
def test_real_folders_load(name: str) -> None:
    """Every folder of real images is a data set as it is, and each case has a target of its image's size."""
    samples = read(DATA / name, 1, 2)
    assert len(samples.ids()) == len(list((DATA / name / "images").iterdir()))
    for case_id in samples.ids():
        labels = samples.labels(case_id)
        assert labels.max() > 0
        assert samples.image(case_id).shape == (*labels.shape, 3)
