"""Volumes from DICOM series, and the factor that turns a PET into standardised uptake values."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.preparation.extras import library
from promptseg.preparation.volumes import Matrix, Volume, in_lps

_SPACING_TOLERANCE = 0.02  # relative: positions are decimal text, often of two digits
_DIRECTION_TOLERANCE = 1e-3
_NEEDED = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True, eq=False)
class _Slice:
    """One slice of a series: ``along`` is its place on the normal of the series, ``step_mm`` a claimed thickness."""

    name: str
    pixels: npt.NDArray[Any]
    position: Matrix
    orientation: Matrix
    spacing: Matrix
    slope: float
    intercept: float
    step_mm: float
    series: str

    @property
    def normal(self) -> Matrix:
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def along(self) -> float:
        return float(self.position @ self.normal)


def read_dicom(name: str, data: bytes, *, pixels: bool = True) -> Any:
    """Return the `pydicom.Dataset` in a file, without its pixels on request.

    Raises:
        CaseError: it is not a DICOM file, or it is damaged.
        UnavailableError: pydicom is not installed.
    """
    pydicom = library("pydicom")
    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
    except Exception as error:  # pydicom raises anything on damaged bytes
        raise CaseError(
            name, f"it cannot be read as DICOM ({type(error).__name__}: {error}). Fetch the file again."
        ) from error


def read_series(name: str, files: Iterable[tuple[str, bytes]]) -> Volume:
    """Return the volume of a DICOM series of single-frame files, which may come in any order.

    Slices are sorted by their position along the normal of their planes, not by number or name. The rescale slope and
    intercept of each slice are kept beside its stored values, see `Volume`.

    Args:
        name: for messages.
        files: name and content of each file; files are read one after the other, so a generator saves memory.

    Raises:
        CaseError: a file that is no such slice, slices of several series, sizes, spacings or directions, two at one
            position, or a missing one.
        UnavailableError: pydicom is not installed.
    """
    slices = sorted((_slice(path, data) for path, data in files), key=lambda s: s.along)
    if not slices:
        raise CaseError(name, "the series has no files.")
    for other in slices[1:]:
        _check_alike(name, slices[0], other)
    _check_steps(name, slices)
    volume = Volume(
        name=name,
        values=np.stack([s.pixels for s in slices]),
        affine=_affine(name, slices),
        slope=np.array([s.slope for s in slices]).reshape(-1, 1, 1),
        intercept=np.array([s.intercept for s in slices]).reshape(-1, 1, 1),
    )
    return in_lps(volume)


def _slice(path: str, data: bytes) -> _Slice:
    dataset = read_dicom(path, data)
    gone = [tag for tag in _NEEDED if dataset.get(tag) in (None, "")]
    if gone:
        raise CaseError(path, f"it has no {', '.join(gone)}, so it is no slice of a volume; leave it out.")
    if int(dataset.get("NumberOfFrames") or 1) != 1 or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise CaseError(path, "it holds several frames or colours; a series is read from grey files of one slice each.")
    pixels = _pixels(path, dataset)
    return _Slice(
        name=path,
        pixels=pixels,
        position=_numbers(path, dataset, "ImagePositionPatient", 3),
        orientation=_numbers(path, dataset, "ImageOrientationPatient", 6),
        spacing=_numbers(path, dataset, "PixelSpacing", 2),
        slope=float(dataset.get("RescaleSlope") or 1),
        intercept=float(dataset.get("RescaleIntercept") or 0),
        step_mm=float(dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness") or 0),
        series=str(dataset.get("SeriesInstanceUID", "")),
    )


def _numbers(path: str, dataset: Any, tag: str, count: int) -> Matrix:
    values = np.array(dataset.get(tag), np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise CaseError(path, f"its {tag} is {values.tolist()}, not {count} numbers; mend the header.")
    return values


def _pixels(path: str, dataset: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # pydicom and its decoders raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "without a reason"
        raise CaseError(
            path,
            f"its pixels cannot be decoded ({type(error).__name__}: {reason}). The file was cut, or is compressed in a "
            "way that pydicom needs another package for: fetch it again, or decompress it (dcmdjpeg, gdcmconv --raw).",
        ) from error


def _check_alike(name: str, first: _Slice, other: _Slice) -> None:
    """Raise `CaseError` unless two slices can be of one volume."""
    comparisons = {
        "series": (first.series, other.series, first.series == other.series),
        "size": (first.pixels.shape, other.pixels.shape, first.pixels.shape == other.pixels.shape),
        "pixel spacing": (first.spacing, other.spacing, np.allclose(first.spacing, other.spacing, rtol=1e-3)),
        "orientation": (
            first.orientation,
            other.orientation,
            np.allclose(first.orientation, other.orientation, rtol=0, atol=_DIRECTION_TOLERANCE),
        ),
    }
    for what, (a, b, same) in comparisons.items():
        if not same:
            raise CaseError(
                name,
                f"its slices differ in {what}: {a} in {first.name}, {b} in {other.name}. Give one series without "
                "localisers.",
            )


def _check_steps(name: str, slices: Sequence[_Slice]) -> None:
    """Raise `CaseError` unless the slices, sorted, are at equal distances in one direction."""
    steps = np.diff([s.position for s in slices], axis=0)
    lengths = np.diff([s.along for s in slices])
    usual = float(np.median(lengths)) if len(lengths) else 0.0
    for (before, after), step, length in zip(itertools.pairwise(slices), steps, lengths, strict=True):
        between = f"between {before.name} (at {before.along:g} mm) and {after.name} (at {after.along:g} mm)"
        if length < 1e-3:
            raise CaseError(
                name, f"two slices are at one position, {before.name} and {after.name}: several phases or echoes?"
            )
        if abs(length - usual) > max(_SPACING_TOLERANCE * usual, 0.01):
            missing = round(length / usual) - 1
            problem = f"{missing} missing" if missing > 0 else "unequal distances"
            raise CaseError(
                name,
                f"its slices are {usual:g} mm apart, but {length:g} mm {between}: {problem}. Fetch the whole series.",
            )
        if not np.allclose(step, np.median(steps, axis=0), rtol=0, atol=max(_SPACING_TOLERANCE * usual, 0.01)):
            raise CaseError(name, f"its slices are shifted sideways {between}; they do not make one volume.")


def _affine(name: str, slices: Sequence[_Slice]) -> Matrix:
    """Return the affine of the stacked slices; DICOM's positions are in LPS already."""
    first, last = slices[0], slices[-1]
    if len(slices) > 1:
        step = (last.position - first.position) / (len(slices) - 1)
    elif first.step_mm > 0:
        step = first.step_mm * first.normal
    else:
        raise CaseError(name, "a single slice without SliceThickness does not say how thick it is; drop it.")
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]  # PixelSpacing is (between rows, between columns)
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine


