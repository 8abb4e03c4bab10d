"""Read volumes from NIfTI, NRRD and MetaImage files in one orientation, and compare and resample them.

Whatever way a volume was acquired and stored, its axes are turned to the closest of the patient's: z from foot to
head, y from front to back, x from the patient's right to the left. That is LPS, DICOM's own convention; an axial plane
then is shown as radiologists see it. Only whole axes are turned or flipped, so no value is interpolated: an oblique
volume stays oblique, and its `Volume.affine` says by how much.
"""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.files.cache import scratch
from promptseg.preparation.extras import library

Matrix = npt.NDArray[np.float64]

_FRACTION = 1e-4  # label ids stored with a scale come back with the rounding of float32
_SPACING_TOLERANCE = 1e-3  # relative
_DIRECTION_TOLERANCE = 1e-3  # of a unit vector: 0.06 degrees
_ORIGIN_TOLERANCE = 0.1  # of a voxel


@dataclass(frozen=True, eq=False, kw_only=True)
class Volume:
    """A volume in LPS order.

    Attributes:
        name: for messages.
        values: (Z, Y, X) as they are stored, in the type in which they are stored; z from foot to head, y to the
            patient's back, x to the patient's left. Often a view with strides of its own.
        affine: (4, 4) from voxel indices (x, y, z, 1) to the position of the voxel's centre in LPS, in mm.
        slope: broadcasts against ``values``; what a stored value is multiplied with to get the real one.
        intercept: broadcasts against ``values``; what is then added.
    """

    name: str
    values: npt.NDArray[Any]
    affine: Matrix
    slope: Matrix
    intercept: Matrix

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along z, y and x."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def origin_mm(self) -> Matrix:
        """(3,) position (x, y, z) of the centre of the first voxel, in LPS."""
        return self.affine[:3, 3]

    @property
    def direction(self) -> Matrix:
        """(3, 3) unit vectors of the axes x, y and z, as columns, in LPS."""
        axes = self.affine[:3, :3]
        return np.asarray(axes / np.linalg.norm(axes, axis=0))

    def plane(self, index: int) -> npt.NDArray[np.float32]:
        """Return the real values of an axial plane, (H, W) from front to back and right to left of the patient.

        Raises:
            CaseError: NaN or infinite values; the message counts those of the whole volume.
        """
        plane = self._real(index)
        if not np.isfinite(plane).all():
            bad = sum(int((~np.isfinite(self._real(i))).sum()) for i in range(len(self.values)))
            raise CaseError(
                self.name,
                f"{bad} of {self.values.size} values of the volume are NaN or infinite, in plane {index} among others; "
                "mend or drop the volume.",
            )
        return plane

    def _real(self, index: int) -> npt.NDArray[np.float32]:
        shape = self.values.shape
        slope, intercept = (np.broadcast_to(a, shape)[index] for a in (self.slope, self.intercept))
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are looked for afterwards
            return np.asarray((self.values[index] * slope + intercept).astype(np.float32, order="C"))


def scalar(value: float) -> Matrix:
    """Return a slope or intercept that holds for all of a volume."""
    return np.full((1, 1, 1), value, dtype=np.float64)


def in_lps(volume: Volume) -> Volume:
    """Return a volume of any orientation with its axes turned to the closest ones of LPS, without copying.

    Raises:
        CaseError: the affine is not finite, or two of its axes are one.
    """
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.direction)) < 1e-3:
        raise CaseError(volume.name, f"its affine {volume.affine.tolist()} does not span a volume; mend the header.")
    orientations = library("nibabel.orientations")
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn = orientations.ornt_transform(
        orientations.io_orientation(to_ras @ volume.affine), orientations.axcodes2ornt("LPS")
    )
    whole = volume.values.T.shape

    def turned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(orientations.apply_orientation(array.T, turn).T)

    return replace(
        volume,
        values=turned(volume.values),
        affine=volume.affine @ orientations.inv_ornt_aff(turn, whole),
        slope=turned(volume.slope),
        intercept=turned(volume.intercept),
    )


