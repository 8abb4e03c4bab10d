"""Layouts of data sets that are volumes: an image and its masks in files, cut into axial slices.

How an image becomes a picture is set by ``intensity``, a mapping with the name of a ``rule`` and its settings; see
`promptseg.preparation.intensity` for the reasons.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError, IntegrityError, RegistryError
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.dicom import read_series
from promptseg.preparation.intensity import mr_percentiles, scaled
from promptseg.preparation.intensity import pet_ct as pet_ct_picture
from promptseg.preparation.layouts import MatchedFiles, find
from promptseg.preparation.segments import placed, read_seg_nrrd
from promptseg.preparation.tree import Tree
from promptseg.preparation.volumes import Volume, check_same_grid, labels_of, read_labels, read_volume
from promptseg.text import listed

Picture = Callable[[int], npt.NDArray[np.uint8]]  # from the number of a plane to (H, W) or (H, W, 3)
Labels = npt.NDArray[np.unsignedinteger[Any]]  # (Z, Y, X)


def volumes(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each volume with its masks.

    Options: those of `promptseg.preparation.layouts.find`, ``intensity``, and

    - ``masks_are``: ``"labels"`` (the default: one label map), ``"raters"`` (label maps of several persons, 1 within
      2), ``"parts"`` (a file for each label: 1 of the first pattern, 2 of the second, which overrides it, ...),
      ``"planes"`` (a DICOM file for each plane that was drawn on; the others are left out), or ``"segments"`` (3D
      Slicer files);
    - ``segments``: for each of the 3D Slicer files, patterns of the names of segments and the id each gets;
    - ``planes``: ``"one"`` for pictures that are stored as volumes;
    - ``listed``: pattern of a dataset.json whose ``training`` names all images: none may be missing.

    Raises:
        IntegrityError: an image that is listed is missing, or see `promptseg.preparation.layouts.find`.
    """
    cases = find(tree, options)
    if cases and "listed" in options:
        _check_listed(tree, options["listed"], {PurePosixPath(path).name for case in cases for path in case.images})
    return [
        Unit(name=case.case_id, paths=case.paths, read=functools.partial(_read, tree, case, options)) for case in cases
    ]


def _check_listed(tree: Tree, pattern: str, present: set[str]) -> None:
    """Raise `IntegrityError` where a dataset.json names images that are not there; only file names are compared."""
    for path in tree.paths():
        if re.fullmatch(rf"(?:.*/)?{pattern}", path):
            names = {PurePosixPath(name).name for name in _names(tree, path)}
            if missing := sorted(names - present):
                raise IntegrityError(
                    f"{tree.name}: {len(missing)} images that {path} lists are not there: {listed(missing)}. The "
                    "download is incomplete."
                )


def _names(tree: Tree, path: str) -> Iterator[str]:
    """Yield the images of a dataset.json, of the Decathlon's form; other programs write other files of that name."""
    try:
        listing = json.loads(tree.read(path))
    except ValueError as error:
        raise IntegrityError(f"{tree.name}: {path} is not JSON ({error}); download it again, or remove it.") from error
    training = listing.get("training", ()) if isinstance(listing, Mapping) else ()
    yield from (one["image"] for one in training if isinstance(one, Mapping) and isinstance(one.get("image"), str))


def _read(tree: Tree, case: MatchedFiles, options: Mapping[str, Any]) -> Iterator[Slice]:
    image = _open_image(tree, case, options)
    if options.get("planes") == "one":
        yield _only_plane(case, image, _read_labels(tree, case, image, case.masks[0]), options)
        return
    labels, planes = _masks(tree, case, image, options)
    yield from sliced(case.case_id, case.subject_id, image, labels, picture_of(image, options["intensity"]), planes)


def _open_image(tree: Tree, case: MatchedFiles, options: Mapping[str, Any]) -> Volume:
    if options.get("series"):
        return read_series(case.case_id, ((path, tree.read(path)) for path in case.images))
    return read_volume(case.images[0], tree.read(case.images[0]))


