"""Volumes: an independent reader must agree on every value and its place, whatever way the file lies."""

from __future__ import annotations

import gzip
import struct
import tempfile
import tracemalloc
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED

from promptseg.errors import CaseError
from promptseg.preparation.volumes import (
    Volume,
    check_same_grid,
    in_lps,
    labels_of,
    read_labels,
    read_volume,
    resample_like,
    scalar,
)

DATA = SHARED / "data"
REAL = sorted(path for kind in ("nii.gz", "nrrd") for path in DATA.glob(f"*/volumes/*.{kind}"))
BRAIN = "mri_brain/volumes/brats_2013_pat0001_1"
SHAPE = (5, 4, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files lie in a cache of the test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


def by_itk(data: bytes, name: str) -> Any:
    """Return the SimpleITK image of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        return SimpleITK.ReadImage(str(path))


def real_values(volume: Volume) -> npt.NDArray[np.float32]:
    """Return all planes."""
    return np.stack([volume.plane(i) for i in range(len(volume.values))])


def nifti(
    values: npt.NDArray[Any], affine: npt.NDArray[np.float64] | None = None, scale: tuple[float, float] | None = None
) -> bytes:
    """Return an uncompressed NIfTI file of values in x, y, z order; ``scale`` is slope and intercept."""
    data = bytearray(nib.Nifti1Image(values, np.eye(4) if affine is None else affine).to_bytes())
    if scale is not None:
        data[112:120] = struct.pack("<ff", *scale)
    return bytes(data)


def counting(dtype: Any = np.int16) -> npt.NDArray[Any]:
    """Return a volume of SHAPE in which every voxel differs."""
    return np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE)


def made(values: npt.NDArray[Any], spacing: float = 1.0, name: str = "v") -> Volume:
    """Return a volume of values in z, y, x order."""
    return Volume(
        name=name,
        values=values,
        affine=np.diag([spacing, spacing, spacing, 1.0]),
        slope=scalar(1),
        intercept=scalar(0),
    )


def rotation(angles: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Return the (3, 3) rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn, (a, b) = np.eye(3), [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@st.composite
def affines(draw: st.DrawFn, most: float = np.pi) -> npt.NDArray[np.float64]:
    """Draw axes in any order, flipped, turned by up to ``most`` radians about each, with spacings of their own."""
    order = draw(st.sampled_from(list(permutations(range(3)))))
    flips = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    angles = draw(st.tuples(*[st.floats(-most, most)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.25, 8)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.eye(3)[list(order)] * flips * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


# geometry


@given(affine=affines(), dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]))
@settings(max_examples=40, deadline=None)
def test_every_voxel_is_where_simpleitk_has_it(affine: npt.NDArray[np.float64], dtype: type[np.generic]) -> None:
    """Permuted, flipped, rotated and anisotropic: value and position of each voxel agree, and the type is kept."""
    data = nifti(counting(dtype), affine)
    volume, image = read_volume("v.nii", data), by_itk(data, "v.nii")
    assert volume.values.dtype == dtype
    for z, y, x in np.ndindex(volume.values.shape):
        position = (volume.affine @ (x, y, z, 1))[:3]
        index = image.TransformPhysicalPointToContinuousIndex(position.tolist())
        np.testing.assert_allclose(index, np.rint(index), atol=1e-2)
        assert image[[int(i) for i in np.rint(index)]] == volume.values[z, y, x]


@given(affine=affines(most=0.2))
@settings(max_examples=40, deadline=None)
def test_axes_end_in_the_order_that_simpleitk_gives_them(affine: npt.NDArray[np.float64]) -> None:
    """Foot to head, front to back, right to left: the closest of the patient's axes, with their spacings."""
    data = nifti(counting(), affine)
    volume, image = read_volume("v.nii", data), SimpleITK.DICOMOrient(by_itk(data, "v.nii"), "LPS")
    np.testing.assert_array_equal(volume.values, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing()[::-1], rtol=1e-5)
    np.testing.assert_allclose(volume.origin_mm, image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(volume.direction.ravel(), image.GetDirection(), atol=1e-5)
    assert (np.diag(volume.direction) > 0.7).all()


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
@pytest.mark.parametrize("codes", ["LPS", "RAI", "PSR", "ASL", "SLP"])
def test_other_formats_agree_with_nifti(kind: str, codes: str, tmp_path: Path) -> None:
    """One volume written in any orientation as NRRD, MetaImage and NIfTI is read as one."""
    image = SimpleITK.GetImageFromArray(counting())
    image.SetSpacing((0.5, 0.75, 4))
    image.SetOrigin((-10, 20, 30))
    turned = SimpleITK.DICOMOrient(image, codes)
    read = []
    for suffix in (kind, "nii"):
        SimpleITK.WriteImage(turned, str(tmp_path / f"v.{suffix}"))
        read.append(read_volume(f"v.{suffix}", (tmp_path / f"v.{suffix}").read_bytes()))
    for volume in read:
        np.testing.assert_array_equal(volume.values, counting())
        np.testing.assert_allclose(volume.spacing_mm, (4, 0.75, 0.5))
        np.testing.assert_allclose(volume.origin_mm, (-10, 20, 30))
    check_same_grid(read[0], read[1], "v")


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason=f"no real volumes at {DATA}")
@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_real_volumes_agree_with_simpleitk(path: Path) -> None:
    """Orientation, spacing, origin and every value of the volumes of real data sets, images and masks."""
    data = path.read_bytes()
    volume, image = read_volume(path.name, data), SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    np.testing.assert_array_equal(real_values(volume), SimpleITK.GetArrayFromImage(image).astype(np.float32))
    np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing()[::-1], rtol=1e-6)
    np.testing.assert_allclose(volume.origin_mm, image.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(volume.direction.ravel(), image.GetDirection(), atol=1e-6)
    if "seg" in path.name or "mask" in path.name or "OTMultiClass" in path.name:
        np.testing.assert_array_equal(read_labels(path.name, data).values, SimpleITK.GetArrayFromImage(image))


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason=f"no real volumes at {DATA}")
@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("ct_spleen/volumes/sub-spleen2_ct", "ct_spleen/volumes/sub-spleen2_ct_seg-manual"),
        ("mri_spine_cord_gm/volumes/t2", "mri_spine_cord_gm/volumes/t2_seg-manual"),
        ("mri_spine_cord_gm/volumes/t2s", "mri_spine_cord_gm/volumes/t2s_gmseg_manual"),
        ("mri_spine_gm/volumes/t2s_uncropped", "mri_spine_gm/volumes/t2s_uncropped_gmseg_manual"),
        ("petct_lesion/volumes/STS_002_CT_image", "petct_lesion/volumes/STS_002_CT_mask"),
        (f"{BRAIN}_T1c_subtrMeanDivStd", f"{BRAIN}_OTMultiClass"),
    ],
    ids=["ct", "sagittal", "oblique", "two_affines", "petct", "brain"],
)
def test_real_masks_lie_on_their_images(image: str, mask: str) -> None:
    """The tolerance of the grid lets through what real pairs differ by, sagittal and oblique ones included."""
    read = {name: read_volume(f"{name}.nii.gz", (DATA / f"{name}.nii.gz").read_bytes()) for name in (image, mask)}
    check_same_grid(read[image], read[mask], "case")


