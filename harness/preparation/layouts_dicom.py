"""Layouts of data sets that The Cancer Imaging Archive publishes: folders of DICOM series with DICOM segmentations.

A scanner's operator chose the names of the folders, so the kind of a series is read from its files: a unit is all
files of one study or subject, and its series are distinguished by modality when it is read.

Options: ``file`` is a pattern of all files with the group ``series`` and others, from which the templates ``case`` and
``subject`` make ids; see `promptseg.preparation.layouts`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.dicom import read_dicom, read_series, suv_factor
from promptseg.preparation.layouts import check_unique, grouped
from promptseg.preparation.layouts_volumes import fused, picture_of, sliced
from promptseg.preparation.pictures import union
from promptseg.preparation.segments import read_dicom_seg
from promptseg.preparation.tree import Tree
from promptseg.preparation.volumes import Volume, resample_like
from promptseg.text import listed

_AIR_HU = -1024.0  # what a CT has where a PET reaches farther


class _Series:
    """The files of one folder, and what the first of them says of all."""

    def __init__(self, tree: Tree, paths: Sequence[str]) -> None:
        self._tree = tree
        self.paths = paths
        self.folder = str(PurePosixPath(paths[0]).parent)
        self.head = read_dicom(paths[0], tree.read(paths[0]), pixels=False)
        self.modality = str(self.head.get("Modality", ""))

    def volume(self) -> Volume:
        """Return the volume of an image series."""
        return read_series(self.folder, ((path, self._tree.read(path)) for path in self.paths))

    def segments(self, image: Volume) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """Yield name and (Z, Y, X) mask, on the grid of ``image``, of all segments of a segmentation series."""
        for path in self.paths:
            for name, mask in read_dicom_seg(path, self._tree.read(path), image).items():
                yield name, mask.values


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What is read together: the ids of a study, and the files of each of its series."""

    tree: Tree
    name: str
    subject_id: str
    series: Sequence[tuple[str, ...]]

    def opened(self) -> list[_Series]:
        """Return the series, with what their first files say."""
        return [_Series(self.tree, paths) for paths in self.series]


def pet_ct(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each study with a CT, a PET and a segmentation; its slices are those of the PET."""
    return [_unit(study, functools.partial(_read_pet_ct, study)) for study in _studies(tree, options)]


def drawn_planes(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each subject; its cases are the planes in which one of the objects was drawn.

    Options, besides those of the module: ``intensity`` (`promptseg.preparation.layouts_volumes`), and ``objects``, each
    a name, a pattern of the labels of segments (or of the description of their series), and a label id; the first that
    matches counts. A case holds one object, because nothing says whether another was looked for in its plane.
    """
    return [_unit(study, functools.partial(_read_drawn_planes, study, options)) for study in _studies(tree, options)]


def _studies(tree: Tree, options: Mapping[str, Any]) -> list[_Study]:
    """Return the studies of a tree; files are of one where all groups but ``series`` are equal."""
    series_of: dict[tuple[tuple[str, str | None], ...], list[tuple[str, ...]]] = {}
    for key, paths in grouped(tree.paths(), options["file"]).items():
        series_of.setdefault(tuple(pair for pair in key if pair[0] != "series"), []).append(paths)
    studies = [
        _Study(
            tree=tree,
            name=options["case"].format_map(dict(key)),
            subject_id=options["subject"].format_map(dict(key)),
            series=series,
        )
        for key, series in series_of.items()
    ]
    check_unique(tree, [study.name for study in studies])
    return sorted(studies, key=lambda study: study.name)


def _unit(study: _Study, read: Callable[[], Iterator[Slice]]) -> Unit:
    return Unit(name=study.name, paths=tuple(path for paths in study.series for path in paths), read=read)


def _read_pet_ct(study: _Study) -> Iterator[Slice]:
    opened = study.opened()
    ct, pet, drawn = (_only(study.name, opened, modality) for modality in ("CT", "PT", "SEG"))
    activity = pet.volume()
    factor = suv_factor(pet.head, study.name)
    suv = replace(activity, slope=activity.slope * factor, intercept=activity.intercept * factor)
    masks = {f"{name} ({i})": mask for i, (name, mask) in enumerate(drawn.segments(suv))}
    on_pet = resample_like(ct.volume(), suv, "linear", outside=_AIR_HU)
    yield from fused(study.name, study.subject_id, suv, on_pet, union(study.name, masks))


def _only(name: str, opened: Sequence[_Series], modality: str) -> _Series:
    """Return the only series of a modality."""
    matching = [series for series in opened if series.modality == modality]
    if len(matching) != 1:
        have = listed([f"{series.folder} ({series.modality})" for series in opened])
        raise CaseError(name, f"it has {len(matching)} series of modality {modality}, not one; its series are {have}.")
    return matching[0]


def _read_drawn_planes(study: _Study, options: Mapping[str, Any]) -> Iterator[Slice]:
    opened = study.opened()
    drawn = [series for series in opened if series.modality == "SEG"]
    image = _drawn_on(study.name, opened, drawn)
    masks = _masks_by_object(study.name, drawn, image, options["objects"])
    picture = picture_of(image, options["intensity"])
    for (title, label), mask in masks.items():
        planes = [z for z, plane in enumerate(mask) if plane.any()]
        yield from sliced(f"{study.name}_{title}", study.subject_id, image, mask * np.uint8(label), picture, planes)


def _drawn_on(name: str, opened: Sequence[_Series], drawn: Sequence[_Series]) -> Volume:
    """Return the image series that the segmentations refer to."""
    referenced = {
        str(reference.SeriesInstanceUID) for one in drawn for reference in one.head.get("ReferencedSeriesSequence", ())
    }
    images = [one for one in opened if str(one.head.get("SeriesInstanceUID")) in referenced]
    if len(referenced) != 1 or len(images) != 1:
        have = listed([f"{one.folder} ({one.modality})" for one in opened])
        raise CaseError(
            name,
            f"its segmentations refer to {len(referenced)} image series, {len(images)} of them are here; exactly one "
            f"must be. Its series are {have}.",
        )
    return images[0].volume()


def _masks_by_object(
    name: str, drawn: Sequence[_Series], image: Volume, objects: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, int], npt.NDArray[np.uint8]]:
    """Return the mask (Z, Y, X) of 0 and 1 of each object that was drawn, by its name and label id."""
    masks: dict[tuple[str, int], npt.NDArray[np.uint8]] = {}
    for one in drawn:
        description = str(one.head.get("SeriesDescription", ""))
        for label, mask in one.segments(image):
            what = _object_of(name, (label, description), objects)
            masks[what] = masks[what] | mask if what in masks else mask
    return dict(sorted(masks.items()))


def _object_of(name: str, texts: Sequence[str], objects: Sequence[tuple[str, str, int]]) -> tuple[str, int]:
    for text in texts:
        for title, pattern, label in objects:
            if re.search(pattern, text, re.IGNORECASE):
                return title, label
    raise CaseError(
        name,
        f"it has a segment {texts[0]!r} (series {texts[1]!r}), which is none of {listed([o[0] for o in objects])}.",
    )
