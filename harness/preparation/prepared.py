"""The prepared form as a layout, so that a copy by `promptseg data prepare --out` or `push` can be prepared from again.

It is accepted only as a whole: with all of its files and of the recipe that the spec has now. Units that could not be
read when it was made fail here for the same reason.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn

import numpy as np

from promptseg.data import prepared
from promptseg.errors import CaseError, IntegrityError
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.layouts import check_numbered
from promptseg.preparation.tree import Tree
from promptseg.specs import DatasetSpec, Layout


def layout_of(spec: DatasetSpec) -> Layout:
    """Return the layout of a data set's own canonical form."""
    return Layout(
        name="canonical form",
        expects="the data/*.parquet of `promptseg data push`",
        read="promptseg.preparation.prepared:read",
        options={"name": spec.name, "recipe": prepared.recipe(spec)},
    )


def read(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each Parquet file that promptseg wrote for the data set ``options["name"]``.

    Raises:
        IntegrityError: the files were made by another recipe, or some of them are missing.
    """
    metadata = {path: _metadata(tree, path) for path in tree.paths() if path.endswith(".parquet")}
    files = [path for path, stored in metadata.items() if stored.get("name") == options["name"]]
    for path in files:
        if metadata[path].get("recipe") != options["recipe"]:
            raise IntegrityError(
                f"{tree.name}: {path} was prepared by another recipe than this promptseg has for {options['name']}, so "
                "its pixels may be others. Prepare it from the owners' files, or use the version that wrote it."
            )
    check_numbered(tree, files)
    return [*(_unit(tree, path) for path in files), *(_failed(tree, options["name"]) if files else ())]


def _metadata(tree: Tree, path: str) -> Mapping[str, Any]:
    """Return what promptseg wrote into the metadata of a Parquet file; nothing for a file of another program."""
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        metadata = json.loads((parquet.read_schema(BufferReader(tree.read(path))).metadata or {})[b"promptseg"])
    except (ArrowException, CaseError, KeyError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _unit(tree: Tree, path: str) -> Unit:
    return Unit(name=path, paths=(path,), read=lambda: _slices(tree, path))


def _failed(tree: Tree, name: str) -> Iterator[Unit]:
    """Yield a unit that cannot be read for each one that the record of a data set names as such."""
    for path in tree.paths():
        record = _record(tree, path) if PurePosixPath(path).name == prepared.RECORD else None
        for unit, problem in record.failed.items() if record is not None and record.name == name else ():
            yield Unit(name=unit, paths=(path,), read=functools.partial(_fail, unit, problem))


def _record(tree: Tree, path: str) -> prepared.Record | None:
    try:
        return prepared.Record(**json.loads(tree.read(path)))
    except (TypeError, ValueError):  # of another program
        return None


def _fail(name: str, problem: str) -> NoReturn:
    raise CaseError(name, problem)


def _slices(tree: Tree, path: str) -> Iterator[Slice]:
    from pyarrow import BufferReader, parquet

    file = parquet.ParquetFile(BufferReader(tree.read(path)))
    for batch in file.iter_batches(batch_size=16):
        for row in batch.to_pylist():
            yield Slice(
                case_id=row["case_id"],
                image=_pixels(row["image"]),
                labels=_pixels(row["mask"]),
                subject_id=row["subject_id"],
                slice_index=row["slice_index"],
                spacing_mm=None if row["spacing_mm"] is None else (row["spacing_mm"][0], row["spacing_mm"][1]),
                metadata=json.loads(row["metadata"]),
            )


def _pixels(picture: Mapping[str, Any]) -> Any:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture["bytes"])))