# files


def read_volume(name: str, data: bytes, *, channel: int | None = None) -> Volume:
    """Return the volume in a NIfTI (.nii, .nii.gz), NRRD (.nrrd) or MetaImage (.mha) file.

    Values keep the type in which they are stored; no copy of the volume is made but for the one that is returned.
    The position of a NIfTI volume is that of its sform, else of its qform, else of its pixel sizes alone, which then
    are taken in nibabel's way: x towards the patient's left.

    Args:
        name: path of the file, whose suffix gives its format; errors name the case so.
        data: its content.
        channel: which volume of a 4-D NIfTI to take, 0 first.

    Raises:
        CaseError: another format, a damaged file, no single volume, or an affine that does not span one.
        UnavailableError: nibabel or SimpleITK is not installed.
    """
    suffix = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    if suffix == ".nii":
        return in_lps(_read_nifti(name, data, channel))
    if suffix not in (".nrrd", ".mha"):
        raise CaseError(name, f"{suffix or 'a file without suffix'} is not read; volumes are .nii, .nrrd or .mha.")
    if channel is not None:
        raise CaseError(name, "channels are taken from NIfTI files only.")
    return in_lps(volume_of_itk(read_itk(name, data), name))


def read_labels(name: str, data: bytes, *, channel: int | None = None) -> Volume:
    """Return the label map in a volume file, see `read_volume` and `labels_of`. Raises `CaseError`."""
    return labels_of(read_volume(name, data, channel=channel))


def labels_of(volume: Volume) -> Volume:
    """Return a volume as label map: ids from 0 on, in the smallest unsigned type that holds them.

    Raises:
        CaseError: NaN, fractions (a part of 10000 of rounding is allowed) or negative values.
    """
    tops = [_top_label(volume, index) for index in range(len(volume.values))]
    values = np.empty(volume.values.shape, np.min_scalar_type(max(tops, default=0)))
    for index, plane in enumerate(values):
        plane[...] = np.rint(volume.plane(index))
    return replace(volume, values=values, slope=scalar(1), intercept=scalar(0))


def _top_label(volume: Volume, index: int) -> int:
    """Return the largest label id of a plane of label ids."""
    plane = volume.plane(index)
    whole = np.rint(plane)
    if (bad := (np.abs(plane - whole) > _FRACTION) | (whole < 0)).any():
        raise CaseError(
            volume.name,
            f"the mask holds fractions or negative values ({plane[bad][0]:g} in plane {index}, {bad.sum()} such "
            "voxels there); label ids are 0, 1, 2, ...",
        )
    return int(whole.max())


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what the libraries raise on damaged bytes, which is anything, into a `CaseError`."""
    try:
        yield
    except CaseError:
        raise
    except Exception as error:
        raise CaseError(
            name,
            f"the volume cannot be read ({type(error).__name__}: {_last_line(error)}). The file was cut, is damaged or "
            "is of another format: fetch it again.",
        ) from error


def _last_line(error: Exception) -> str:
    """Return what a library of many layers says last, which is the reason."""
    return (str(error).strip().splitlines() or ["without a reason"])[-1].strip()


def _read_nifti(name: str, data: bytes, channel: int | None) -> Volume:
    packed = data.startswith(b"\x1f\x8b")  # files are misnamed both ways
    stream: io.BufferedIOBase = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
    nibabel = library("nibabel")
    with _reading(name):
        image = _nifti_class(nibabel, stream).from_stream(stream)
        count = _check_nifti(name, image, channel)
        values = _nifti_values(stream, image.dataobj, (channel or 0) % count)
        while stream.read(1 << 20):  # gzip verifies its checksum at the end
            pass
    from_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Volume(
        name=name,
        values=values,
        affine=from_ras @ np.asarray(image.affine, np.float64),
        slope=scalar(image.dataobj.slope),
        intercept=scalar(image.dataobj.inter),
    )


def _nifti_class(nibabel: Any, stream: io.BufferedIOBase) -> Any:
    """Return nibabel's class for the version of NIfTI, which the size of the header gives."""
    size = stream.read(4)
    stream.seek(0)
    return nibabel.Nifti2Image if 540 in (int.from_bytes(size, "little"), int.from_bytes(size)) else nibabel.Nifti1Image


