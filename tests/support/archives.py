"""Folders in the layouts in which the owners of data sets publish them, built from any images and masks.

Each builder of `BUILDERS` writes files below a folder and returns what a preparation must find in them: `Expected` by
case id. `synthetic` draws tiny contents that always exist; `real` takes real medical images where they lie beside the
checkout. `found` reads a folder as a preparation does.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from promptseg.preparation.cases import Slice
from promptseg.preparation.segments import close_tables
from promptseg.preparation.tree import open_tree
from promptseg.registry.entries import build
from promptseg.registry.references import resolve
from promptseg.specs import DatasetSpec
from support.paths import SHARED

DATA = SHARED / "data"

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Content:
    """An image, or a volume (Z, Y, X) in LPS, with its label map.

    Attributes:
        image: values as they are stored.
        labels: label map of the same size.
        spacing_mm: of a volume: z, y, x.
        pet: SUV on the same grid, for PET/CT, whose image is the CT.
    """

    image: Array
    labels: Array
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.25)
    pet: Array | None = None


@dataclass(frozen=True, eq=False)
class Expected:
    """What a preparation must make of a case."""

    image: Array
    labels: Array
    subject_id: str | None
    spacing_mm: tuple[float, float] | None = None


Cases = dict[str, Expected]


@functools.cache
def spec_of(name: str) -> DatasetSpec:
    """Return a registered data set."""
    return build().dataset(name)


def found(spec: DatasetSpec, source: Path) -> dict[str, Slice]:
    """Return the cases that the first fitting layout of a data set finds, those without a label left out."""
    with open_tree(source) as tree:
        for layout in spec.layouts:
            if units := resolve(layout.read)(tree, layout.options):
                assert len({unit.name for unit in units}) == len(units)
                assert {path for unit in units for path in unit.paths} <= set(tree.paths())
                slices = [one for unit in units for one in unit.read()]
                assert len({one.case_id for one in slices}) == len(slices)
                return {one.case_id: one for one in slices if one.labels.any()}
    return {}


# --- files --------------------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> Path:
    """Write a file, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_picture(path: Path, pixels: Array) -> Path:
    """Write (H, W) or (H, W, 3) uint8 in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_nifti(path: Path, values: Array, spacing_mm: Sequence[float], *, flipped: bool = False) -> Path:
    """Write a volume (Z, Y, X) in LPS; ``flipped`` stores it from left to right and back to front (RAS)."""
    import nibabel

    z, y, x = spacing_mm
    stored = values[:, ::-1, ::-1] if flipped else values
    affine = np.diag([x, y, z, 1.0] if flipped else [-x, -y, z, 1.0])
    if flipped:
        affine[:2, 3] = [-(values.shape[2] - 1) * x, -(values.shape[1] - 1) * y]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.ascontiguousarray(stored.T), affine).to_filename(path)
    return path


def zipped(folder: Path, target: Path) -> Path:
    """Pack a folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return target


def black_and_white(labels: Array) -> Array:
    """Return a mask of 0 and 255."""
    return np.where(labels > 0, 255, 0).astype(np.uint8)


# --- contents -----------------------------------------------------------------------------------------------


def synthetic(kind: str, count: int = 2) -> list[Content]:
    """Return tiny contents of a kind: ``grey``, ``rgb``, ``volume`` (labels 1 and 2), ``organ`` (1) or ``pet``."""
    return [_drawn(kind, number) for number in range(count)]


def _drawn(kind: str, number: int) -> Content:
    rng = np.random.default_rng(number)
    if kind in ("grey", "rgb"):
        hw = (20 + number, 24)
        labels = np.zeros(hw, np.uint8)
        labels[2:9, 3 : 10 + number] = 1
        labels[12:17, 13:20] = 1
        return Content(rng.integers(0, 256, hw if kind == "grey" else (*hw, 3), dtype=np.uint8), labels)
    shape = (4, 9 + number, 11)
    labels = np.zeros(shape, np.uint8)
    labels[1:, 1:6, 2:8] = 1
    labels[2, 2:5, 3 + number : 6] = 2
    values = rng.integers(-1000, 1500, shape).astype(np.int16)
    if kind in ("volume", "organ"):
        return Content(values, labels if kind == "volume" else np.minimum(labels, 1))
    return Content(values, np.minimum(labels, 1), pet=rng.uniform(0, 20, shape).astype(np.float32))


