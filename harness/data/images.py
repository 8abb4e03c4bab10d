"""Read image and mask files as the arrays that models and metrics expect.

Nothing here is silent: a file that cannot be read exactly is a `CaseError` with the case, the file and what to do.

Three decisions that a user may want to know:

- EXIF orientation is ignored, for images and for masks: pixels are taken in the order in which they are stored. Turning
  only the file that carries the tag would turn an image against its mask.
- An image is one plane. A TIFF or GIF of several pages is refused, not cut to its first page.
- An image may have as many pixels as Pillow's ``PIL.Image.MAX_IMAGE_PIXELS`` says, 89,478,485 unless somebody changed
  it (8192 x 8192 are 67,108,864), and its file 16 bytes for each of them. A file that claims more is refused by its
  header, before anything is decoded: a few kilobytes can claim gigabytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.samples import LabelMap
from promptseg.segmenter import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_LARGEST_FLOAT = 2**53  # up to which a float holds every whole number
_DIRECT = ("1", "L", "LA", "RGB", "RGBA", "I", "F")  # modes whose array is what the file holds; I;16* too
_LOSSY = ("JPEG", "MPO")
_MOST_BYTES_A_PIXEL = 16  # twice what the widest pixel, RGBA of 16 bits, takes uncompressed


def normalise(array: npt.NDArray[Any], case_id: str = "unnamed") -> Image:
    """Return ``array`` as (H, W, 3) uint8 RGB, scaled as the paper's released code does it.

    That is ``uint8(x / max * 255)`` in float64 with the maximum over the whole image, all channels together; fractions
    are cut, not rounded. A 16-bit image is scaled from its full depth. The released code converts to 8 bits first,
    which clips it: on 8-bit images the two agree to the last bit; only this one keeps the content of deeper images.

    Args:
        array: (H, W), (H, W, 1), (H, W, 2) grey with alpha, (H, W, 3) RGB or (H, W, 4) RGBA; bool, integer or float,
            nothing below zero. Grey becomes three equal channels; alpha is dropped.
        case_id: what an error calls the image.

    Raises:
        CaseError: another shape or type, no pixels, all zero, negative, NaN or infinite values.
    """
    colours = _without_alpha(array, case_id)
    top = _maximum(colours, case_id)
    scaled = _scale(colours, top)
    return np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)))


def decode_image(source: bytes | PilImage, case_id: str, name: str = "image") -> Image:
    """Return the (H, W, 3) uint8 RGB image that ``source`` holds, normalised.

    Args:
        source: the bytes of an image file, or an opened Pillow image.
        case_id: what an error calls the case.
        name: what an error calls the file.

    Raises:
        CaseError: the image cannot be read or not be normalised.
    """
    return normalise(decode_pixels(source, case_id, name), case_id)


def decode_pixels(source: bytes | PilImage, case_id: str, name: str = "image") -> npt.NDArray[Any]:
    """Return the values of the image that ``source`` holds as they are stored: (H, W) grey, or (H, W, 3) RGB.

    The colours of a palette are looked up, colour spaces other than grey and RGB become RGB, and alpha is dropped. The
    type is the stored one: bool, uint8, uint16, int32 or float32.

    Args:
        source: the bytes of an image file, or an opened Pillow image.
        case_id: what an error calls the case.
        name: what an error calls the file.

    Raises:
        CaseError: the image cannot be read, or has no pixels.
    """
    image, deep = _open(source, case_id, name)
    if deep:
        array = _decode_deep(source, case_id, name)
    elif image.mode in ("P", "PA"):
        array = np.asarray(image.convert("RGBA"))  # straight to RGB, Pillow warns about palettes with transparency
    elif image.mode in _DIRECT or image.mode.startswith("I;16"):
        array = np.asarray(image)
    else:
        array = np.asarray(image.convert("RGB"))
    colours = _without_alpha(array, case_id)
    return colours[..., 0] if colours.shape[2] == 1 else colours


def read_image(path: Path, case_id: str) -> Image:
    """Return the image file at ``path`` as (H, W, 3) uint8 RGB, normalised. Raises `CaseError`."""
    return decode_image(_bytes_of(path, case_id), case_id, str(path))


def decode_labels(source: bytes | PilImage, case_id: str, name: str = "mask", *, binary_255: bool = True) -> LabelMap:
    """Return the (H, W) label map that ``source`` holds; 0 is background.

    Grey values, or the indices of a palette image, are the label ids. Colour images are read where their channels are
    equal. A mask that holds 0 and 255 and nothing else is a black and white one, and becomes {0, 1}: the released code
    of the paper divides by 255 where the maximum is 255. Masks with further values are not touched.

    Args:
        source: the bytes of an image file, or an opened Pillow image.
        case_id: what an error calls the case.
        name: what an error calls the file.
        binary_255: whether to turn {0, 255} into {0, 1}; not for label maps in which 255 is an id of its own.

    Raises:
        CaseError: the mask cannot be read, holds colours, fractions or negative values, or grey tones made by JPEG.
    """
    image, deep = _open(source, case_id, name)
    if deep:
        raise CaseError(case_id, f"mask {name} holds 16-bit colours; masks must hold label ids: one grey channel.")
    labels = _as_ids(_one_channel(image, case_id, name), case_id, name)
    top = int(labels.max())
    white = top == 255 and bool(np.isin(labels, (0, 255)).all())
    if image.format in _LOSSY and top > 1 and not white:
        raise CaseError(
            case_id,
            f"mask {name} is a JPEG with {len(np.unique(labels))} grey values: lossy compression changed the label "
            "ids. Store masks as PNG, or threshold this one to 0 and 255 and store that.",
        )
    return labels // 255 if white and binary_255 else labels


def read_labels(path: Path, case_id: str, *, binary_255: bool = True) -> LabelMap:
    """Return the mask file at ``path`` as (H, W) label map; see `decode_labels`. Raises `CaseError`."""
    return decode_labels(_bytes_of(path, case_id), case_id, str(path), binary_255=binary_255)


def image_size(path: Path, case_id: str) -> tuple[int, int]:
    """Return (height, width) of the image file at ``path`` from its header alone. Raises `CaseError`."""
    from PIL import Image as Pil

    with _case_errors(case_id, str(path)), Pil.open(path) as image:
        _check_bomb(image)
        return image.height, image.width


def check_same_size(case_id: str, image_hw: tuple[int, int], mask_hw: tuple[int, int]) -> None:
    """Raise `CaseError` unless image and mask have one (height, width)."""
    if image_hw == mask_hw:
        return
    hint = "Resize the mask to its image without interpolating label ids (nearest neighbour)."
    if image_hw == mask_hw[::-1]:
        hint = "The sizes are swapped: was one of the two turned, by its EXIF orientation or by a transposed array?"
    raise CaseError(
        case_id,
        f"the image is {image_hw[1]} x {image_hw[0]} pixels (width x height), "
        f"its mask {mask_hw[1]} x {mask_hw[0]}. {hint}",
    )


def _without_alpha(array: npt.NDArray[Any], case_id: str) -> npt.NDArray[Any]:
    """Return (H, W, 1) or (H, W, 3)."""
    planes = array[..., None] if array.ndim == 2 else array
    if planes.ndim != 3 or planes.shape[2] not in (1, 2, 3, 4):
        raise CaseError(case_id, f"an image must be (H, W) or (H, W, 1 to 4), not {array.shape}.")
    if planes.size == 0:
        raise CaseError(case_id, f"the image has no pixels: its shape is {array.shape}.")
    return planes[..., : 3 if planes.shape[2] > 2 else 1]


def _maximum(colours: npt.NDArray[Any], case_id: str) -> float:
    """Return the maximum of values that can be scaled."""
    if colours.dtype.kind not in "buif":
        raise CaseError(case_id, f"image values of type {colours.dtype} are not numbers that can be scaled.")
    low, top = float(colours.min()), float(colours.max())
    if not np.isfinite((low, top)).all():  # NaN anywhere makes both NaN
        bad = int((~np.isfinite(colours)).sum())
        raise CaseError(case_id, f"{bad} of {colours.size} image values are NaN or infinite; mend or drop the image.")
    if low < 0:
        raise CaseError(
            case_id,
            f"image values go down to {low:g}; window signed data such as Hounsfield units to 0 and above first.",
        )
    if top == 0:
        size = f"{colours.shape[1]} x {colours.shape[0]}"
        raise CaseError(case_id, f"the image ({size} pixels) is all zero, so it cannot be normalised; drop the case.")
    return top


def _scale(colours: npt.NDArray[Any], top: float) -> Image:
    """Return uint8(x / top * 255), by table for small integers: one division for each value, not for each pixel."""
    if colours.dtype.kind == "u" and colours.dtype.itemsize <= 2:
        table = (np.arange(int(top) + 1, dtype=np.float64) / top * 255).astype(np.uint8)
        return np.asarray(table[colours])
    return (colours.astype(np.float64) / top * 255).astype(np.uint8)


def _bytes_of(path: Path, case_id: str) -> bytes:
    from PIL import Image as Pil

    try:
        size, limit = path.stat().st_size, Pil.MAX_IMAGE_PIXELS
        if limit is not None and size > limit * _MOST_BYTES_A_PIXEL:
            raise _too_large(case_id, str(path), f"{size} bytes are more than an image of {limit} pixels takes.")
        return path.read_bytes()
    except OSError as error:
        raise CaseError(case_id, f"{path} cannot be read ({error.strerror or error}).") from error


def _open(source: bytes | PilImage, case_id: str, name: str) -> tuple[PilImage, bool]:
    """Return a fully decoded Pillow image of one page, and whether Pillow cut its 16-bit colours to 8 bits."""
    from PIL import Image as Pil

    with _case_errors(case_id, name):
        image: PilImage = Pil.open(io.BytesIO(source)) if isinstance(source, bytes) else source
        _check_bomb(image)
        pages = getattr(image, "n_frames", 1)
        deep = _has_deep_colours(image)
        image.load()
    if pages > 1 and image.format != "MPO":  # the second picture of an MPO is a preview
        raise CaseError(case_id, f"{name} holds {pages} pages; store each plane as an image file of its own.")
    return image, deep


@contextmanager
def _case_errors(case_id: str, name: str) -> Iterator[None]:
    """Turn what Pillow raises into a `CaseError`."""
    from PIL import Image as Pil

    try:
        yield
    except (Pil.DecompressionBombWarning, Pil.DecompressionBombError) as error:
        raise _too_large(case_id, name, str(error)) from error
    except MemoryError as error:
        raise _too_large(case_id, name, "this machine has not enough memory left for it.") from error
    except Exception as error:  # decoders raise anything on damaged bytes
        raise CaseError(
            case_id,
            f"{name} cannot be decoded ({type(error).__name__}: {error}). The file is damaged, truncated or not an "
            "image: fetch or export it again.",
        ) from error


def _too_large(case_id: str, name: str, found: str) -> CaseError:
    return CaseError(
        case_id,
        f"{name} is too large to be opened safely: {found} Crop or shrink it, or, if you trust the file, raise "
        "PIL.Image.MAX_IMAGE_PIXELS in a conftest.py.",
    )


def _check_bomb(image: PilImage) -> None:
    """Raise Pillow's own error where Pillow may only have warned: warnings can be switched off."""
    from PIL import Image as Pil

    limit, pixels = Pil.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and pixels > limit:
        raise Pil.DecompressionBombError(
            f"{image.width} x {image.height} = {pixels} pixels exceed Pillow's limit of {limit}."
        )


