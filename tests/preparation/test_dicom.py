"""DICOM series become volumes, and PET series get their factor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from support.paths import SHARED

from promptseg.errors import CaseError
from promptseg.preparation.dicom import read_dicom, read_series, suv_factor

CT = SHARED / "data" / "ct_3slice_dcmqi" / "volumes"
AXIAL = [1, 0, 0, 0, 1, 0]


def sliced(position: list[float], pixels: npt.NDArray[Any] | None = None, **tags: Any) -> Dataset:
    """Return a slice of 4 rows and 5 columns."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [0.5, 0.75], AXIAL
    dataset.ImagePositionPatient = position
    dataset.SliceThickness = 3
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    array = np.arange(20, dtype=np.int16).reshape(4, 5) if pixels is None else pixels
    dataset.Rows, dataset.Columns = array.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(array.dtype == np.int16)
    dataset.PixelData = array.tobytes()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    """Return a DICOM file."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def files(*datasets: Dataset) -> list[tuple[str, bytes]]:
    """Return named files, 0.dcm first."""
    return [(f"{i}.dcm", written(dataset)) for i, dataset in enumerate(datasets)]


def refused(*datasets: Dataset) -> str:
    """Return why a series is refused."""
    with pytest.raises(CaseError) as caught:
        read_series("p1/ct", files(*datasets))
    return str(caught.value)


# series


@pytest.mark.real
@pytest.mark.skipif(not CT.is_dir(), reason=f"no real DICOM series at {CT}")
def test_a_real_series_agrees_with_simpleitk() -> None:
    """Its values, order and place, by GDCM; file names run against the positions."""
    paths = sorted(CT.glob("*.dcm"))
    volume = read_series("ct", [(path.name, path.read_bytes()) for path in paths])
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(CT)))
    image = reader.Execute()
    planes = np.stack([volume.plane(i) for i in range(3)])
    np.testing.assert_array_equal(planes, SimpleITK.GetArrayFromImage(image))
    assert volume.values.dtype == np.int16
    np.testing.assert_allclose(volume.origin_mm, image.GetOrigin())
    np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing()[::-1])


def test_slices_are_sorted_by_their_place() -> None:
    """From foot to head, whatever order the files come in, each with its own scale."""
    datasets = [
        sliced([10, 20, z], np.full((4, 5), value, np.uint16), RescaleSlope=slope, RescaleIntercept=-5)
        for z, value, slope in ((6, 3, 0.5), (0, 1, 2), (3, 2, 4))
    ]
    volume = read_series("pet", files(*datasets))
    assert volume.values.dtype == np.uint16
    assert volume.spacing_mm == (3, 0.5, 0.75)
    np.testing.assert_array_equal(volume.origin_mm, [10, 20, 0])
    assert [float(volume.plane(i)[0, 0]) for i in range(3)] == [1 * 2 - 5, 2 * 4 - 5, 3 * 0.5 - 5]


def test_a_sagittal_series_is_turned(tmp_path: Path) -> None:
    """Values and places agree with GDCM's, with slices in any order and in reverse direction."""
    rng = np.random.default_rng(1)
    sagittal = [0, 1, 0, 0, 0, -1]
    datasets = [
        sliced([x, -7, 90], rng.integers(-99, 99, (4, 5), np.int16), ImageOrientationPatient=sagittal)
        for x in (4.5, 0, 1.5, 3)
    ]
    volume = read_series("mr", files(*datasets))
    assert volume.values.shape == (4, 5, 4)
    assert volume.spacing_mm == (0.5, 0.75, 1.5)
    names = []
    for i in (3, 2, 1, 0):
        names.append(str(tmp_path / f"{i}.dcm"))
        Path(names[-1]).write_bytes(written(sorted(datasets, key=lambda d: d.ImagePositionPatient[0])[i]))
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(names), "LPS")
    np.testing.assert_array_equal(volume.values, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.origin_mm, image.GetOrigin())


def test_a_tilted_gantry_is_no_fault() -> None:
    """Slices that are shifted by the same step each make an oblique volume."""
    volume = read_series("ct", files(*[sliced([0, 0.5 * i, 3 * i]) for i in range(4)]))
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 0.5, 3])


def test_one_slice_is_a_volume() -> None:
    """As thick as it says, if it does."""
    assert read_series("ct", files(sliced([0, 0, 0]))).spacing_mm == (3, 0.5, 0.75)
    assert "does not say how thick it is" in refused(sliced([0, 0, 0], SliceThickness=None))


def test_missing_slices_are_counted() -> None:
    """With the two files beside the gap."""
    message = refused(*[sliced([0, 0, z]) for z in (0, 3, 6, 15, 18, 21)])
    assert "case 'p1/ct': its slices are 3 mm apart, but 9 mm between 2.dcm (at 6 mm) and 3.dcm (at 15 mm)" in message
    assert "2 missing. Fetch the whole series." in message
    assert "unequal distances" in refused(*[sliced([0, 0, z]) for z in (0, 3, 6, 8, 11)])