# values


@pytest.mark.parametrize("order", ["<", ">"])
def test_scale_and_byte_order(order: str) -> None:
    """Stored values keep their type, real ones have the slope and the intercept, on machines of any byte order."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(counting(), np.diag([-1.0, -1, 1, 1]), header)
    data = bytearray(image.to_bytes())
    data[112:120] = struct.pack(f"{order}ff", 0.5, -1024)
    volume = read_volume("v.nii", bytes(data))
    assert volume.values.dtype == np.dtype(np.int16)
    np.testing.assert_array_equal(volume.values, counting().T)
    np.testing.assert_array_equal(real_values(volume), counting().T * 0.5 - 1024)
    assert volume.plane(0).dtype == np.float32


def test_slopes_of_single_planes_move_with_their_planes() -> None:
    """A sagittal series has a slope for each x; after turning, it must still meet its own voxels."""
    values = counting().astype(np.int16)  # (sagittal plane, head to foot, front to back)
    affine = np.eye(4)
    affine[:3, :3] = [
        [0, 0, -2],
        [1, 0, 0],
        [0, -1, 0],
    ]  # indices run to the back, to the feet, and to the right
    slope = np.array([1.0, 10, 100, 1000, 10000]).reshape(-1, 1, 1)
    volume = in_lps(Volume(name="s", values=values, affine=affine, slope=slope, intercept=scalar(3)))
    assert volume.spacing_mm == (1, 1, 2)
    expected = (values * slope + 3)[::-1, ::-1].transpose(1, 2, 0)
    np.testing.assert_array_equal(real_values(volume), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(bad: float) -> None:
    """In the whole volume, so that a user sees whether it is one voxel or all of the background."""
    values = counting(np.float32)
    values[0, 0, 1] = values[2, 2, 2] = bad
    volume = read_volume("a/v.nii", nifti(values, np.diag([-1.0, -1, 1, 1])))
    volume.plane(0)
    with pytest.raises(CaseError, match=r"case 'a/v.nii': 2 of 60 values of the volume are NaN or infinite"):
        volume.plane(1)


def test_a_misnamed_file_is_read() -> None:
    """Whether a NIfTI file is compressed is told by its bytes, not by its name."""
    data = nifti(counting())
    for name, content in (("v.nii", gzip.compress(data)), ("v.nii.gz", data)):
        assert read_volume(name, content).values.shape == SHAPE[::-1]


def test_nifti_2_is_read() -> None:
    """The second version of the format, which has another header."""
    data = nib.Nifti2Image(counting(), np.diag([-1.0, -1, 1, 1])).to_bytes()
    np.testing.assert_array_equal(read_volume("v.nii", data).values, counting().T)


def test_channels_must_be_chosen() -> None:
    """Four volumes in a file are no volume until it is said which."""
    values = np.stack([counting(), counting() + 100], axis=-1)
    data = gzip.compress(nifti(values, np.diag([-1.0, -1, 1, 1])))
    np.testing.assert_array_equal(read_volume("v.nii.gz", data, channel=1).values, counting().T + 100)
    with pytest.raises(CaseError, match=r"its shape is \(5, 4, 3, 2\): 2 volumes, where one is expected\. Say which"):
        read_volume("v.nii.gz", data)
    with pytest.raises(CaseError, match=r"there is no channel 2 among its 2 volumes"):
        read_volume("v.nii.gz", data, channel=2)
    assert read_volume("v.nii", nifti(counting()[..., None])).values.shape == SHAPE[::-1]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.nrrd", "v.mha"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_file_that_was_cut(name: str, share: float, tmp_path: Path) -> None:
    """Wherever it was cut, there is no volume of it; the file is named, and what to do."""
    rng = np.random.default_rng(1)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(rng.integers(0, 999, (9, 30, 20), np.int16)), str(tmp_path / name))
    data = (tmp_path / name).read_bytes()
    with pytest.raises(CaseError, match=rf"case 'a/{name}': ") as caught:
        read_volume(f"a/{name}", data[: int(len(data) * share)])
    assert str(tmp_path) not in str(caught.value)


def test_a_flipped_bit_in_a_compressed_file() -> None:
    """The checksum of gzip, behind the last voxel, is verified."""
    data = bytearray(gzip.compress(nifti(counting())))
    data[-6] ^= 1
    with pytest.raises(CaseError, match=r"the volume cannot be read \(BadGzipFile: CRC check failed"):
        read_volume("v.nii.gz", bytes(data))


@pytest.mark.parametrize("name", ["v.hdr", "v.img.gz", "v.mhd", "v.nhdr", "v.mgz", "v"])
def test_other_formats_are_refused(name: str) -> None:
    """Also the halves of formats that need two files."""
    with pytest.raises(CaseError, match=r"is not read; volumes are \.nii, \.nrrd or \.mha"):
        read_volume(name, b"")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("v.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndata file: /etc/hostname\n\n"),
        ("v.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndatafile: /etc/hostname\n\n"),
        (
            "v.mha",
            b"NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = /etc/x\n",
        ),
    ],
)
def test_headers_that_point_to_other_files_are_refused(name: str, header: bytes) -> None:
    """A file from elsewhere must not make us read files of this machine."""
    with pytest.raises(CaseError, match="its values are in another file"):
        read_volume(name, header)


def test_several_values_for_a_voxel_are_refused(tmp_path: Path) -> None:
    """Colours and vectors are no volume, in any format."""
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True)
    for suffix in ("nrrd", "mha", "nii"):
        SimpleITK.WriteImage(image, str(tmp_path / f"v.{suffix}"))
        with pytest.raises(CaseError, match=r"3 channels, not 3 and 1|one number for each voxel|3 volumes"):
            read_volume(f"v.{suffix}", (tmp_path / f"v.{suffix}").read_bytes())


def test_an_affine_that_spans_nothing() -> None:
    """Two axes in one direction, or NaN, place no voxel."""
    for column in ([0, 1, 0, 0], [np.nan] * 4):
        affine = np.eye(4)
        affine[:, 0] = column
        data = bytearray(nifti(counting()))
        data[280:328] = affine[:3].astype("<f4").tobytes()
        with pytest.raises(CaseError, match="does not span a volume; mend the header"):
            read_volume("v.nii", bytes(data))


# label maps


def test_labels_take_the_smallest_type() -> None:
    """Ids stored as floats, or with a scale, are integers; large ids keep their value."""
    for values, dtype in ((counting(np.float64), np.uint8), (counting() * 10, np.uint16)):
        labels = read_labels("m.nii", nifti(values, np.diag([-1.0, -1, 1, 1])))
        assert labels.values.dtype == dtype
        np.testing.assert_array_equal(labels.values, values.T)
    scaled = nifti(counting(), np.diag([-1.0, -1, 1, 1]), scale=(1 / 3, 0))
    with pytest.raises(CaseError, match="fractions"):
        read_labels("m.nii", scaled)
    thirds = nifti(counting() * 3, np.diag([-1.0, -1, 1, 1]), scale=(1 / 3, 0))
    np.testing.assert_array_equal(read_labels("m.nii", thirds).values, counting().T)


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (0.5, r"fractions or negative values \(0.5 in plane 1, 1 such voxels there\)"),
        (-1, r"fractions or negative values \(-1 in plane 1"),
        (np.nan, "1 of 60 values of the volume are NaN or infinite"),
    ],
)
def test_what_is_no_label_map(bad: float, found: str) -> None:
    """Probabilities, negative ids and NaN."""
    values = np.zeros(SHAPE, np.float32)
    values[0, 0, 1] = bad
    with pytest.raises(CaseError, match=f"case 'm.nii': .*{found}"):
        read_labels("m.nii", nifti(values, np.diag([-1.0, -1, 1, 1])))


# grids


def test_same_grids_in_any_orientation() -> None:
    """A mask that is stored flipped against its image still lies on it."""
    affine = np.diag([-1.0, -1, 2, 1])
    flipped = affine.copy()
    flipped[:, 0], flipped[:3, 3] = -affine[:, 0], affine[:3, :3] @ [SHAPE[0] - 1, 0, 0]
    image = read_volume("i.nii", nifti(counting(), affine))
    mask = read_volume("m.nii", nifti(counting()[::-1], flipped))
    check_same_grid(image, mask, "p1")
    np.testing.assert_array_equal(image.values, mask.values)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("shape", None), r"shape \(3, 4, 5\) against \(3, 4, 4\) \(z, y, x\)"),
        (("spacing", 1.01), r"spacing \(1, 1, 1\) against \(1\.01, 1\.01, 1\.01\) mm"),
        (("origin", 0.2), r"origin \(0, 0, 0\) against \(0\.2, 0\.2, 0\.2\) mm"),
        (("direction", 0.01), r"direction \(1, 0, 0, .*against \(0\.99995, "),
    ],
)
def test_what_differs_between_grids_is_said(change: tuple[str, float], found: str) -> None:
    """Each property by itself, with both values; tolerances are far below."""
    image, (what, by) = made(counting().T), change
    affine = np.eye(4)
    if what == "spacing":
        affine = np.diag([by, by, by, 1])
    if what == "origin":
        affine[:3, 3] = by
    if what == "direction":
        affine[:3, :3] = rotation((0, 0, by))
    values = counting().T[:, :, :4] if what == "shape" else counting().T
    mask = Volume(name="m", values=values, affine=affine, slope=scalar(1), intercept=scalar(0))
    with pytest.raises(CaseError, match=rf"case 'p1': the mask m is not on the grid of the image v: .*{found}"):
        check_same_grid(image, mask, "p1")


def test_a_spacing_that_adds_up_is_found() -> None:
    """A difference within the tolerance of one voxel may be a whole voxel at the other end."""
    image, mask = made(np.zeros((1, 1, 400))), made(np.zeros((1, 1, 400)), 1.0005)
    with pytest.raises(CaseError, match=r"image v: last voxel at \(399, 0, 0\) against \(399\.2, 0, 0\) mm"):
        check_same_grid(image, mask, "p1")


def test_resampling_to_a_finer_grid() -> None:
    """Linear gives real values between voxels, nearest keeps label ids, and outside of the volume is 0."""
    z, y, x = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    coarse = Volume(
        name="pet",
        values=(x + 10 * y + 100 * z).astype(np.int16),
        affine=np.diag([2.0, 2, 2, 1]),
        slope=scalar(0.5),
        intercept=scalar(1),
    )
    fine = made(np.zeros((7, 9, 13), np.uint8))
    linear = resample_like(coarse, fine, "linear")
    check_same_grid(fine, linear, "p1")
    z, y, x = np.meshgrid(np.arange(7), np.arange(9), np.arange(13), indexing="ij")
    expected = np.where(x <= 10, (x / 2 + 5 * y + 50 * z) * 0.5 + 1, 0)
    inside = x != 11  # within half a voxel of the end, SimpleITK repeats the last value
    np.testing.assert_allclose(real_values(linear)[inside], expected[inside], rtol=1e-5)
    nearest = resample_like(labels_of(made(coarse.values, 2.0)), fine, "nearest")
    assert set(np.unique(nearest.values)) <= {0, *np.unique(coarse.values)}
    np.testing.assert_array_equal(nearest.values[::2, ::2, :11:2], coarse.values)


# memory


@pytest.mark.parametrize("packed", [False, True])
def test_a_volume_is_held_once(packed: bool) -> None:
    """Reading an int16 volume, and a plane of it, takes little more than the volume: no copy as float64."""
    values = np.random.default_rng(1).integers(0, 99, (160, 160, 60), np.int16)
    data = nifti(values, np.diag([1.0, 1, -2, 1]))
    data = gzip.compress(data, 1) if packed else data
    read_volume("v.nii", data)  # imports are not counted
    tracemalloc.start()
    volume = read_volume("v.nii", data)
    volume.plane(3)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.1 * values.nbytes
    assert peak < 2.2 * values.nbytes