def _has_deep_colours(image: PilImage) -> bool:
    """Return whether Pillow will cut 16-bit colours, or 16-bit grey with alpha, to 8 bits when it decodes."""
    tiles = getattr(image, "tile", ())
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in tiles)


def _decode_deep(source: bytes | PilImage, case_id: str, name: str) -> npt.NDArray[Any]:
    """Return 16-bit colours as (H, W, 3 or 4) uint16 RGB or RGBA, by OpenCV."""
    import cv2

    if not isinstance(source, bytes):
        raise CaseError(case_id, f"{name} has 16-bit colours, which Pillow cuts to 8 bits; give the file's bytes.")
    array = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise CaseError(case_id, f"{name} has 16-bit colours that OpenCV cannot decode; export it as 16-bit PNG.")
    return np.asarray(array[..., [2, 1, 0]]) if array.ndim == 3 else array


def _one_channel(image: PilImage, case_id: str, name: str) -> npt.NDArray[Any]:
    """Return the (H, W) values of a mask as they are stored."""
    if image.mode == "P":
        return np.asarray(image)  # the indices, not the colours
    if image.mode not in _DIRECT and not image.mode.startswith("I;16"):
        raise CaseError(
            case_id, f"mask {name} has Pillow mode {image.mode}; masks must hold label ids: one grey channel."
        )
    array = np.asarray(image)
    if array.ndim == 2:
        return array
    colours = array[..., : 3 if array.shape[2] > 2 else 1]
    if (colours != colours[..., :1]).any():
        count = len(np.unique(colours.reshape(-1, 3), axis=0))
        raise CaseError(
            case_id,
            f"mask {name} holds {count} colours; masks must hold label ids: one grey channel, or a palette image. "
            "Turn each colour into its id.",
        )
    return np.asarray(colours[..., 0])


def _as_ids(values: npt.NDArray[Any], case_id: str, name: str) -> LabelMap:
    if values.size == 0:
        raise CaseError(case_id, f"mask {name} has no pixels.")
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    whole = values.dtype.kind in "ui" or bool((np.isfinite(values) & (values == np.floor(values))).all())
    if not whole or values.min() < 0:
        raise CaseError(case_id, f"mask {name} holds fractions or negative values; label ids are 0, 1, 2, ...")
    if values.dtype.kind in "ui":
        return values
    if values.max() > _LARGEST_FLOAT:  # beyond that they would wrap round, to ids below zero
        raise CaseError(case_id, f"mask {name} holds {values.max():g}; label ids are 0, 1, 2, ...")
    return values.astype(np.int64)