def _check_nifti(name: str, image: Any, channel: int | None) -> int:
    """Return the number of volumes in a file that holds the volume that is asked for."""
    dtype, shape = image.dataobj.dtype, image.shape
    if dtype.kind not in "iuf":
        raise CaseError(name, f"its values are of type {dtype}; volumes must hold one number for each voxel.")
    count = int(np.prod(shape[3:], dtype=np.int64))
    if min(shape, default=0) < 1:
        raise CaseError(name, f"its shape is {shape}: it holds no voxels.")
    if channel is None and count != 1:
        raise CaseError(name, f"its shape is {shape}: {count} volumes, where one is expected. Say which channel.")
    if channel is not None and not 0 <= channel < count:
        raise CaseError(name, f"its shape is {shape}: there is no channel {channel} among its {count} volumes.")
    return count


def _nifti_values(stream: io.BufferedIOBase, proxy: Any, channel: int) -> npt.NDArray[Any]:
    """Return the (Z, Y, X) values of one volume, in the order of its file."""
    shape = (*proxy.shape, 1, 1)[:3]
    size = int(np.prod(shape, dtype=np.int64)) * proxy.dtype.itemsize
    stream.seek(int(proxy.offset) + channel * size)
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"its values end after {len(data)} of {size} bytes")
    values = np.frombuffer(data, proxy.dtype).reshape(shape, order="F").T
    return values.astype(proxy.dtype.newbyteorder("="), copy=False)


def read_itk(name: str, data: bytes) -> Any:
    """Return the SimpleITK image in the bytes of an NRRD or MetaImage file that holds its own values.

    Raises:
        CaseError: a damaged file, or one whose values are in another file.
    """
    suffix = PurePosixPath(name.lower()).suffix
    _check_attached(name, data[: 1 << 16], suffix)
    itk = library("SimpleITK")
    with scratch() as folder:  # SimpleITK reads files only
        path = folder / f"volume{suffix}"
        path.write_bytes(data)
        with _reading(name):
            return itk.ReadImage(str(path))


def _check_attached(name: str, head: bytes, suffix: str) -> None:
    """Raise `CaseError` for a header that points to another file: any file of this machine, if it likes."""
    lines = head.split(b"\n\n" if suffix == ".nrrd" else b"\0")[0].lower().splitlines()
    fields = {line.replace(b" ", b"").rpartition(b"=" if suffix == ".mha" else b":")[0] for line in lines}
    local = any(line.replace(b" ", b"") == b"elementdatafile=local" for line in lines)
    if fields & {b"datafile"} or (suffix == ".mha" and not local):
        raise CaseError(name, "its values are in another file; convert it to a file that holds them.")


def volume_of_itk(image: Any, name: str) -> Volume:
    """Return a 3-D SimpleITK image as volume, its axes in the order of its file. Raises `CaseError`."""
    channels = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or channels != 1:
        raise CaseError(name, f"it has {image.GetDimension()} dimensions and {channels} channels, not 3 and 1.")
    values = library("SimpleITK").GetArrayFromImage(image)
    return Volume(name=name, values=values, affine=affine_of_itk(image), slope=scalar(1), intercept=scalar(0))