def real(name: str, count: int = 3) -> list[Content]:
    """Return real images of a folder of `DATA` with their masks."""
    masks = sorted((DATA / name / "masks").glob("*.png"))[:count]
    images = [DATA / name / "images" / path.name for path in masks]
    return [
        Content(np.array(Image.open(image)), np.array(Image.open(mask)))
        for image, mask in zip(images, masks, strict=True)
    ]


def real_volume(name: str, image: str, mask: str, pet: str | None = None) -> Content:
    """Return a real volume of a folder of `DATA` with its mask, and with the PET that lies on its grid."""
    from promptseg.preparation.volumes import read_labels, read_volume, resample_like

    folder = DATA / name / "volumes"
    volume = read_volume(image, (folder / image).read_bytes())
    labels = read_labels(mask, (folder / mask).read_bytes())
    suv = None if pet is None else resample_like(read_volume(pet, (folder / pet).read_bytes()), volume, "linear").values
    values = np.stack([volume.plane(z) for z in range(len(volume.values))])
    return Content(values, np.ascontiguousarray(labels.values), volume.spacing_mm, suv)


# --- what must come out -------------------------------------------------------------------------------------


def stretched(values: Array, low: float, high: float) -> Array:
    """Return what an intensity rule makes of the range ``low`` to ``high``, written down here a second time."""
    return np.round(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def mri(values: Array) -> Array:
    """Return an MRI volume between its percentiles 0.5 and 99.5, zeros apart."""
    some = values[values != 0].astype(np.float32)
    return stretched(values.astype(np.float32), *np.percentile(some, [0.5, 99.5]))


def abdomen(values: Array) -> Array:
    """Return a CT in the window of -160 to 240 HU."""
    return stretched(values, -160, 240)


def sliced(case: str, subject: str | None, image: Array, labels: Array, spacing_mm: Sequence[float]) -> Cases:
    """Return the expected slices of a volume, those without a label left out."""
    return {
        f"{case}_z{z:03}": Expected(image[z], labels[z], subject, (spacing_mm[1], spacing_mm[2]))
        for z in range(len(labels))
        if labels[z].any()
    }


# --- pictures -----------------------------------------------------------------------------------------------


def pieces(labels: Array) -> list[Array]:
    """Return a mask of each connected piece."""
    import cv2

    count, numbers = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=8)
    return [numbers == number for number in range(1, count)]


def busi(root: Path, contents: Sequence[Content]) -> Cases:
    """Write BUSI: a mask file for each piece of an object, and an image of the class normal without any object."""
    cases = {}
    for number, content in enumerate(contents, 1):
        kind = "malignant" if number % 2 else "benign"
        folder = root / "Dataset_BUSI_with_GT" / kind
        write_picture(folder / f"{kind} ({number}).png", content.image)
        for position, piece in enumerate(pieces(content.labels)):
            suffix = f"_{position}" if position else ""
            write_picture(folder / f"{kind} ({number})_mask{suffix}.png", black_and_white(piece))
        cases[f"{kind}_{number:03}"] = Expected(content.image, content.labels > 0, None)
    blank = np.zeros((8, 9), np.uint8)
    write_picture(root / "Dataset_BUSI_with_GT/normal/normal (1).png", blank + 9)
    write_picture(root / "Dataset_BUSI_with_GT/normal/normal (1)_mask.png", blank)
    return cases


