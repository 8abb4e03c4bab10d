"""Images and masks become the arrays of the contracts, or errors that say why not."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pil
from support.paths import SHARED
from support.project import Project

from promptseg.data.images import (
    check_same_size,
    decode_image,
    decode_labels,
    image_size,
    normalise,
    read_image,
    read_labels,
)
from promptseg.errors import CaseError

DATA = SHARED / "data"
RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)


def encoded(image: Pil.Image, suffix: str = "png", **options: Any) -> bytes:
    """Return the file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def encoded_deep(array: npt.NDArray[np.uint16], suffix: str) -> bytes:
    """Return the file that OpenCV writes of 16-bit RGB or RGBA colours."""
    order = [2, 1, 0, 3][: array.shape[2]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(array[..., order]))
    assert done
    return bytes(data)


# normalise


@pytest.mark.parametrize("top", [1, 7, 100, 254, 255])
def test_normalise_is_the_released_codes_formula(top: int) -> None:
    """On 8-bit RGB every value is what uint8(x / max * 255) gives."""
    image = np.arange(3 * (top + 1), dtype=np.int64).reshape(-1, 1, 3) % (top + 1)
    image = image.astype(np.uint8)
    np.testing.assert_array_equal(normalise(image), np.uint8(image / np.max(image) * 255))


def test_normalise_takes_the_maximum_of_all_channels() -> None:
    """The channels keep their proportions: the brightest of all becomes 255."""
    image = np.array([[[10, 20, 40]]], dtype=np.uint8)
    np.testing.assert_array_equal(normalise(image), [[[63, 127, 255]]])


