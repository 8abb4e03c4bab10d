"""DICOM SEG and Slicer segmentations are put on the grid of their image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from support.paths import SHARED

from promptseg.errors import CaseError
from promptseg.preparation.dicom import read_series
from promptseg.preparation.segments import close_tables, placed, read_dicom_seg, read_seg_nrrd
from promptseg.preparation.volumes import Volume, check_same_grid, read_labels, scalar

CT = SHARED / "data" / "ct_3slice_dcmqi" / "volumes"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files lie in a cache of the test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


def made(values: npt.NDArray[Any], origin: tuple[float, float, float] = (0, 0, 0), spacing: float = 1) -> Volume:
    """Return a volume of values in z, y, x order."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    return Volume(name="v", values=values, affine=affine, slope=scalar(1), intercept=scalar(0))


def ct_slice(z: float, iop: list[float], frame: str) -> Dataset:
    """Return a CT slice of 4 rows and 5 columns with all that a DICOM SEG copies from its source."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.1", "1.2.3", frame
    dataset.PatientID = dataset.StudyID = dataset.AccessionNumber = "p1"
    dataset.PatientName = "p1^"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.Modality, dataset.PositionReferenceIndicator = "CT", ""
    dataset.PixelSpacing, dataset.ImageOrientationPatient, dataset.SliceThickness = [0.5, 0.75], iop, 3
    dataset.ImagePositionPatient = (np.cross(iop[:3], iop[3:]) * z + [10, 20, 30]).tolist()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 4, 5, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = np.arange(20, dtype=np.int16).tobytes()
    return dataset


def written(dataset: Dataset) -> bytes:
    """Return a DICOM file."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def seg(sources: list[Dataset], masks: dict[str, npt.NDArray[Any]], kind: str = "BINARY") -> bytes:
    """Return a DICOM SEG of (slices, rows, columns) masks, written by highdicom."""
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(masks, 1)
    ]
    segmentation = Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(masks.values()), axis=-1),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    close_tables(segmentation)
    return written(segmentation)


# DICOM SEG


@pytest.mark.real
@pytest.mark.skipif(not CT.is_dir(), reason=f"no real DICOM series at {CT}")
def test_a_real_segmentation_is_read_back() -> None:
    """Label maps (NRRD) of a real series, written as DICOM SEG by highdicom, are read back equal."""
    paths = sorted(CT.glob("*.dcm"))
    image = read_series("ct", [(path.name, path.read_bytes()) for path in paths])
    masks = {name: read_labels(f"{name}.nrrd", (CT / f"{name}_seg.nrrd").read_bytes()) for name in ("heart", "liver")}
    sources = sorted((pydicom.dcmread(path) for path in paths), key=lambda d: float(d.ImagePositionPatient[2]))
    for source in sources:
        source.PatientName = "p1^"  # highdicom warns of names in one piece, and refuses an empty character set
        source.SpecificCharacterSet = "ISO_IR 100"
    arrays = {name: (mask.values > 0).astype(np.uint8) for name, mask in masks.items()}
    found = read_dicom_seg("seg.dcm", seg(sources, arrays), image)
    assert list(found) == ["heart", "liver"]
    for name, mask in found.items():
        check_same_grid(image, mask, name)
        np.testing.assert_array_equal(mask.values, arrays[name])


@pytest.mark.parametrize("iop", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 1, 0]])
def test_segments_lie_where_their_image_lies(iop: list[float]) -> None:
    """Axial, sagittal, coronal and mirrored: each marked voxel is the one of the image that was marked."""
    frame = generate_uid()
    sources = [ct_slice(3 * i, iop, frame) for i in range(6)]
    rng = np.random.default_rng(2)
    masks = {name: rng.integers(0, 2, (6, 4, 5), dtype=np.uint8) for name in ("tumour", "organ")}
    masks["tumour"][[0, 3]] = 0  # such planes are not stored
    image = read_series("ct", [(str(i), written(d)) for i, d in enumerate(sources)])
    found = read_dicom_seg("seg.dcm", seg(sources, masks), image)
    assert list(found) == ["tumour", "organ"]
    for name, mask in found.items():
        for dataset in sources:
            dataset.PixelData = masks[name][sources.index(dataset)].astype(np.int16).tobytes()
        expected = read_series("mask", [(str(i), written(d)) for i, d in enumerate(sources)])
        np.testing.assert_array_equal(mask.values, expected.values)


def test_what_is_no_dicom_seg() -> None:
    """Other files, fractions, and two segments of one name."""
    frame = generate_uid()
    sources = [ct_slice(3 * i, [1, 0, 0, 0, 1, 0], frame) for i in range(3)]
    image = read_series("ct", [(str(i), written(d)) for i, d in enumerate(sources)])
    for data in (b"hello", written(sources[0])):
        with pytest.raises(CaseError, match=r"case 'a/seg.dcm': it cannot be read as DICOM SEG \("):
            read_dicom_seg("a/seg.dcm", data, image)
    half = {"tumour": np.full((3, 4, 5), 0.5)}
    with pytest.raises(CaseError, match="fractions"):
        read_dicom_seg("seg.dcm", seg(sources, half, "FRACTIONAL"), image)
    file = pydicom.dcmread(io.BytesIO(seg(sources, {n: np.ones((3, 4, 5), np.uint8) for n in ("a", "b")})))
    file.SegmentSequence[1].SegmentLabel = "a"
    with pytest.raises(CaseError, match="several segments are named a; give each its own name"):
        read_dicom_seg("seg.dcm", written(file), image)


