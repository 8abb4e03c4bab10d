"""Turn a slice into a row of the prepared form (`promptseg.data.prepared`), checked against the spec."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from promptseg.data.images import check_same_size
from promptseg.errors import CaseError, IntegrityError
from promptseg.preparation.cases import Slice
from promptseg.samples import target_of
from promptseg.specs import DatasetSpec

if TYPE_CHECKING:
    import pyarrow as pa

PreparedRow = dict[str, Any]
_COMPRESSION = 6  # zlib's own default: slices shrink little beyond it


def schema(metadata: dict[str, Any]) -> pa.Schema:
    """Return the columns of the prepared form, as `datasets` writes them, with ``metadata`` under ``promptseg``."""
    import datasets
    import pyarrow as pa

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    plain = pa.schema(
        {
            "case_id": pa.string(),
            "subject_id": pa.string(),
            "slice_index": pa.int32(),
            "image": picture,
            "mask": picture,
            "spacing_mm": pa.list_(pa.float64(), 2),
            "labels": pa.list_(pa.int32()),
            "sha256": pa.string(),
            "metadata": pa.string(),
        }
    )
    features = datasets.Features.from_arrow_schema(plain)
    features.update(image=datasets.Image(), mask=datasets.Image())
    own = {b"promptseg": json.dumps(metadata, sort_keys=True).encode()}
    return features.arrow_schema.with_metadata({**features.arrow_schema.metadata, **own})


def row_of(item: Slice, spec: DatasetSpec) -> PreparedRow | None:
    """Return the row of a slice, None if no task has an object in it (the study's rule).

    Raises:
        CaseError: image and label map cannot be used together.
        IntegrityError: the label map holds ids that the spec does not know, so this is another data set.
    """
    labels = _smallest(item)
    ids = [int(label) for label in np.unique(labels) if label]
    _check_known(item.case_id, ids, spec)
    if not any(target_of(task, labels).any() for task in spec.tasks):
        return None
    _check_image(item)
    check_same_size(item.case_id, item.image.shape[:2], (labels.shape[0], labels.shape[1]))
    return {
        "case_id": item.case_id,
        "subject_id": item.subject_id,
        "slice_index": item.slice_index,
        "image": {"bytes": _png(item.image), "path": None},
        "mask": {"bytes": _png(labels), "path": None},
        "spacing_mm": None if item.spacing_mm is None else [float(side) for side in item.spacing_mm],
        "labels": ids,
        "sha256": _digest(item.image, labels),
        "metadata": json.dumps(dict(item.metadata), sort_keys=True),
    }


def _smallest(item: Slice) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the label map in the smallest type that a PNG can hold."""
    labels = item.labels
    if labels.ndim != 2 or labels.size == 0:
        raise CaseError(item.case_id, f"its label map has the shape {labels.shape}; it must be (H, W), not empty.")
    low, top = int(labels.min()), int(labels.max())
    if low < 0 or top > np.iinfo(np.uint16).max:
        raise CaseError(item.case_id, f"label ids must be 0 to 65535; found {low} to {top}.")
    return labels.astype(np.uint8) if top <= np.iinfo(np.uint8).max else labels.astype(np.uint16)


def _check_known(case_id: str, ids: list[int], spec: DatasetSpec) -> None:
    known = spec.known_labels
    unknown = [] if known is None else sorted(set(ids) - known)
    if unknown:
        raise IntegrityError(
            f"{spec.name}: the mask of {case_id} holds the label ids {unknown}; the spec knows {sorted(known or ())}. "
            "These are the files of another edition or another data set; nothing was written."
        )


def _check_image(item: Slice) -> None:
    image: npt.NDArray[Any] = item.image
    grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype not in (np.uint8, np.uint16) or not grey_or_rgb:
        raise CaseError(
            item.case_id, f"its image is {image.dtype} of shape {image.shape}; it must be uint8 or uint16, (H, W[, 3])."
        )
    if image.dtype == np.uint16 and image.ndim == 3:
        raise CaseError(item.case_id, "its image has 16-bit colours, which no reader keeps; convert it to 8 bits.")


def _png(array: npt.NDArray[Any]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _digest(*arrays: npt.NDArray[Any]) -> str:
    """Return the sha256 of pixels and shapes: equal for equal pixels, whatever program made the PNG."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