def test_normalise_leaves_an_image_that_reaches_255() -> None:
    """An 8-bit image with a maximum of 255 comes back as it was."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(normalise(image)[..., 0], image)


def test_normalise_scales_16_bits_from_full_depth() -> None:
    """A 12-bit image in 16 bits is not clipped at 255."""
    image = np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)
    np.testing.assert_array_equal(normalise(image)[0, :, 0], [0, 63, 127, 255])


def test_normalise_drops_alpha() -> None:
    """Alpha takes no part: not in the result, not in the maximum."""
    grey_alpha = np.array([[[50, 255], [100, 0]]], dtype=np.uint8)
    rgba = np.array([[[50, 50, 50, 255], [100, 100, 100, 0]]], dtype=np.uint8)
    for image in (grey_alpha, rgba):
        np.testing.assert_array_equal(normalise(image)[0, :, 0], [127, 255])


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (2, 3, 3, 1)])
def test_normalise_names_a_shape_that_is_no_image(shape: tuple[int, ...]) -> None:
    """The shape that was found is in the message."""
    with pytest.raises(CaseError, match=rf"case 'p1': an image must be .* not {re.escape(str(shape))}"):
        normalise(np.ones(shape, np.uint8), "p1")


def test_normalise_names_an_image_without_pixels() -> None:
    """An empty array is not an image."""
    with pytest.raises(CaseError, match="case 'p1': the image has no pixels"):
        normalise(np.ones((0, 4), np.uint8), "p1")


def test_normalise_names_an_all_zero_image() -> None:
    """An all-zero image cannot be divided by its maximum: case and size are named."""
    with pytest.raises(CaseError, match=r"case 'p1': the image \(4 x 3 pixels\) is all zero"):
        normalise(np.zeros((3, 4, 3), np.uint8), "p1")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_normalise_counts_values_that_are_not_finite(bad: float) -> None:
    """NaN and infinities are counted, not turned into a black image."""
    image = np.ones((3, 4))
    image[1, 1:3] = bad
    with pytest.raises(CaseError, match="case 'p1': 2 of 12 image values are NaN or infinite"):
        normalise(image, "p1")


def test_normalise_refuses_negative_values() -> None:
    """Hounsfield units need a window first, and the message says so."""
    with pytest.raises(CaseError, match=r"case 'p1': image values go down to -1000; window .* Hounsfield"):
        normalise(np.array([[-1000, 40]], np.int16), "p1")


def test_normalise_refuses_what_is_not_a_number() -> None:
    """Complex k-space data is not an image."""
    with pytest.raises(CaseError, match="image values of type complex128"):
        normalise(np.ones((2, 2), complex))


IMAGES = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.float32]),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3])),
    elements=st.integers(0, 255),
).filter(lambda a: a.max() > 0)


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_normalise_keeps_order_and_shape(image: npt.NDArray[Any]) -> None:
    """RGB uint8 of the same height and width, reaching 255, monotone, and stable when done twice."""
    result = normalise(image)
    assert (result.shape, result.dtype.name) == ((*image.shape[:2], 3), "uint8")
    assert result.max() == 255
    values = np.broadcast_to(image, result.shape).ravel()
    assert (np.diff(result.ravel()[np.argsort(values, kind="stable")].astype(int)) >= 0).all()
    np.testing.assert_array_equal(normalise(result), result)


@settings(max_examples=30, deadline=None)
@given(IMAGES)
def test_normalise_does_not_depend_on_the_type(image: npt.NDArray[Any]) -> None:
    """The table for unsigned integers gives what the division gives."""
    np.testing.assert_array_equal(normalise(image.astype(np.uint16)), normalise(image.astype(np.float64)))


# decode_image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_kind_of_image_becomes_rgb(mode: str) -> None:
    """Grey, palette, alpha, 1-bit, 16-bit, 32-bit and float images give (H, W, 3) uint8 that reach 255."""
    image = Pil.fromarray(RAMP * 20).convert(mode) if mode != "I;16" else Pil.fromarray(RAMP.astype(np.uint16) * 5000)
    assert image.mode == mode
    suffix = "tiff" if mode in ("CMYK", "F", "I") else "png"
    result = decode_image(encoded(image, suffix), "p1")
    assert (result.shape, result.dtype.name, result.max()) == ((3, 4, 3), "uint8", 255)


def test_palette_images_show_their_colours() -> None:
    """The colours of the palette count, not the indices, also where one of them is transparent."""
    image = Pil.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 128, 0])
    image.putpixel((1, 0), 1)
    for data in (encoded(image), encoded(image, transparency=b"\x00\x80")):
        result = decode_image(data, "p1")
        np.testing.assert_array_equal(result, [[[0, 0, 0], [255, 128, 0]]])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_keep_their_depth(suffix: str, channels: int) -> None:
    """Pillow would cut 12-bit colours in 16 bits to 16 levels; here they scale from full depth."""
    colours = np.full((1, 4, channels), 65535, np.uint16)
    colours[0, :, :3] = np.array([[0, 0, 0], [1000, 0, 0], [0, 2000, 0], [0, 0, 4000]])
    result = decode_image(encoded_deep(colours, suffix), "p1")
    np.testing.assert_array_equal(result[0], [[0, 0, 0], [63, 0, 0], [0, 127, 0], [0, 0, 255]])


def test_16_bit_colours_in_an_opened_image_are_refused() -> None:
    """Of an image that Pillow opened only the cut colours could be had, so the bytes are asked for."""
    data = encoded_deep(np.full((2, 2, 3), 4000, np.uint16), ".png")
    with pytest.raises(CaseError, match="16-bit colours, which Pillow cuts to 8 bits; give the file's bytes"):
        decode_image(Pil.open(io.BytesIO(data)), "p1")


def test_an_opened_image_is_the_same_as_its_bytes() -> None:
    """Data set libraries hand over Pillow images."""
    image = Pil.fromarray(RAMP)
    np.testing.assert_array_equal(decode_image(image, "p1"), decode_image(encoded(image), "p1"))


def test_exif_orientation_is_ignored() -> None:
    """Pixels are taken as stored, for images and masks alike."""
    exif = Pil.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    data = encoded(Pil.fromarray(RAMP), exif=exif)
    assert decode_image(data, "p1").shape == (3, 4, 3)
    assert decode_labels(data, "p1").shape == (3, 4)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "jpeg"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    """Half a file is an error with the case, the file and what to do, for images and masks."""
    data = encoded(Pil.effect_noise((64, 64), 80), suffix)
    path = tmp_path / f"p1.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    for read in (read_image, read_labels):
        with pytest.raises(CaseError, match=rf"case 'p1': .*p1\.{suffix} cannot be decoded .*truncated.*again"):
            read(path, "p1")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    """Text with the suffix of an image is an error; so is its size."""
    path = tmp_path / "p1.png"
    path.write_text("version https://git-lfs.github.com/spec/v1")
    for read in (read_image, read_labels, image_size):
        with pytest.raises(CaseError, match=r"case 'p1': .*p1\.png cannot be decoded .*not an image"):
            read(path, "p1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The reason that the operating system gives is in the message."""
    with pytest.raises(CaseError, match=r"case 'p1': .*gone\.png cannot be read \(No such file"):
        read_image(tmp_path / "gone.png", "p1")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_an_image_or_a_case_error(data: st.DataObject) -> None:
    """Whatever a broken disk does to a file, no other exception comes out."""
    suffix = data.draw(st.sampled_from(["png", "bmp", "tiff", "jpeg"]))
    file = bytearray(encoded(Pil.fromarray(RAMP * 20), suffix))
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    for decode in (decode_image, decode_labels):
        with contextlib.suppress(CaseError):
            assert decode(bytes(file), "p1").shape[0] > 0


