"""The canonical form as a layout: what `promptseg data prepare --out` or `push` wrote can be prepared from again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from promptseg.errors import CaseError
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.tree import Tree
from promptseg.specs import DatasetSpec, Layout


def layout_of(spec: DatasetSpec) -> Layout:
    """Return the layout of a data set's own canonical form."""
    return Layout(
        name="canonical form",
        expects="the data/*.parquet of `promptseg data push`",
        read="promptseg.preparation.prepared:read",
        options={"name": spec.name},
    )


def read(tree: Tree, options: Mapping[str, Any]) -> Sequence[Unit]:
    """Return a unit for each Parquet file that promptseg wrote for the data set ``options["name"]``."""
    files = [path for path in tree.paths() if path.endswith(".parquet")]
    return [_unit(tree, path) for path in files if _is_of(tree, path, options["name"])]


def _is_of(tree: Tree, path: str, name: str) -> bool:
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        metadata = parquet.read_schema(BufferReader(tree.read(path))).metadata or {}
        return bool(json.loads(metadata[b"promptseg"])["name"] == name)
    except (ArrowException, CaseError, KeyError, TypeError, ValueError):
        return False


def _unit(tree: Tree, path: str) -> Unit:
    return Unit(name=path, paths=(path,), read=lambda: _slices(tree, path))


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
