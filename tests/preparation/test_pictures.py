"""Pictures keep what their files hold; masks become label maps or errors."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pil

from promptseg.errors import CaseError
from promptseg.preparation.pictures import read_mask_picture, read_picture, union


def encoded(image: Pil.Image, kind: str = "png", **options: int) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(dtype: type[np.generic], step: int = 10) -> npt.NDArray[np.generic]:
    """Return a (3, 4) ramp whose maximum is not the type's."""
    return (np.arange(12).reshape(3, 4) * step).astype(dtype)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_grey_is_returned_as_stored(kind: str) -> None:
    """Values are not stretched to the whole range, in any of the formats."""
    picture = read_picture("a/p1", encoded(Pil.fromarray(ramp(np.uint8)), kind))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, ramp(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_grey_is_16_bit(dtype: type[np.generic]) -> None:
    """16-bit PNG and 32-bit TIFF of small enough values both become uint16."""
    kind = "png" if dtype is np.uint16 else "tiff"
    picture = read_picture("p1", encoded(Pil.fromarray(ramp(dtype, 5000)), kind))
    assert picture.dtype == np.uint16
    np.testing.assert_array_equal(picture, ramp(np.uint16, 5000))


def test_colours_lose_their_alpha_and_their_palette() -> None:
    """RGB, RGBA and palette images of one content are one (H, W, 3) picture."""
    colours = np.stack([ramp(np.uint8), ramp(np.uint8, 3), ramp(np.uint8, 7)], axis=-1)
    rgb = Pil.fromarray(colours)
    rgba = rgb.copy()
    rgba.putalpha(30)
    for image in (rgb, rgba, rgb.quantize(12)):
        np.testing.assert_array_equal(read_picture("p1", encoded(image)), colours)


def test_one_bit_is_black_and_white() -> None:
    """A picture of one bit uses the whole range, as a viewer shows it."""
    bits = Pil.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    np.testing.assert_array_equal(read_picture("p1", encoded(bits)), [[0, 255, 255]])


@pytest.mark.parametrize("values", [[-5, 3], [0, 70000]])
def test_values_that_no_picture_holds_are_refused(values: list[int]) -> None:
    """Signed or large values need a window, which nobody but the data set's module can choose."""
    data = encoded(Pil.fromarray(np.array([values], np.int32)), "tiff")
    with pytest.raises(CaseError, match=rf"case 'a/p1.tif': its values, of type int32, go from {values[0]} to "):
        read_picture("a/p1.tif", data)


def test_measured_values_are_refused() -> None:
    """Fractions are not rounded in silence."""
    data = encoded(Pil.fromarray(np.array([[0.5, 1.0]], np.float32)), "tiff")
    with pytest.raises(CaseError, match=r"of type float32, go from 0\.5 to 1; a picture holds integers"):
        read_picture("p1.tif", data)


def test_a_truncated_picture_is_named() -> None:
    """The case is the path, and the message says what to do."""
    data = encoded(Pil.effect_noise((40, 40), 50))
    with pytest.raises(CaseError, match=r"case 'a/p1.png': p1.png cannot be decoded .*fetch or export it again"):
        read_picture("a/p1.png", data[: len(data) // 2])


def test_masks_of_black_and_white_become_ids() -> None:
    """{0, 255} is {0, 1} unless 255 is an id; a lossy JPEG is refused."""
    mask = np.zeros((16, 16), np.uint8)
    mask[3:9, 4:11] = 255
    np.testing.assert_array_equal(read_mask_picture("m.png", encoded(Pil.fromarray(mask))), mask // 255)
    kept = read_mask_picture("m.png", encoded(Pil.fromarray(mask)), binary_255=False)
    np.testing.assert_array_equal(kept, mask)
    with pytest.raises(CaseError, match=r"case 'a/m.jpg': mask m.jpg is a JPEG with \d+ grey values"):
        read_mask_picture("a/m.jpg", encoded(Pil.fromarray(mask), "jpeg"))


def test_union_of_masks() -> None:
    """Any id above 0 in any mask counts once."""
    left, right = np.array([[0, 2, 0]], np.uint8), np.array([[0, 1, 255]], np.int64)
    united = union("p1", {"left": left, "right": right})
    assert united.dtype == np.uint8
    np.testing.assert_array_equal(united, [[0, 1, 1]])


def test_masks_that_do_not_fit_are_not_united() -> None:
    """Broadcasting would give a mask that nobody drew."""
    with pytest.raises(CaseError, match=r"case 'p1': its masks differ in size.*left is \(1, 3\), right is \(1, 1\)"):
        union("p1", {"left": np.zeros((1, 3)), "right": np.zeros((1, 1))})
    with pytest.raises(CaseError, match="no mask to unite"):
        union("p1", {})