# PET


def suv_factor(dataset: Any, name: str = "PET") -> float:
    """Return what the real values of a PET slice are multiplied with to get SUV by body weight, in g/ml.

    SUV = activity [Bq/ml] * weight [g] / (injected dose [Bq] * 2 ** (-t / half-life)), where t is the time from the
    injection to the start of the series if that is what the scanner corrected the decay to (DecayCorrection START), and
    0 if it is the injection itself (ADMIN). A series whose values are g/ml already has the factor 1.

    Source: QIBA, vendor-neutral pseudo-code for SUV calculation, "happy path only" (FDG-PET/CT profile); DICOM PS3.3
    C.8.9.1 for the attributes. Where the pseudo-code needs private tags of a vendor, this function refuses.

    Args:
        dataset: a `pydicom.Dataset` of any slice, its pixels are not needed.
        name: what an error calls the case.

    Raises:
        CaseError: an attribute is missing, or the series is corrected or stored in another way.
    """
    units = str(dataset.get("Units", ""))
    if units == "GML":
        return 1.0
    if units != "BQML":
        raise CaseError(name, f"its Units are {units!r}; SUV are computed from BQML, or read from GML.")
    weight_kg = _number(dataset, "PatientWeight", name)
    radio = (dataset.get("RadiopharmaceuticalInformationSequence") or [None])[0]
    if radio is None:
        raise CaseError(name, "it has no RadiopharmaceuticalInformationSequence, so its SUV cannot be computed.")
    dose = _number(radio, "RadionuclideTotalDose", name)
    half_life = _number(radio, "RadionuclideHalfLife", name)
    elapsed = _seconds_of_decay(dataset, radio, name)
    return weight_kg * 1000 / (dose * 2 ** (-elapsed / half_life))


def _number(dataset: Any, tag: str, name: str) -> float:
    value = dataset.get(tag)
    if value is None or value == "" or not float(value) > 0:
        raise CaseError(name, f"its {tag} is {value}, so its SUV cannot be computed.")
    return float(value)


def _seconds_of_decay(dataset: Any, radio: Any, name: str) -> float:
    correction = str(dataset.get("DecayCorrection", ""))
    if correction == "ADMIN":
        return 0.0
    if correction != "START" or "DECY" not in dataset.get("CorrectedImage", ()):
        raise CaseError(
            name,
            f"its DecayCorrection is {correction!r} and its CorrectedImage {dataset.get('CorrectedImage')!r}; SUV are "
            "computed where decay was corrected, to START or ADMIN.",
        )
    scan = _time(dataset.get("SeriesDate"), dataset.get("SeriesTime"), "SeriesDate and SeriesTime", name)
    acquired = _time(dataset.get("AcquisitionDate"), dataset.get("AcquisitionTime"), "AcquisitionTime", name)
    if scan > acquired:
        raise CaseError(
            name,
            f"its series time {scan} is after its acquisition time {acquired}: a derived series, which does not tell "
            "to what time its decay was corrected.",
        )
    elapsed = (scan - _injection(radio, scan, name)).total_seconds()
    if elapsed < 0:
        raise CaseError(name, f"its injection is {-elapsed:g} s after its series time, so its SUV cannot be computed.")
    return elapsed


def _injection(radio: Any, scan: datetime, name: str) -> datetime:
    """Return when the dose was given; its older attribute has no date: at most a day before the scan."""
    whole = str(radio.get("RadiopharmaceuticalStartDateTime") or "")
    if whole:
        return _time(whole[:8], whole[8:].partition("+")[0].partition("-")[0], "injection", name)
    day = scan.strftime("%Y%m%d")
    start = _time(day, radio.get("RadiopharmaceuticalStartTime"), "RadiopharmaceuticalStartTime", name)
    return start - timedelta(days=1) if start > scan else start


def _time(date: Any, time: Any, what: str, name: str) -> datetime:
    digits, _, fraction = str(time or "").partition(".")
    try:
        moment = datetime.strptime(f"{date}{digits:0<6}" if digits else "", "%Y%m%d%H%M%S")
    except ValueError:
        raise CaseError(name, f"its {what} is {date!r} {time!r}, so its SUV cannot be computed.") from None
    return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