def affine_of_itk(image: Any) -> Matrix:
    """Return the (4, 4) affine of a 3-D SimpleITK image, which is in LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


# grids


def check_same_grid(image: Volume, mask: Volume, case_id: str) -> None:
    """Raise `CaseError` unless two volumes have their voxels at the same places.

    Allowed are a thousandth of the spacing, 0.06 degrees of direction, and a tenth of a voxel at both ends: formats
    store positions as float32, as decimal text or as quaternions, which differ by less.
    """
    differences = [text for text, same in _comparisons(image, mask) if not same]
    if differences:
        raise CaseError(
            case_id,
            f"the mask {mask.name} is not on the grid of the image {image.name}: {'; '.join(differences)}. Resample "
            "the mask to its image without interpolating label ids (nearest neighbour).",
        )


def _comparisons(image: Volume, mask: Volume) -> list[tuple[str, bool]]:
    """Return for each property what differs, in words, and whether it is the same."""

    def close(a: Any, b: Any, tolerance: Any) -> bool:
        return bool((np.abs(np.subtract(a, b)) <= tolerance).all())

    spacing = np.array(image.spacing_mm)
    to_voxels = np.linalg.inv(image.affine)
    last = (*np.array(image.values.shape[::-1]) - 1, 1)
    ends = image.affine @ last, mask.affine @ last
    return [
        (
            f"shape {image.values.shape} against {mask.values.shape} (z, y, x)",
            image.values.shape == mask.values.shape,
        ),
        (
            f"spacing {_text(image.spacing_mm)} against {_text(mask.spacing_mm)} mm (z, y, x)",
            close(spacing, mask.spacing_mm, _SPACING_TOLERANCE * spacing),
        ),
        (
            f"origin {_text(image.origin_mm)} against {_text(mask.origin_mm)} mm (x, y, z in LPS)",
            close(to_voxels[:3, :3] @ (mask.origin_mm - image.origin_mm), 0, _ORIGIN_TOLERANCE),
        ),
        (
            f"direction {_text(image.direction.ravel())} against {_text(mask.direction.ravel())} (rows of a matrix)",
            close(image.direction, mask.direction, _DIRECTION_TOLERANCE),
        ),
        (
            f"last voxel at {_text(ends[0][:3])} against {_text(ends[1][:3])} mm",
            close(to_voxels @ (ends[1] - ends[0]), 0, _ORIGIN_TOLERANCE),
        ),
    ]


def _text(values: Any) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"


def resample_like(
    volume: Volume, reference: Volume, order: Literal["linear", "nearest"], *, outside: float = 0.0
) -> Volume:
    """Return a volume on the grid of another, by SimpleITK.

    Args:
        volume: for example PET.
        reference: for example the CT; its values do not matter.
        order: ``linear`` gives real values as float32; ``nearest`` keeps the stored values, for label maps.
        outside: value where ``volume`` has none: a real value for ``linear``, a stored one for ``nearest``.
    """
    itk = library("SimpleITK")
    source = to_itk(volume, real=order == "linear")
    how = itk.sitkLinear if order == "linear" else itk.sitkNearestNeighbor
    size = reference.values.shape[::-1]
    spacing = reference.spacing_mm[::-1]
    grid = (size, itk.Transform(), how, list(reference.origin_mm), spacing, list(reference.direction.ravel()))
    values = itk.GetArrayFromImage(itk.Resample(source, *grid, outside))
    moved = replace(volume, values=values, affine=reference.affine)
    return replace(moved, slope=scalar(1), intercept=scalar(0)) if order == "linear" else moved


def _real_values(volume: Volume) -> npt.NDArray[np.float32]:
    values = np.empty(volume.values.shape, np.float32)
    for index, plane in enumerate(values):
        plane[...] = volume.plane(index)
    return values


def to_itk(volume: Volume, *, real: bool) -> Any:
    """Return a volume as SimpleITK image: its real values as float32, or its stored values."""
    image = library("SimpleITK").GetImageFromArray(_real_values(volume) if real else volume.values)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(list(volume.origin_mm))
    image.SetDirection(list(volume.direction.ravel()))
    return image