def test_slices_that_make_no_volume() -> None:
    """Two at one place, one shifted sideways, and those of other series, sizes, spacings or directions."""
    first = sliced([0, 0, 0])
    assert "two slices are at one position, 0.dcm and 1.dcm" in refused(first, sliced([0, 0, 0]), sliced([0, 0, 3]))
    assert "shifted sideways between 1.dcm" in refused(*[sliced([x, 0, 3 * i]) for i, x in enumerate((0, 0, 5, 5))])
    cases: dict[str, dict[str, Any]] = {
        "series": {"SeriesInstanceUID": "1.2.4"},
        "size": {"pixels": np.zeros((5, 5), np.int16)},
        "pixel spacing": {"PixelSpacing": [0.5, 0.8]},
        "orientation": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    }
    for what, tags in cases.items():
        assert f"its slices differ in {what}: " in refused(first, sliced([0, 0, 3], **tags))


def test_files_that_are_no_slices() -> None:
    """The file is named: not DICOM, without a place, in colours, or with pixels that cannot be decoded."""
    with pytest.raises(CaseError, match=r"case 'x.txt': it cannot be read as DICOM \(InvalidDicomError"):
        read_series("ct", [("x.txt", b"hello")])
    with pytest.raises(CaseError, match="the series has no files"):
        read_series("ct", [])
    gone = sliced([0, 0, 0])
    del gone.ImagePositionPatient
    assert "case '0.dcm': it has no ImagePositionPatient, so it is no slice of a volume" in refused(gone)
    assert "its PixelSpacing is 1.0, not 2 numbers" in refused(sliced([0, 0, 0], PixelSpacing=1))
    assert "several frames or colours" in refused(sliced([0, 0, 0], SamplesPerPixel=3))
    assert "its pixels cannot be decoded" in refused(sliced([0, 0, 0], PixelData=b"12"))


def test_headers_alone_can_be_read() -> None:
    """For what a data set must know of a file before it reads the series."""
    dataset = read_dicom("1.dcm", written(sliced([0, 0, 0], PatientID="p1")), pixels=False)
    assert dataset.PatientID == "p1"
    assert "PixelData" not in dataset


# SUV


def pet(**tags: Any) -> Dataset:
    """Return the header of a PET slice: 80 kg, 400 MBq of F-18 at 10:00, scanned at 11:00."""
    radio = Dataset()
    radio.RadionuclideTotalDose, radio.RadionuclideHalfLife = 400e6, 6586.2
    radio.RadiopharmaceuticalStartTime = "100000.00"
    dataset = Dataset()
    dataset.Units, dataset.DecayCorrection, dataset.CorrectedImage = "BQML", "START", ["DECY", "ATTN"]
    dataset.PatientWeight = 80
    dataset.SeriesDate = dataset.AcquisitionDate = "20200304"
    dataset.SeriesTime, dataset.AcquisitionTime = "110000", "110230"
    dataset.RadiopharmaceuticalInformationSequence = Sequence([radio])
    for tag, value in tags.items():
        target = radio if tag.startswith("Radio") and not tag.endswith("Sequence") else dataset
        setattr(target, tag, value)
    return dataset


def test_suv_by_body_weight() -> None:
    """A tissue that holds the dose, decayed for an hour, spread evenly over the body, has SUV 1."""
    decayed = 400e6 * 0.5 ** (3600 / 6586.2)
    assert suv_factor(pet()) * (decayed / 80_000) == pytest.approx(1)
    assert suv_factor(pet(DecayCorrection="ADMIN")) * (400e6 / 80_000) == pytest.approx(1)
    assert suv_factor(pet(Units="GML")) == 1
    fractions = pet(SeriesTime="110000.5", RadiopharmaceuticalStartTime="100000.5")
    assert suv_factor(fractions) == pytest.approx(suv_factor(pet()))


def test_midnight_may_lie_between_injection_and_scan() -> None:
    """An injection time without a date is the last one before the scan; one with a date is what it says."""
    late = pet(SeriesTime="003000", AcquisitionTime="003000", RadiopharmaceuticalStartTime="233000")
    assert suv_factor(late) == pytest.approx(suv_factor(pet()))
    dated = pet(RadiopharmaceuticalStartDateTime="20200304100000.00+0100", RadiopharmaceuticalStartTime="")
    assert suv_factor(dated) == pytest.approx(suv_factor(pet()))


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"Units": "CNTS"}, "its Units are 'CNTS'; SUV are computed from BQML"),
        ({"PatientWeight": None}, "its PatientWeight is None"),
        ({"PatientWeight": 0}, "its PatientWeight is 0"),
        ({"RadionuclideTotalDose": ""}, "its RadionuclideTotalDose is"),
        ({"RadiopharmaceuticalInformationSequence": Sequence([])}, "has no RadiopharmaceuticalInformationSequence"),
        ({"DecayCorrection": "NONE"}, "its DecayCorrection is 'NONE'"),
        ({"CorrectedImage": ["ATTN"]}, r"its CorrectedImage 'ATTN'"),
        ({"SeriesTime": "120000"}, "its series time .* is after its acquisition time"),
        ({"SeriesTime": ""}, "its SeriesDate and SeriesTime is '20200304' ''"),
        ({"RadiopharmaceuticalStartDateTime": "20200304113000"}, "its injection is 1800 s after its series time"),
    ],
)
def test_what_suv_cannot_be_computed_from(tags: dict[str, Any], problem: str) -> None:
    """The attribute and its value are named; nothing is guessed."""
    with pytest.raises(CaseError, match=rf"case 'p1': .*{problem}"):
        suv_factor(pet(**tags), "p1")