def chest(root: Path, contents: Sequence[Content]) -> Cases:
    """Write Montgomery, with a mask for each lung, and Shenzhen, with one image that nobody drew masks for."""
    cases = {}
    montgomery, shenzhen = root / "NLM-MontgomeryCXRSet/MontgomerySet", root / "ChinaSet_AllFiles/ChinaSet_AllFiles"
    for number, content in enumerate(contents, 1):
        white = black_and_white(content.labels)
        middle = white.shape[1] // 2
        halves = {side: white.copy() for side in ("leftMask", "rightMask")}
        halves["leftMask"][:, :middle] = 0
        halves["rightMask"][:, middle:] = 0
        name = f"MCUCXR_{number:04}_0"
        write_picture(montgomery / f"CXR_png/{name}.png", content.image)
        for side, half in halves.items():
            write_picture(montgomery / f"ManualMask/{side}/{name}.png", half)
        cases[name] = Expected(content.image, content.labels > 0, name)
        name = f"CHNCXR_{number:04}_1"
        write_picture(shenzhen / f"CXR_png/{name}.png", content.image)
        write_picture(root / f"shcxr-lung-mask/mask/mask/{name}_mask.png", white)
        cases[name] = Expected(content.image, content.labels > 0, name)
    write_picture(shenzhen / "CXR_png/CHNCXR_0999_0.png", contents[0].image)
    return cases