@pytest.mark.parametrize("factor", [1.5, 5])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_size_beyond_the_limit_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Who asks for the size alone is told the same as who opens the image."""
    (tmp_path / "p1.png").write_bytes(encoded(Pil.new("L", (100, 100), 9)))
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    for read in (image_size, read_image, read_labels):
        with pytest.raises(CaseError, match=r"case 'p1': .*p1\.png is too large to be opened safely: .*10000 pixels"):
            read(tmp_path / "p1.png", "p1")


def test_a_file_beyond_the_limit_is_not_even_read(tmp_path: Path) -> None:
    """A file of terabytes (here one hole) ends as a bad case, not as a process without memory."""
    with (tmp_path / "p1.raw").open("wb") as stream:
        stream.truncate(1 << 41)
    with pytest.raises(CaseError, match=r"p1\.raw is too large .*: 2199023255552 bytes are more than an image of 8947"):
        read_image(tmp_path / "p1.raw", "p1")


def black_png(width: int, height: int) -> bytes:
    """Return a PNG that can be decoded: grey, all zero, made without ever holding its pixels."""
    size = (width + 1) * height
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    rest = packer.compress(bytes(size % (1 << 20))) + packer.flush()
    checksum = struct.pack(">I", size % 65521 << 16 | 1)  # Adler-32 of zeros
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": b"\x78\xda" + block * (size >> 20) + rest + checksum,
        b"IEND": b"",
    }
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_the_bomb_of_these_tests_would_go_off() -> None:
    """It is a PNG that Pillow decodes, where it is small enough."""
    assert not np.asarray(Pil.open(io.BytesIO(black_png(1500, 1000)))).any()


MEASURED = """
import resource, sys
from pathlib import Path
from PIL import Image
from promptseg.errors import CaseError
from promptseg.data.images import image_size, read_image, read_labels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (image_size, read_image, read_labels):
    try:
        print(read.__name__, getattr(read(Path(sys.argv[1]), "p1"), "shape", "size"))
    except CaseError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def measured(path: Path) -> tuple[list[str], int]:
    """Return what the readers say of a file, and the MiB that the process grew by."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, str(path)]
    *lines, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return lines, int(grown)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A megabyte that claims 30,000 x 30,000 pixels, 900 MB, is named and costs no memory."""
    (tmp_path / "bomb.png").write_bytes(black_png(30_000, 30_000))
    lines, grown = measured(tmp_path / "bomb.png")
    assert len(lines) == 3
    assert all("bomb.png is too large to be opened safely: " in line and "900000000 pixels" in line for line in lines)
    assert grown < 30