# Slicer


def slicer(layers: npt.NDArray[np.uint8], origin: str = "(0,0,0)", *fields: str) -> bytes:
    """Return a .seg.nrrd file of (Z, Y, X) or (Z, Y, X, layers)."""
    sizes = " ".join(map(str, layers.shape[::-1]))
    listed = layers.ndim == 4
    header = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {layers.ndim}",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        f"space directions: {'none ' if listed else ''}(1,0,0) (0,1,0) (0,0,1)",
        f"kinds: {'list ' if listed else ''}domain domain domain",
        "encoding: raw",
        f"space origin: {origin}",
        *fields,
    ]
    return "\n".join(header).encode() + b"\n\n" + layers.tobytes()


def test_segments_of_a_part_of_the_grid() -> None:
    """Slicer stores the smallest box around the segments; the rest of the image's grid is 0."""
    part = np.array([[[1, 2, 0], [0, 2, 1]]], np.uint8)
    fields = [f"Segment{i}_{k}:={v}" for i, n in enumerate(("Breast", "Dense tissue")) for k, v in _fields(n, 0, i + 1)]
    found = read_seg_nrrd("b.seg.nrrd", slicer(part, "(12,21,31)", *fields), made(np.zeros((3, 4, 6)), (10, 20, 30)))
    assert list(found) == ["Breast", "Dense tissue"]
    for value, mask in enumerate(found.values(), 1):
        expected = np.zeros((3, 4, 6), np.uint8)
        expected[1:2, 1:3, 2:5] = part == value
        np.testing.assert_array_equal(mask.values, expected)
        np.testing.assert_array_equal(mask.origin_mm, (10, 20, 30))


def test_segments_in_layers_may_overlap() -> None:
    """Each layer has values of its own; segments are in the order of their numbers, the tenth after the second."""
    layers = np.random.default_rng(1).integers(0, 2, (2, 3, 4, 2), np.uint8)
    fields = [f"Segment{i}_{k}:={v}" for i, layer in ((10, 1), (2, 0)) for k, v in _fields(f"s{i}", layer)]
    found = read_seg_nrrd("b.seg.nrrd", slicer(layers, "(0,0,0)", *fields), made(np.zeros((2, 3, 4))))
    assert list(found) == ["s2", "s10"]
    np.testing.assert_array_equal(found["s2"].values, layers[..., 0])
    np.testing.assert_array_equal(found["s10"].values, layers[..., 1])


def _fields(name: str, layer: int, value: int = 1) -> list[tuple[str, object]]:
    return [("Name", name), ("Layer", layer), ("LabelValue", value)]


def test_what_is_no_slicer_segmentation() -> None:
    """Without segments in the header, with one in a layer that is not there, or cut."""
    image, part = made(np.zeros((1, 2, 3))), np.ones((1, 2, 3), np.uint8)
    with pytest.raises(CaseError, match=r"case 'b.seg.nrrd': its header names no segments"):
        read_seg_nrrd("b.seg.nrrd", slicer(part), image)
    with pytest.raises(CaseError, match=r"segment 's' is in layer 1 of 1; mend the header"):
        read_seg_nrrd("b.seg.nrrd", slicer(part, "(0,0,0)", "Segment0_Name:=s", "Segment0_Layer:=1"), image)
    with pytest.raises(CaseError, match=r"case 'b.seg.nrrd': the volume cannot be read"):
        read_seg_nrrd("b.seg.nrrd", slicer(part, "(0,0,0)", "Segment0_Name:=s")[:-1], image)


# places


def test_parts_outside_are_cut_where_they_are_empty() -> None:
    """A mask may be larger than its image, its labels may not."""
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[1, 1, 1] = 7
    found = placed(made(mask, (-1, -1, -1)), made(np.zeros((1, 1, 5))))
    np.testing.assert_array_equal(found.values, [[[7, 0, 0, 0, 0]]])
    mask[0, 1, 1] = 1
    with pytest.raises(CaseError, match="1 of its voxels are outside of the image v"):
        placed(made(mask, (-1, -1, -1)), made(np.zeros((1, 1, 5))))
    with pytest.raises(CaseError, match="2 of its voxels are outside of the image v"):
        placed(made(mask, (-100, 50, 0)), made(np.zeros((1, 1, 5))))


def test_voxels_must_lie_on_voxels() -> None:
    """Nothing is interpolated in silence."""
    image, mask = made(np.zeros((4, 4, 4))), np.ones((2, 2, 2), np.uint8)
    with pytest.raises(CaseError, match=r"is not on the grid of the image v: origin"):
        placed(made(mask, (0.5, 0, 0)), image)
    with pytest.raises(CaseError, match=r"is not on the grid of the image v: spacing"):
        placed(made(mask, (0, 0, 0), 2), image)