def nerve(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the competition: TIFF pairs of subjects, one with an empty mask, and a test image."""
    cases = {}
    for number, content in enumerate(contents, 1):
        write_picture(root / f"train/{number}_{number + 9}.tif", content.image)
        write_picture(root / f"train/{number}_{number + 9}_mask.tif", black_and_white(content.labels))
        cases[f"{number:02}_{number + 9:03}"] = Expected(content.image, content.labels > 0, f"{number:02}")
    write_picture(root / "train/1_99.tif", contents[0].image)
    write_picture(root / "train/1_99_mask.tif", black_and_white(contents[0].labels * 0))
    write_picture(root / "test/1.tif", contents[0].image)
    return cases


def ovary(root: Path, contents: Sequence[Content]) -> Cases:
    """Write MMOTU: JPEG images, binary and coloured masks, a copy of a mask, and the folder of the other modality."""
    cases = {}
    for number, content in enumerate(contents, 7):
        image = write_picture(root / f"MMOTU/OTU_2d/images/{number}.JPG", content.image)
        folder = root / "MMOTU/OTU_2d/annotations"
        for suffix in ("_binary", "_binary_binary"):
            write_picture(folder / f"{number}{suffix}.PNG", black_and_white(content.labels))
        write_picture(folder / f"{number}.PNG", np.stack([content.labels * 90] * 3, axis=-1).astype(np.uint8))
        cases[f"{number:04}"] = Expected(np.array(Image.open(image)), content.labels > 0, None)
    write_picture(root / "MMOTU/OTU_3d/images/7.JPG", contents[0].image)
    return cases


def muscle(root: Path, contents: Sequence[Content]) -> Cases:
    """Write an archive in an archive: two muscles, one image without a mask, and a model's own copies."""
    cases = {}
    inner = root / "inner/Polito-Radboud-DeepLearningUS"
    for number, content in enumerate(contents):
        place = ("BB/Healthy", "TA/Pathological")[number % 2]
        write_picture(inner / place / f"Images/img_{number}.png", content.image)
        write_picture(inner / place / f"Masks/img_{number}.png", content.labels)
        cases[f"{place.replace('/', '_')}_img_{number}"] = Expected(content.image, content.labels > 0, None)
    write_picture(inner / "GM/Healthy/Images/nobody.png", contents[0].image)
    write_picture(inner / "Segmentation_models/data/MuscleCNN/train/img_0.png", contents[0].image)
    zipped(root / "inner", root / "DATASET_10.1016j.compbiomed.2021.104623.zip")
    for path in sorted((root / "inner").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return cases


def kidney(root: Path, contents: Sequence[Content]) -> Cases:
    """Write CT2US as it is at Kaggle, masks with grey edges."""
    cases = {}
    for number, content in enumerate(contents, 9):
        mask = black_and_white(content.labels)
        mask[0] = 100  # an edge below half
        write_picture(root / f"slice/slice/{number}.png", content.image)
        write_picture(root / f"mask/mask/{number}.png", mask)
        cases[f"{number:04}"] = Expected(content.image, content.labels > 0, None)
    return cases


# --- volumes ------------------------------------------------------------------------------------------------


def decathlon(task: str, prefix: str, picture: Callable[[Array], Array]) -> Callable[[Path, Sequence[Content]], Cases]:
    """Return a builder of a task of the Medical Segmentation Decathlon, with a test image without labels."""

    def builder(root: Path, contents: Sequence[Content]) -> Cases:
        cases: Cases = {}
        for number, content in enumerate(contents, 2):
            name = f"{prefix}_{number:03}"
            for folder, values in (("imagesTr", content.image), ("labelsTr", content.labels)):
                write_nifti(
                    root / task / folder / f"{name}.nii.gz", values, content.spacing_mm, flipped=number % 2 == 0
                )
            cases |= sliced(name, name, picture(content.image), content.labels, content.spacing_mm)
        write_nifti(root / task / "imagesTs" / f"{prefix}_001.nii.gz", contents[0].image, (1, 1, 1))
        training = [
            {"image": f"./imagesTr/{prefix}_{number:03}.nii.gz", "label": f"./labelsTr/{prefix}_{number:03}.nii.gz"}
            for number in range(2, 2 + len(contents))
        ]
        write(root / task / "dataset.json", json.dumps({"training": training}).encode())
        return cases

    return builder


def spine(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the grey matter challenge: three raters of four agree, the fourth sees nothing; a test subject."""
    cases: Cases = {}
    for number, content in enumerate(contents, 1):
        name = f"site{number}-sc0{number}"
        write_nifti(root / f"{name}-image.nii.gz", content.image, content.spacing_mm)
        for rater in (1, 2, 3, 4):
            drawn = content.labels if rater < 4 else content.labels * 0
            write_nifti(root / f"{name}-mask-r{rater}.nii.gz", drawn, content.spacing_mm)
        write(root / f"{name}-levels.txt", b"1,C3")
        cases |= sliced(name, name, mri(content.image), content.labels, content.spacing_mm)
    write_nifti(root / "site1-sc11-image.nii.gz", contents[0].image, (1, 1, 1))
    return cases


def brats(edition: str) -> Callable[[Path, Sequence[Content]], Cases]:
    """Return a builder of case folders of BraTS, editions ``2021`` and ``2023``."""
    names = {
        "2021": ("BraTS2021_{:05}", "BraTS2021_{:05}", "_t1ce _flair _t1 _t2", "_seg"),
        "2023": ("BraTS-GLI-{:05}-000", "BraTS-GLI-{:05}", "-t1c -t2f -t1n -t2w", "-seg"),
    }[edition]

    def builder(root: Path, contents: Sequence[Content]) -> Cases:
        cases: Cases = {}
        for number, content in enumerate(contents):
            case, subject = names[0].format(number), names[1].format(number)
            for contrast in names[2].split():
                values = content.image if contrast.startswith(("_t1ce", "-t1c")) else content.image * 0
                write_nifti(root / f"Data/{case}/{case}{contrast}.nii.gz", values, content.spacing_mm)
            write_nifti(root / f"Data/{case}/{case}{names[3]}.nii.gz", content.labels, content.spacing_mm)
            cases |= sliced(case, subject, mri(content.image), content.labels, content.spacing_mm)
        return cases

    return builder


def lits(root: Path, contents: Sequence[Content]) -> Cases:
    """Write LiTS in its two batches, not compressed."""
    cases: Cases = {}
    for number, content in enumerate(contents):
        batch = root / f"Training Batch {number % 2 + 1}"
        write_nifti(batch / f"volume-{number}.nii", content.image, content.spacing_mm)
        write_nifti(batch / f"segmentation-{number}.nii", content.labels, content.spacing_mm)
        name = f"volume_{number:03}"
        cases |= sliced(name, name, abdomen(content.image), content.labels, content.spacing_mm)
    return cases


def ct_org(root: Path, contents: Sequence[Content]) -> Cases:
    """Write CT-ORG: volumes from 20 on, of which only the first is a test volume."""
    for number, content in enumerate(contents, 20):
        write_nifti(root / f"volumes/volume-{number}.nii.gz", content.image, content.spacing_mm)
        write_nifti(root / f"labels/labels-{number}.nii.gz", content.labels, content.spacing_mm)
    image = stretched(contents[0].image, -1000, 1000)
    return sliced("volume_020", "volume_020", image, contents[0].labels, contents[0].spacing_mm)


def hip(root: Path, contents: Sequence[Content]) -> Cases:
    """Write X-rays as volumes of one plane, of float from 0 to 1."""
    cases = {}
    for number, content in enumerate(contents, 3):
        values = (content.image / 255).astype(np.float32)
        for folder, plane in (("images", values), ("labels", content.labels)):
            write_nifti(root / folder / f"{folder[:-1]}_{number}.nii.gz", plane[None], (1, 1, 1))
        shown = stretched(values, values.min(), values.max())
        cases[f"image_{number:03}"] = Expected(shown, content.labels, None, (1, 1))
    return cases


def _pet_ct(content: Content) -> Array:
    assert content.pet is not None
    red, rest = stretched(content.pet, 0, 10), abdomen(content.image)
    return np.stack([red, rest, rest], axis=-1)


def autopet(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the NIfTI form of autoPET."""
    cases: Cases = {}
    for number, content in enumerate(contents):
        assert content.pet is not None
        folder = root / f"FDG-PET-CT-Lesions/PETCT_0{number}a/01-01-2000-NA"
        for name, values in (("CTres", content.image), ("SUV", content.pet), ("SEG", content.labels)):
            write_nifti(folder / f"{name}.nii.gz", values, content.spacing_mm)
        subject = f"PETCT_0{number}a"
        cases |= sliced(f"{subject}_01-01-2000-NA", subject, _pet_ct(content), content.labels, content.spacing_mm)
    return cases


def autopet_lite(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the three archives of autoPET III, with a PSMA study among the FDG ones."""
    cases: Cases = {}
    for number, content in enumerate([*contents, contents[0]]):
        assert content.pet is not None
        case = f"fdg_{number}a_01-01-2000" if number < len(contents) else "psma_9z_01-01-2000"
        files = {
            "Images-CT": (f"{case}_0000", content.image),
            "Images-PET": (f"{case}_0001", content.pet),
            "Masks": (case, content.labels),
        }
        for folder, (name, values) in files.items():
            write_nifti(root / "loose" / folder / f"{name}.nii.gz", values, content.spacing_mm)
        if number < len(contents):
            cases |= sliced(case, f"{number}a", _pet_ct(content), content.labels, content.spacing_mm)
    for folder in ("Images-CT", "Images-PET", "Masks"):
        (root / "loose" / folder).rename(root / folder)
        zipped(root / folder, root / f"{folder}.zip")
        for path in (root / folder).iterdir():
            path.unlink()
        (root / folder).rmdir()
    (root / "loose").rmdir()
    return cases


# --- DICOM --------------------------------------------------------------------------------------------------


def dicom_file(values: Array, z: int, content: Content, tags: Mapping[str, Any]) -> bytes:
    """Return a DICOM file of an axial plane (H, W) at number ``z`` of a volume, uint16 or int16."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    depth, height, width = content.spacing_mm
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    common = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame"]),
        "PatientID": "anonymous",
        "PatientName": "Nobody^",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyID": "1",
        "StudyDate": "20000101",
        "StudyTime": "000000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "SeriesNumber": 1,
        "InstanceNumber": z + 1,
        "ImagePositionPatient": [0, 0, z * depth],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [height, width],
        "SliceThickness": depth,
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(values.dtype == np.int16),
        "PixelData": np.ascontiguousarray(values).tobytes(),
    }
    for tag, value in {**common, **tags}.items():
        setattr(dataset, tag, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write_series(folder: Path, values: Array, content: Content, tags: Mapping[str, Any]) -> list[Path]:
    """Write a DICOM series of a volume (Z, Y, X), its files in no order."""
    from pydicom.uid import generate_uid

    series = {"SeriesInstanceUID": generate_uid(entropy_srcs=[str(folder)]), **tags}
    return [
        write(folder / f"1-{(z * 7 + 3) % len(values):02}.dcm", dicom_file(plane, z, content, series))
        for z, plane in enumerate(values)
    ]


def write_dicom_seg(path: Path, sources: Sequence[Path], masks: Mapping[str, Array]) -> Path:
    """Write a DICOM SEG of the named masks (Z, Y, X), planes in the order of ``sources``."""
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, 1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(source) for source in sources],
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        omit_empty_frames=True,
    )
    close_tables(segmentation)
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path


def write_seg_nrrd(path: Path, masks: Mapping[str, Array], spacing_mm: Sequence[float]) -> Path:
    """Write a 3D Slicer segmentation of the named masks (Z, Y, X), which do not overlap, in one layer."""
    itk: Any = importlib.import_module("SimpleITK")  # it ships no types
    values = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, mask in enumerate(masks.values(), 1):
        values[mask > 0] = number
    image = itk.GetImageFromArray(values)
    image.SetSpacing([float(value) for value in spacing_mm[::-1]])
    for number, name in enumerate(masks):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
        image.SetMetaData(f"Segment{number}_Layer", "0")
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.WriteImage(image, str(path))
    return path


def prostate(root: Path, contents: Sequence[Content]) -> Cases:
    """Write I2CVB: a series T2W and one of masks for each patient; the first mask series lacks its second plane."""
    cases: Cases = {}
    for number, content in enumerate(contents):
        scanner = ("GE", "Siemens")[number % 2]
        folder = root / scanner / f"Patient {number + 41}"
        values, labels = _unsigned(content.image), (content.labels > 0).astype(np.uint16)
        write_series(folder / "T2W", values, content, {"Modality": "MR"})
        drawn = write_series(folder / "GT/prostate", labels * 255, content, {"Modality": "MR"})
        shown = np.minimum(labels, 1).astype(np.uint8)
        if number == 0:
            drawn[1].unlink()
            shown[1] = 0
        name = f"{scanner}_{number + 41}"
        cases |= sliced(name, name, mri(values), shown, content.spacing_mm)
    return cases


def _unsigned(values: Array) -> Array:
    return (values.astype(np.int32) - int(values.min())).astype(np.uint16)


PET_TAGS = {
    "Modality": "PT",
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["DECY", "ATTN"],
    "PatientWeight": 70,
    "SeriesDate": "20000101",
    "SeriesTime": "110000",
    "AcquisitionDate": "20000101",
    "AcquisitionTime": "110000",
}


def tcia_pet(root: Path, contents: Sequence[Content]) -> Cases:
    """Write studies as the archive does: CT, PET in Bq/ml an hour after the injection, and a segmentation."""
    import pydicom

    cases: Cases = {}
    dose = pydicom.Dataset()
    dose.RadiopharmaceuticalStartTime = "100000"
    dose.RadionuclideTotalDose = 3.5e8
    dose.RadionuclideHalfLife = 6586.2
    factor = 70_000 / (3.5e8 * 2 ** (-3600 / 6586.2))  # SUV of one Bq/ml
    for number, content in enumerate(contents):
        assert content.pet is not None
        study = root / f"FDG-PET-CT-Lesions/PETCT_{number}b/01-02-2001-PET"
        write_series(study / "2.0-CT-7", content.image.astype(np.int16), content, {"Modality": "CT"})
        becquerel = np.round(content.pet / factor).astype(np.uint16)
        tags = {**PET_TAGS, "RadiopharmaceuticalInformationSequence": [dose]}
        sources = write_series(study / "3.0-PET corr-9", becquerel, content, tags)
        write_dicom_seg(study / "4.0-Segmentation-1/1-1.dcm", sources, {"Lesion": content.labels})
        fused = _pet_ct(replace(content, pet=(becquerel * factor).astype(np.float32)))
        name = f"PETCT_{number}b"
        cases |= sliced(f"{name}_01-02-2001-PET", name, fused, content.labels, content.spacing_mm)
    return cases


def duke_2d(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the 2D supplement: breast in one segmentation, FGT in another, of other planes than each other."""
    cases: Cases = {}
    for number, content in enumerate(contents, 2):
        name = f"Breast_MRI_{number:03}"
        study, values = root / f"Duke-Breast-Cancer-MRI/{name}/01-01-1990-NA", _unsigned(content.image)
        sources = write_series(study / "5.0-ax dyn pre-1", values, content, {"Modality": "MR"})
        breast, fgt = (content.labels > 0).astype(np.uint8), (content.labels == 2).astype(np.uint8)
        breast[:2] = 0
        write_dicom_seg(study / "6.0-seg-1/1-1.dcm", sources, {"Breast": breast})
        write_dicom_seg(study / "7.0-seg-2/1-1.dcm", sources, {"Dense tissue": fgt})
        cases |= sliced(f"{name}_breast", name, mri(values), breast, content.spacing_mm)
        cases |= sliced(f"{name}_fgt", name, mri(values), fgt * np.uint8(2), content.spacing_mm)
    return cases


def duke_3d(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the 3D supplement: breast, and FGT with a vessel in it; a later phase lies beside the series."""
    cases: Cases = {}
    for number, content in enumerate(contents, 2):
        name = f"Breast_MRI_{number:03}"
        study, values = root / f"Duke-Breast-Cancer-MRI/{name}/01-01-1990-NA", _unsigned(content.image)
        write_series(study / "5.0-ax dyn pre-1", values, content, {"Modality": "MR"})
        write_series(study / "6.0-ax dyn 1st pass-2", values, content, {"Modality": "MR"})
        vessel = (content.labels == 2) & (np.arange(content.labels.shape[2]) == 5)
        fgt = (content.labels == 2) & ~vessel
        folder = root / f"Segmentation_Masks_NRRD/{name}"
        write_seg_nrrd(
            folder / f"Segmentation_{name}_Breast.seg.nrrd", {"Segment_1": content.labels}, content.spacing_mm
        )
        both = {"Dense": fgt, "Vessels": vessel}
        write_seg_nrrd(folder / f"Segmentation_{name}_Dense_and_Vessels.seg.nrrd", both, content.spacing_mm)
        labels = np.where(vessel, 3, np.where(fgt, 2, content.labels > 0)).astype(np.uint8)
        cases |= sliced(name, name, mri(values), labels, content.spacing_mm)
    return cases


# --- Parquet ------------------------------------------------------------------------------------------------


def png(pixels: Array) -> bytes:
    """Return a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write a Parquet file with the Hub's struct of bytes and path for images."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(dict(columns)), path)
    return path


def kidney_rows(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the Hub's form of CT2US: rows with a number."""
    columns: dict[str, Sequence[Any]] = {
        "id": list(range(2, 2 + len(contents))),
        "image": [{"bytes": png(content.image), "path": None} for content in contents],
        "mask": [{"bytes": png(black_and_white(content.labels)), "path": None} for content in contents],
    }
    write_parquet(root / "data/train-00000-of-00001.parquet", columns)
    return {f"{i:04}": Expected(c.image, c.labels > 0, None) for i, c in enumerate(contents, 2)}


def busi_rows(root: Path, contents: Sequence[Content]) -> Cases:
    """Write the Hub's form of BUSI: rows with class and image id, the class normal among them, in two files."""
    rows = [
        {
            "image": {"bytes": png(content.image), "path": None},
            "mask": {"bytes": png(black_and_white(content.labels)), "path": None},
            "class_label": kind,
            "image_id": f"{kind} ({number})",
        }
        for number, content in enumerate(contents, 1)
        for kind in ("benign", "normal")
    ]
    for shard in (0, 1):
        columns = {key: [row[key] for row in rows[shard::2]] for key in rows[0]}
        write_parquet(root / f"data/train-{shard:05}-of-00002.parquet", columns)
    return {f"benign_{i:03}": Expected(c.image, c.labels > 0, None) for i, c in enumerate(contents, 1)}


# --- all ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Builder:
    """How a layout is built.

    Attributes:
        dataset: registry name.
        layout: position among the layouts of the data set.
        kind: of contents, see `synthetic`.
        build: writes the files below a folder and returns what must be found in them.
    """

    dataset: str
    layout: int
    kind: str
    build: Callable[[Path, Sequence[Content]], Cases]


BUILDERS: tuple[Builder, ...] = (
    Builder("mri_spine", 0, "volume", spine),
    Builder("mri_heart", 0, "organ", decathlon("Task02_Heart", "la", mri)),
    Builder("mri_prostate", 0, "volume", prostate),
    Builder("mri_brain", 0, "volume", brats("2021")),
    Builder("mri_brain_brats2023", 0, "volume", brats("2023")),
    Builder("mri_breast", 0, "volume", duke_2d),
    Builder("mri_breast_3d", 0, "volume", duke_3d),
    Builder("xray_chest", 0, "grey", chest),
    Builder("xray_hip", 0, "grey", hip),
    Builder("us_breast", 0, "grey", busi),
    Builder("us_breast", 1, "grey", busi_rows),
    Builder("us_kidney", 0, "grey", kidney_rows),
    Builder("us_kidney", 1, "grey", kidney),
    Builder("us_muscle", 0, "grey", muscle),
    Builder("us_nerve", 0, "grey", nerve),
    Builder("us_ovarian_tumor", 0, "rgb", ovary),
    Builder("ct_colon", 0, "organ", decathlon("Task10_Colon", "colon", abdomen)),
    Builder("ct_hepatic_vessel", 0, "volume", decathlon("Task08_HepaticVessel", "hepaticvessel", abdomen)),
    Builder("ct_pancreas", 0, "volume", decathlon("Task07_Pancreas", "pancreas", abdomen)),
    Builder("ct_spleen", 0, "organ", decathlon("Task09_Spleen", "spleen", abdomen)),
    Builder("ct_liver", 0, "volume", lits),
    Builder("ct_liver_msd", 0, "volume", decathlon("Task03_Liver", "liver", abdomen)),
    Builder("ct_organ", 0, "volume", ct_org),
    Builder("pet_whole_body", 0, "pet", autopet_lite),
    Builder("pet_whole_body", 1, "pet", autopet),
    Builder("pet_whole_body", 2, "pet", tcia_pet),
)


def builder_of(dataset: str, layout: int = 0) -> Builder:
    """Return the builder of a layout."""
    return next(one for one in BUILDERS if (one.dataset, one.layout) == (dataset, layout))


def check(cases: Mapping[str, Slice], expected: Cases) -> None:
    """Assert that what was found is what was built, to the last pixel."""
    assert sorted(cases) == sorted(expected)
    for case_id, want in expected.items():
        got = cases[case_id]
        np.testing.assert_array_equal(got.image, want.image, err_msg=case_id)
        np.testing.assert_array_equal(got.labels, want.labels, err_msg=case_id)
        assert got.subject_id == want.subject_id
        assert (got.spacing_mm is None) == (want.spacing_mm is None)
        if got.spacing_mm is not None:
            assert got.spacing_mm == pytest.approx(want.spacing_mm, rel=1e-5)


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
