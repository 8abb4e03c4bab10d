"""Layouts of data sets that are pictures: image files with mask files, and rows of Parquet files.

Masks of pictures are black and white. Pixels above 0 are the object, label 1; if ``edges`` is ``"grey"``, pixels above
half of the mask's highest value. Several masks of an image are united: a pixel is object if one of them says so. If
``masks_are`` is ``"labels"``, grey values are label ids instead; the highest of several masks counts.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from promptseg.data.images import check_same_size
from promptseg.errors import CaseError, IntegrityError
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.layouts import MatchedFiles, check_numbered, check_unique, find
from promptseg.preparation.pictures import read_mask_picture, read_picture
from promptseg.preparation.tree import Tree
from promptseg.samples import LabelMap
from promptseg.text import listed


def pictures(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each image file with its masks.

    Options: ``parts``, each with a ``name``, the options of `promptseg.preparation.layouts.find`, ``edges``,
    ``masks_are``, and ``further_masks_of_other_size``: ``"left out"`` where only the first mask of an image must have
    its size. All parts must be there.

    Raises:
        IntegrityError: a part is missing, or see `promptseg.preparation.layouts.find`.
    """
    cases_of = {part["name"]: find(tree, part) for part in options["parts"]}
    missing = [name for name, cases in cases_of.items() if not cases]
    if len(missing) == len(cases_of):
        return ()
    if missing:
        raise IntegrityError(
            f"{tree.name}: no image of {listed(missing)} is there, only of the rest of the data set. Put all its "
            "archives into one folder."
        )
    units = [_picture_unit(tree, case, part) for part in options["parts"] for case in cases_of[part["name"]]]
    check_unique(tree, [unit.name for unit in units])
    return units


def _picture_unit(tree: Tree, case: MatchedFiles, part: Mapping[str, Any]) -> Unit:
    return Unit(name=case.case_id, paths=case.paths, read=functools.partial(_read_picture, tree, case, part))


def _read_picture(tree: Tree, case: MatchedFiles, part: Mapping[str, Any]) -> Iterator[Slice]:
    image = read_picture(case.images[0], tree.read(case.images[0]))
    height, width = image.shape[:2]
    labels, odd = np.zeros((height, width), np.uint8), []
    for position, path in enumerate(path for paths in case.masks for path in paths):
        mask = _mask(path, tree.read(path), part)
        if position and mask.shape != labels.shape and part.get("further_masks_of_other_size") == "left out":
            odd.append(f"{PurePosixPath(path).name} ({mask.shape[1]} x {mask.shape[0]})")
            continue
        check_same_size(case.case_id, (height, width), (mask.shape[0], mask.shape[1]))
        labels = np.maximum(labels, mask)
    yield Slice(
        case_id=case.case_id,
        image=image,
        labels=labels,
        subject_id=case.subject_id,
        metadata={"masks_left_out": odd} if odd else {},
    )


def _mask(name: str, data: bytes, options: Mapping[str, Any]) -> LabelMap:
    """Return the label map that a mask stands for."""
    values = read_mask_picture(name, data, binary_255=False)
    if options.get("masks_are") == "labels":
        return values
    return np.asarray(values > (values.max() / 2 if options.get("edges") == "grey" else 0), np.uint8)


def parquet_rows(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each row of the Parquet files that have the columns.

    Options: ``image``, ``mask``, ``id`` and ``subject`` name columns (``subject`` may be left out); ``id_pattern`` is a
    pattern that every id matches; ``case`` is a template of ``{id}`` and the groups of that pattern; ``where`` keeps
    rows with given values only; ``edges``, ``masks_are``. The columns of images are read into memory, file by file,
    when the first of their rows is.

    Raises:
        IntegrityError: some of a numbered set of files are missing, an id does not match, or occurs twice.
    """
    shards = [_Shard(tree, path, options) for path in tree.paths() if path.endswith(".parquet")]
    if not shards or not all(shard.fits() for shard in shards):
        return ()
    check_numbered(tree, [shard.path for shard in shards])
    units = [unit for shard in shards for unit in shard.units()]
    check_unique(tree, [unit.name for unit in units])
    return sorted(units, key=lambda unit: unit.name)


class _Shard:
    """A Parquet file of a tree."""

    def __init__(self, tree: Tree, path: str, options: Mapping[str, Any]) -> None:
        self.path = path
        self._tree = tree
        self._options = options
        self._lock = threading.Lock()
        self._pictures: Any = None

    def fits(self) -> bool:
        """Whether the file has the columns that the options name."""
        columns = [self._options[key] for key in ("image", "mask", "id", "subject") if key in self._options]
        return {*columns, *self._options.get("where", {})} <= set(self._open().schema_arrow.names)

    def units(self) -> Iterator[Unit]:
        """Yield a unit for each row that is kept."""
        options = self._options
        keep = options.get("where", {})
        names = [options[key] for key in ("id", "subject") if key in options]
        for row, values in enumerate(self._open().read(columns=[*names, *keep]).to_pylist()):
            if all(values[column] in allowed for column, allowed in keep.items()):
                case_id = self._case_id(str(values[options["id"]]))
                subject = values[options["subject"]] if "subject" in options else None
                read = functools.partial(self._read, row, case_id, None if subject is None else str(subject))
                yield Unit(name=case_id, paths=(self.path,), read=read)

    def _open(self) -> Any:
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(pyarrow.BufferReader(self._tree.read(self.path)))
        except (pyarrow.ArrowException, OSError) as error:
            raise IntegrityError(
                f"{self._tree.name}: {self.path} cannot be read as Parquet ({error}); download it again."
            ) from error

    def _case_id(self, text: str) -> str:
        match = re.fullmatch(self._options.get("id_pattern", ".*"), text, re.DOTALL)
        if match is None:
            raise IntegrityError(
                f"{self._tree.name}: {self.path} has the id {text!r}, which is not of the form "
                f"{self._options['id_pattern']}. Another revision of the data set?"
            )
        return str(self._options["case"].format_map({"id": text, **match.groupdict()}))

    def _read(self, row: int, case_id: str, subject_id: str | None) -> Iterator[Slice]:
        image_name, mask_name = self._options["image"], self._options["mask"]
        image = read_picture(f"{case_id}/{image_name}", self._bytes(row, image_name, case_id))
        mask = _mask(f"{case_id}/{mask_name}", self._bytes(row, mask_name, case_id), self._options)
        check_same_size(case_id, (image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1]))
        yield Slice(case_id=case_id, image=image, labels=mask, subject_id=subject_id)

    def _bytes(self, row: int, column: str, case_id: str) -> bytes:
        """Return the bytes of an image file: plain, or in the struct of the Hub's Image columns."""
        with self._lock:
            if self._pictures is None:
                self._pictures = self._open().read(columns=[self._options["image"], self._options["mask"]])
        value = self._pictures[column][row].as_py()
        held = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(held, bytes) and held:
            return held
        raise CaseError(case_id, f"column {column!r} holds {type(held).__name__}, not image bytes; download it again.")