def sliced(
    case_id: str,
    subject_id: str | None,
    image: Volume,
    labels: Labels,
    picture: Picture,
    planes: Sequence[int] | None = None,
) -> Iterator[Slice]:
    """Yield the axial slices of a volume that hold a label, from foot to head.

    Args:
        case_id: of the volume; ``_z`` and the number of the plane are put behind it.
        subject_id: see `Slice`.
        image: the volume.
        labels: (Z, Y, X) on its grid.
        picture: returns the picture of a plane.
        planes: the planes to give, whether or not they hold a label; None for those that do.
    """
    _, height, width = image.spacing_mm
    for z in np.flatnonzero(labels.any(axis=(1, 2))) if planes is None else planes:
        yield Slice(
            case_id=f"{case_id}_z{z:03}",
            image=picture(int(z)),
            labels=np.ascontiguousarray(labels[z]),
            subject_id=subject_id,
            slice_index=int(z),
            spacing_mm=(height, width),
        )


def _only_plane(case: MatchedFiles, image: Volume, labels: Labels, options: Mapping[str, Any]) -> Slice:
    """Return the picture that is stored as a volume of one plane."""
    if len(labels) != 1:
        raise CaseError(case.case_id, f"{image.name} holds {len(labels)} planes; a picture is expected.")
    [one] = sliced(case.case_id, case.subject_id, image, labels, picture_of(image, options["intensity"]))
    return replace(one, case_id=case.case_id, slice_index=None)


def picture_of(image: Volume, intensity: Mapping[str, Any]) -> Picture:
    """Return the function that makes the picture of a plane of ``image`` by an intensity rule."""
    match intensity["rule"]:
        case "ct_window":
            low, high = intensity["low"], intensity["high"]
        case "mr_percentiles":
            low, high = mr_percentiles(image, intensity["low"], intensity["high"])
        case "full_range":
            low, high = _full_range(image)
        case rule:
            raise RegistryError(f"intensity rule {rule!r} is not ct_window, mr_percentiles or full_range.")
    return lambda z: scaled(image.plane(z), low, high)


