"""A data set for tests of the preparation: small volumes in .npy files, and a layout that writes down what it reads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.tree import Tree
from promptseg.specs import DatasetSpec, Layout, Original, TaskSpec

SPEC = DatasetSpec(
    name="blocks",
    modality="ct",
    load="promptseg.data.prepared:load",
    tasks=(TaskSpec(name="blocks_one", labels=(1,)), TaskSpec(name="blocks_two", labels=(2, 3))),
    licence="CC0-1.0",
    layouts=(Layout(name="arrays", expects="NAME.npy", read="support.blocks:read", options={"suffix": ".npy"}),),
    original=Original(page="https://example.org/blocks", how="Sign the form, download blocks.zip."),
    other_labels=(4,),
    shareable=True,
)


def read(tree: Tree, options: Mapping[str, Any]) -> list[Unit]:
    """Return a unit for each array."""
    return [_unit(tree, path) for path in tree.paths() if path.endswith(options["suffix"])]


def _unit(tree: Tree, path: str) -> Unit:
    name = path.rsplit("/", 1)[-1].removesuffix(".npy")
    return Unit(name=name, paths=(path,), read=lambda: _slices(tree, path, name))


def _slices(tree: Tree, path: str, name: str) -> Iterator[Slice]:
    _note(name)
    for index, labels in enumerate(np.load(io.BytesIO(tree.read(path)), allow_pickle=False)):
        yield Slice(
            case_id=f"{name}_{index}",
            image=(labels * 50 + 10 + index).astype(np.uint8),
            labels=labels,
            subject_id=name,
            slice_index=index,
            spacing_mm=(0.5, 0.25),
            metadata={"volume": name},
        )


def _note(name: str) -> None:
    """Write down what is read, and die without a word where the test asks for it."""
    log = Path(os.environ["READ_LOG"])
    with log.open("a") as file:
        file.write(name + "\n")
    if len(log.read_text().split()) > int(os.environ.get("DIE_AFTER", "1000")):
        os._exit(9)


def volume(kind: int, *, depth: int = 4) -> bytes:
    """Return the file of a volume of ``depth`` slices, the first one empty, the second with id 4 alone."""
    labels = np.zeros((depth, 12, 16), np.uint8)
    labels[1:, 2:5, 3:9] = 4
    labels[2:, 6:9, 3 : 6 + kind] = 1 + kind % 3
    buffer = io.BytesIO()
    np.save(buffer, labels)
    return buffer.getvalue()
