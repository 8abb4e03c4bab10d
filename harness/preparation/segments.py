"""Read masks with named segments, DICOM SEG and 3D Slicer's .seg.nrrd, onto the grid of their image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.preparation.extras import library
from promptseg.preparation.volumes import Volume, affine_of_itk, check_same_grid, in_lps, labels_of, read_itk, scalar

_FIELDS = ("Name", "LabelValue", "Layer")


def read_dicom_seg(name: str, data: bytes, reference: Volume) -> dict[str, Volume]:
    """Return the segments of a DICOM SEG, by highdicom: a label map of 0 and 1 on the grid of ``reference`` for each.

    Keys are the segments' labels, in their order. A SEG leaves out planes without any mark; they are 0.

    Raises:
        CaseError: no DICOM SEG, a damaged file, fractions, two segments of one name, or a grid that is not a part of
            the reference's (see `placed`).
        UnavailableError: highdicom is not installed.
    """
    segmentation = library("highdicom.seg")
    with ExitStack() as stack:
        try:
            file = segmentation.segread(io.BytesIO(data))
            stack.callback(close_tables, file)
            volume = file.get_volume(combine_segments=False)
        except Exception as error:  # pydicom and highdicom raise anything on damaged or unusual files
            raise CaseError(name, f"it cannot be read as DICOM SEG ({type(error).__name__}: {error}).") from error
        names = [file.get_segment_description(number).SegmentLabel for number in file.segment_numbers]
    affine = volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]  # highdicom's indices are (slice, row, column)
    masks = (_mask(f"{name} {label}", volume.array[..., i], affine) for i, label in enumerate(names))
    return _by_name(name, names, masks, reference)


def close_tables(image: Any) -> None:
    """Close the SQLite tables of frames that highdicom keeps in memory for an image, and has no way to close."""
    image._db_con.close()  # noqa: SLF001 - it gives no other handle


def read_seg_nrrd(name: str, data: bytes, reference: Volume) -> dict[str, Volume]:
    """Return the segments of a 3D Slicer segmentation: a label map of 0 and 1 on the grid of ``reference`` for each.

    Keys are the segments' names, in their order. Slicer may store the part of the grid around its segments alone; the
    origin in the file is that of the part. Segments that overlap are stored in different layers.

    Raises:
        CaseError: no such file, a damaged one, two segments of one name, or a grid that is not a part of the
            reference's (see `placed`).
        UnavailableError: SimpleITK is not installed.
    """
    image = read_itk(name, data)
    if image.GetDimension() != 3:
        raise CaseError(name, f"it has {image.GetDimension()} dimensions and no layers of segments.")
    keys = set(image.GetMetaDataKeys())
    values = np.atleast_3d(library("SimpleITK").GetArrayFromImage(image))
    layers = values[..., None] if values.ndim == 3 else values
    numbers = _segment_numbers(name, keys)
    fields = [
        {what: image.GetMetaData(f"Segment{i}_{what}") for what in _FIELDS if f"Segment{i}_{what}" in keys}
        for i in numbers
    ]
    masks = (_mask(f"{name} {f['Name']}", _segment(name, f, layers), affine_of_itk(image)) for f in fields)
    return _by_name(name, [f["Name"] for f in fields], masks, reference)


def _segment_numbers(name: str, keys: Iterable[str]) -> list[int]:
    """Return the numbers of the segments that a header describes."""
    parts = (key.removeprefix("Segment").partition("_") for key in keys if key.startswith("Segment"))
    numbers = sorted(int(number) for number, _, field in parts if field == "Name" and number.isdigit())
    if not numbers:
        raise CaseError(name, "its header names no segments; read it as a label map.")
    return numbers


def _segment(name: str, fields: Mapping[str, str], layers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return where a layer (Z, Y, X) of (Z, Y, X, layers) has the value of a segment."""
    layer, value = int(fields.get("Layer", 0)), int(fields.get("LabelValue", 1))
    if not 0 <= layer < layers.shape[-1]:
        raise CaseError(name, f"segment {fields['Name']!r} is in layer {layer} of {layers.shape[-1]}; mend the header.")
    return np.asarray(layers[..., layer] == value).astype(np.uint8)


def _mask(name: str, values: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> Volume:
    return Volume(name=name, values=values, affine=affine, slope=scalar(1), intercept=scalar(0))


def _by_name(name: str, names: list[str], masks: Iterable[Volume], reference: Volume) -> dict[str, Volume]:
    if twice := {label for label in names if names.count(label) > 1}:
        raise CaseError(name, f"several segments are named {', '.join(sorted(twice))}; give each its own name.")
    return {label: placed(labels_of(in_lps(mask)), reference) for label, mask in zip(names, masks, strict=True)}


def placed(mask: Volume, reference: Volume) -> Volume:
    """Return a label map, whose grid is a part of that of ``reference``, on the whole grid; 0 elsewhere.

    No value is interpolated: voxels must coincide. Parts outside of the reference are cut if they are 0.

    Raises:
        CaseError: spacing or direction differ, voxels do not coincide, or labels are outside.
    """
    shift_xyz = np.linalg.solve(reference.affine[:3, :3], mask.origin_mm - reference.origin_mm)
    start = np.rint(shift_xyz[::-1]).astype(int)
    source, target = _overlap(start, mask.values.shape, reference.values.shape)
    values = np.zeros(reference.values.shape, mask.values.dtype)
    values[target] = mask.values[source]
    affine = mask.affine.copy()
    affine[:3, 3] -= mask.affine[:3, :3] @ start[::-1]
    whole = replace(mask, values=values, affine=affine)
    check_same_grid(reference, whole, mask.name)
    lost = np.count_nonzero(mask.values) - np.count_nonzero(values)
    if lost:
        raise CaseError(mask.name, f"{lost} of its voxels are outside of the image {reference.name}: another image's?")
    return replace(whole, affine=reference.affine)


def _overlap(
    start: npt.NDArray[np.int_], inner: tuple[int, ...], outer: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where an array at ``start`` in another overlaps it: in the first, and in the second."""
    low = np.maximum(start, 0)
    high = np.maximum(np.minimum(start + inner, outer), low)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    return source, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