def _full_range(image: Volume) -> tuple[float, float]:
    ends = [(float(plane.min()), float(plane.max())) for plane in map(image.plane, range(len(image.values)))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if low == high:
        raise CaseError(image.name, f"all its values are {low:g}, so there is nothing to see; drop it.")
    return low, high


# --- masks --------------------------------------------------------------------------------------------------


def _masks(
    tree: Tree, case: MatchedFiles, image: Volume, options: Mapping[str, Any]
) -> tuple[Labels, Sequence[int] | None]:
    """Return the label map of a volume, and the planes that it describes, None for all."""
    match options.get("masks_are", "labels"):
        case "labels":
            return _read_labels(tree, case, image, case.masks[0]), None
        case "raters":
            return _majority(tree, case, image), None
        case "parts":
            return _parts(tree, case, image), None
        case "planes":
            return _drawn_planes(tree, case, image)
        case "segments":
            return _segments(tree, case, image, options["segments"]), None
        case other:
            raise RegistryError(f"masks_are is {other!r}, not labels, raters, parts, planes or segments.")


def _read_labels(tree: Tree, case: MatchedFiles, image: Volume, paths: Sequence[str]) -> Labels:
    """Return the label map in the only file of ``paths``, after checking that it is on the grid of ``image``."""
    if len(paths) > 1:
        raise CaseError(case.case_id, f"several files stand for one mask: {listed(paths)}. Keep one of them.")
    mask = read_labels(paths[0], tree.read(paths[0]))
    check_same_grid(image, mask, case.case_id)
    return mask.values


def _parts(tree: Tree, case: MatchedFiles, image: Volume) -> Labels:
    labels = np.zeros(image.values.shape, np.uint8)
    for label, paths in enumerate(case.masks, 1):
        labels[_read_labels(tree, case, image, paths) > 0] = label
    return labels


def _majority(tree: Tree, case: MatchedFiles, image: Volume) -> Labels:
    """Return 1 where more than half of the raters say 1, else 2 where more than half say 1 or 2, else 0."""
    raters = np.stack([_read_labels(tree, case, image, paths) for paths in case.masks])
    if raters.max() > 2:
        raise CaseError(case.case_id, f"a rater's mask holds the label {raters.max()}; 0, 1 and 2 are expected.")
    inner, outer = (2 * np.count_nonzero(held, axis=0) > len(raters) for held in (raters == 1, raters > 0))
    return np.where(inner, 1, np.where(outer, 2, 0)).astype(np.uint8)


def _drawn_planes(tree: Tree, case: MatchedFiles, image: Volume) -> tuple[Labels, list[int]]:
    """Return 1 where one of the DICOM files, each of one plane, is above 0, and the planes that have a file."""
    labels, planes = np.zeros(image.values.shape, np.uint8), []
    for path in case.masks[0]:
        plane = read_series(path, [(path, tree.read(path))])
        affine = plane.affine.copy()
        affine[:, 2] = image.affine[:, 2]  # one plane does not give the distance to the next
        mask = labels_of(replace(plane, affine=affine))
        labels |= placed(mask, image).values > 0
        shift_xyz = np.linalg.solve(image.affine[:3, :3], mask.origin_mm - image.origin_mm)
        planes.append(round(float(shift_xyz[2])))
    if len(set(planes)) < len(planes):
        raise CaseError(case.case_id, "two of its mask files are of one plane; keep one.")
    return labels, sorted(planes)


def _segments(tree: Tree, case: MatchedFiles, image: Volume, ids_of_files: Sequence[Mapping[str, int]]) -> Labels:
    """Return the label map of the named segments; later segments override earlier ones."""
    labels = np.zeros(image.values.shape, np.uint8)
    for paths, ids in zip(case.masks, ids_of_files, strict=True):
        for path in paths:
            for name, mask in read_seg_nrrd(path, tree.read(path), image).items():
                labels[mask.values > 0] = _id_of(case.case_id, path, name, ids)
    return labels


def _id_of(case_id: str, path: str, name: str, ids: Mapping[str, int]) -> int:
    for pattern, label in ids.items():
        if re.search(pattern, name, re.IGNORECASE):
            return label
    raise CaseError(case_id, f"{path} has a segment {name!r}; those expected are like {listed(list(ids))}.")


# --- PET/CT -------------------------------------------------------------------------------------------------


def pet_ct(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each PET with a CT and a mask, all on one grid; the PET is in SUV.

    Options: the patterns ``pet``, ``ct`` and ``mask``, and ``case`` and ``subject`` as in
    `promptseg.preparation.layouts.find`, whose errors it raises.
    """
    files = {**options, "image": options["pet"], "masks": [options["ct"], options["mask"]]}
    return [
        Unit(name=case.case_id, paths=case.paths, read=functools.partial(_read_pet_ct, tree, case))
        for case in find(tree, files, "a CT or a mask")
    ]


def _read_pet_ct(tree: Tree, case: MatchedFiles) -> Iterator[Slice]:
    pet, ct = (read_volume(path, tree.read(path)) for path in (case.images[0], case.masks[0][0]))
    check_same_grid(pet, ct, case.case_id)
    yield from fused(case.case_id, case.subject_id, pet, ct, _read_labels(tree, case, pet, case.masks[1]))


def fused(case_id: str, subject_id: str | None, pet: Volume, ct: Volume, labels: Labels) -> Iterator[Slice]:
    """Return the axial slices of a PET in SUV with a CT on its grid, as RGB pictures."""
    return sliced(case_id, subject_id, pet, labels, lambda z: pet_ct_picture(pet.plane(z), ct.plane(z)))