def test_a_large_image_is_read(tmp_path: Path) -> None:
    """8192 x 8192 is within the limit; the memory it takes is bounded."""
    picture = np.zeros((8192, 8192), dtype=np.uint8)
    picture[4000:4100, 4000:4100] = 200
    Pil.fromarray(picture).save(tmp_path / "large.png", compress_level=1)
    lines, grown = measured(tmp_path / "large.png")
    assert lines == ["image_size size", "read_image (8192, 8192, 3)", "read_labels (8192, 8192)"]
    assert grown < 1500


def test_a_bomb_among_images_fails_by_its_case(project: Project) -> None:
    """A run names it; the other cases are scored."""
    (project.pytester.path / "squares" / "images" / "case_04.png").write_bytes(black_png(30_000, 30_000))
    cell = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
    (score,) = project.scores(*cell).values()
    assert (score["n"], score["n_errors"], score["outcome"]) == (9, 1, "failed")
    assert "case 'case_04' failed: " in score["reason"]
    assert "case_04.png is too large to be opened safely: " in score["reason"]


@pytest.mark.parametrize("factor", [1.5, 5])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_named_by_its_size(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Pillow warns above its limit and refuses above twice of it: both are errors that name the pixels."""
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    data = encoded(Pil.new("L", (100, 100), 9))
    with pytest.raises(CaseError, match=r"case 'p1': image is too large .*10000 pixels.*MAX_IMAGE_PIXELS"):
        decode_image(data, "p1")


def test_a_decompression_bomb_under_error_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where warnings are errors the message is the same."""
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 9_000)
    with pytest.raises(CaseError, match=r"case 'p1': mask is too large .*10000 pixels"):
        decode_labels(encoded(Pil.new("L", (100, 100), 9)), "p1")


def test_a_stack_of_pages_is_refused() -> None:
    """A TIFF of three planes is not cut to the first."""
    plane = Pil.fromarray(RAMP)
    data = encoded(plane, "tiff", save_all=True, append_images=[plane, plane])
    with pytest.raises(CaseError, match="case 'p1': image holds 3 pages; store each plane"):
        decode_image(data, "p1")


# decode_labels


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "I", "F", "LA", "RGB", "RGBA"])
def test_label_ids_are_read_from_every_kind_of_mask(mode: str) -> None:
    """Grey values of any depth, palette indices and equal colours are the ids."""
    ids = np.array([[0, 1, 4, 255]], np.uint8)
    if mode == "P":
        image = Pil.fromarray(ids)
        image.putpalette([9, 8, 7] * 256)
    else:
        image = Pil.fromarray(ids.astype(np.uint16)) if mode == "I;16" else Pil.fromarray(ids).convert(mode)
    assert image.mode == mode
    result = decode_labels(encoded(image, "tiff" if mode in ("I", "F") else "png"), "p1")
    assert result.dtype.kind in "ui"
    np.testing.assert_array_equal(result, ids)


def test_16_bit_ids_keep_their_depth() -> None:
    """An id of 1000 stays 1000."""
    data = encoded(Pil.fromarray(np.array([[0, 1000]], np.uint16)))
    np.testing.assert_array_equal(decode_labels(data, "p1"), [[0, 1000]])


def test_black_and_white_masks_become_zero_and_one() -> None:
    """Exactly {0, 255} is a black and white mask; further values are ids; 1-bit masks are 0 and 1."""
    for values, expected in (([0, 255], [0, 1]), ([255, 255], [1, 1]), ([0, 0], [0, 0]), ([1, 255], [1, 255])):
        data = encoded(Pil.fromarray(np.array([values], np.uint8)))
        np.testing.assert_array_equal(decode_labels(data, "p1"), [expected])
    one_bit = encoded(Pil.fromarray(np.array([[0, 255]], np.uint8)).convert("1"))
    np.testing.assert_array_equal(decode_labels(one_bit, "p1"), [[0, 1]])


def test_255_can_be_an_id() -> None:
    """On request 255 stays what it is."""
    data = encoded(Pil.fromarray(np.array([[0, 255]], np.uint8)))
    np.testing.assert_array_equal(decode_labels(data, "p1", binary_255=False), [[0, 255]])


