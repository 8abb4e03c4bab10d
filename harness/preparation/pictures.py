"""Read pictures and masks of a data set from PNG, BMP, TIFF or JPEG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.data.images import decode_labels, decode_pixels
from promptseg.errors import CaseError
from promptseg.samples import LabelMap


def read_picture(path: str, data: bytes) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the picture in an image file as it is stored, not normalised: (H, W) grey or (H, W, 3) RGB.

    Colours of a palette are looked up, alpha is dropped, and black and white of one bit become 0 and 255. See
    `promptseg.data.images.decode_pixels`.

    Args:
        path: of the file, which errors call the case so.
        data: its content.

    Raises:
        CaseError: the file cannot be read, or holds values that are no integers from 0 to 65535.
    """
    pixels = decode_pixels(data, path, PurePosixPath(path).name)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
        raise CaseError(
            path,
            f"its values, of type {pixels.dtype}, go from {pixels.min():g} to {pixels.max():g}; a picture holds "
            "integers from 0 to 65535. Apply a window to measured values first.",
        )
    return pixels.astype(np.uint16)


def read_mask_picture(path: str, data: bytes, *, binary_255: bool = True) -> LabelMap:
    """Return the (H, W) label map in an image file, where {0, 255} becomes {0, 1}; see `images.decode_labels`.

    Args:
        path: of the file, which errors call the case so.
        data: its content.
        binary_255: False keeps 255 as the id that it is in some label maps.

    Raises:
        CaseError: the mask cannot be read, or holds colours, fractions, or the grey tones that JPEG makes of edges.
    """
    return decode_labels(data, path, PurePosixPath(path).name, binary_255=binary_255)


def union(case_id: str, masks: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """Return 1 where any mask is above 0, else 0.

    Args:
        case_id: what an error calls the case.
        masks: at least one, by its name for messages; of one shape, such as (H, W) or (Z, Y, X).

    Raises:
        CaseError: there is no mask, or their shapes differ.
    """
    if not masks:
        raise CaseError(case_id, "there is no mask to unite.")
    shapes = {name: mask.shape for name, mask in masks.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} is {shape}" for name, shape in shapes.items())
        raise CaseError(case_id, f"its masks differ in size, so they cannot be united: {listed}.")
    return np.asarray(np.any([mask > 0 for mask in masks.values()], axis=0)).astype(np.uint8)