def test_a_mask_in_colours_is_refused() -> None:
    """A rendered overlay is not a label map; the number of colours is named."""
    image = Pil.new("RGB", (2, 2), (255, 0, 0))
    image.putpixel((0, 0), (0, 0, 0))
    with pytest.raises(CaseError, match=r"case 'p1': mask m.png holds 2 colours; masks must hold label ids"):
        decode_labels(encoded(image), "p1", "m.png")
    with pytest.raises(CaseError, match=r"case 'p1': mask m.tif has Pillow mode CMYK; masks must hold label ids"):
        decode_labels(encoded(image.convert("CMYK"), "tiff"), "p1", "m.tif")
    with pytest.raises(CaseError, match=r"case 'p1': mask m.png holds 16-bit colours; masks must hold label ids"):
        decode_labels(encoded_deep(np.full((2, 2, 3), 4000, np.uint16), ".png"), "p1", "m.png")


def test_a_mask_of_floats_too_large_for_an_id_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: they became the lowest integer there is."""
    Pil.fromarray(np.array([[0, 1], [2, 2.1e20]], dtype=np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(CaseError, match=r"case 'p1': mask .*m.tif holds 2.1e\+20; label ids are 0, 1, 2"):
        read_labels(tmp_path / "m.tif", "p1")


@pytest.mark.parametrize("values", [[0.5, 1.0], [-1.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]])
def test_a_mask_of_fractions_is_refused(values: list[float]) -> None:
    """Probabilities, negative numbers and NaN are not label ids."""
    data = encoded(Pil.fromarray(np.array([values], np.float32)), "tiff")
    with pytest.raises(CaseError, match=r"case 'p1': mask m.tif holds fractions or negative values; label ids are"):
        decode_labels(data, "p1", "m.tif")


def test_a_lossy_mask_is_refused() -> None:
    """JPEG turns the edges of a mask into grey tones that would pass for label ids."""
    image = np.zeros((16, 16), np.uint8)
    image[3:9, 4:11] = 255
    with pytest.raises(CaseError, match=r"case 'p1': mask m.jpg is a JPEG with \d+ grey values: lossy .* PNG"):
        decode_labels(encoded(Pil.fromarray(image), "jpeg"), "p1", "m.jpg")


def test_a_clean_jpeg_mask_is_read() -> None:
    """A JPEG that does hold 0 and 255 alone lost nothing."""
    image = np.zeros((16, 16), np.uint8)
    image[:8] = 255
    labels = decode_labels(encoded(Pil.fromarray(image), "jpeg", quality=100), "p1")
    np.testing.assert_array_equal(labels, image > 0)


# sizes


def test_image_size_reads_the_header(tmp_path: Path) -> None:
    """Height first, and a truncated body does not matter."""
    path = tmp_path / "p1.png"
    path.write_bytes(encoded(Pil.effect_noise((40, 30), 50))[:200])
    assert image_size(path, "p1") == (30, 40)


def test_sizes_that_differ_are_both_named() -> None:
    """Width and height of image and mask are in the message; swapped sizes get a hint of their own."""
    check_same_size("p1", (3, 4), (3, 4))
    with pytest.raises(CaseError, match=r"case 'p1': the image is 4 x 3 pixels .*, its mask 5 x 3\. Resize the mask"):
        check_same_size("p1", (3, 4), (3, 5))
    with pytest.raises(CaseError, match=r"its mask 3 x 4\. The sizes are swapped: .*EXIF"):
        check_same_size("p1", (3, 4), (4, 3))


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}")
def test_every_real_image_and_mask_is_read() -> None:
    """All images are what the released code would feed its model, all masks what OpenCV reads."""
    images = sorted(DATA.glob("*/images/*.png"))
    assert len(images) > 400
    for path in images:
        with Pil.open(path) as file:
            raw = np.array(file.convert("RGB"))
        image = read_image(path, path.stem)
        np.testing.assert_array_equal(image, np.uint8(raw / np.max(raw) * 255))
        mask = path.parents[1] / "masks" / path.name
        labels = read_labels(mask, path.stem)
        np.testing.assert_array_equal(labels, cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
        check_same_size(path.stem, image.shape[:2], (labels.shape[0], labels.shape[1]))
