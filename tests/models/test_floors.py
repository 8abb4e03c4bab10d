"""The floors and the ceiling, by hand-computed masks."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from promptseg import ModelError, ModelSpec, Prompt, Request, Runtime
from promptseg.errors import ConfigError
from promptseg.models.reference import floors, perfect
from promptseg.segmenter import Mask


def _mask(spec: ModelSpec, prompt: Prompt, size_hw: tuple[int, int] = (10, 20)) -> Mask:
    image = np.zeros((*size_hw, 3), dtype=np.uint8)
    model = floors.load(spec, {}, Runtime())
    (prediction,) = model.predict([Request(model.embed([image])[0], prompt)])
    assert prediction.masks.shape == (1, *size_hw)
    assert prediction.predicted_iou is None
    return np.asarray(prediction.masks[0])


def _box(*edges: float) -> Prompt:
    return Prompt(box_xyxy=np.array(edges, dtype=np.float32))


def _points(*points: tuple[float, float, int]) -> Prompt:
    array = np.array(points, dtype=np.float32)
    return Prompt(array[:, :2], array[:, 2].astype(np.int64))


def test_box_is_filled_with_its_last_row_and_column() -> None:
    """A box from (3, 2) to (5, 6) covers 3 columns and 5 rows."""
    mask = _mask(floors.BOX_FILL, _box(3, 2, 5, 6))
    assert mask.sum() == 15
    assert mask[2:7, 3:6].all()


def test_box_of_one_pixel_is_one_pixel() -> None:
    """First and last pixel may be the same one."""
    assert _mask(floors.BOX_FILL, _box(19, 9, 19, 9)).nonzero() == (np.array([9]), np.array([19]))


def test_box_is_clipped_to_the_image() -> None:
    """What lies outside the image is not predicted."""
    assert _mask(floors.BOX_FILL, _box(-5, -5, 40, 40)).all()


def test_disc_has_a_tenth_of_the_shorter_side_as_radius() -> None:
    """On 40 x 60 the radius is 4 pixels: 49 pixel centres lie within, 4 to the right but not 5."""
    mask = _mask(floors.POINT_DISC, _points((30, 20, 1)), (40, 60))
    assert mask.sum() == sum(x * x + y * y <= 16 for x in range(-4, 5) for y in range(-4, 5)) == 49
    assert mask[20, 34]
    assert not mask[20, 35]
    assert mask[16, 30]


def test_discs_are_united() -> None:
    """Two points far apart give two discs."""
    size_hw = (40, 60)
    both = _mask(floors.POINT_DISC, _points((10, 10, 1), (50, 30, 1)), size_hw)
    assert both.sum() == 98


def test_background_point_cuts_its_disc_out() -> None:
    """A background point on the rim leaves the far side of the disc."""
    mask = _mask(floors.POINT_DISC, _points((30, 20, 1), (34, 20, 0)), (40, 60))
    assert 0 < mask.sum() < 49
    assert mask[20, 26]
    assert not mask[20, 31]


def test_disc_of_a_tiny_image_is_the_point() -> None:
    """A radius below one pixel still covers the pixel of the point."""
    assert _mask(floors.POINT_DISC, _points((2, 1, 1)), (4, 4)).sum() == 1


def test_unknown_shape_is_named() -> None:
    """A spec with another shape is refused when it is loaded."""
    with pytest.raises(ConfigError, match="shape is 'star'; the floors are 'box' and 'disc'"):
        floors.load(replace(floors.BOX_FILL, options={"shape": "star"}), {}, Runtime())


@pytest.mark.parametrize("radius", [None, 0, -1, "0.1"])
def test_unusable_radius_is_named(radius: object) -> None:
    """A radius must be a positive number."""
    with pytest.raises(ConfigError, match=r"radius is .* must be a number above 0"):
        floors.load(replace(floors.POINT_DISC, options={"shape": "disc", "radius": radius}), {}, Runtime())


def test_perfect_returns_a_copy_of_the_target() -> None:
    """The answer equals the target and does not share its memory."""
    target = np.eye(5, 7, dtype=np.bool_)
    model = perfect.load(perfect.SPEC, {}, Runtime())
    image = np.zeros((5, 7, 3), dtype=np.uint8)
    (prediction,) = model.predict([Request(model.embed([image])[0], _points((0, 0, 1)), target=target)])
    assert np.array_equal(prediction.masks, target[None])
    assert not np.shares_memory(prediction.masks, target)


def test_perfect_says_that_it_got_no_target() -> None:
    """Without a target there is nothing to return."""
    model = perfect.load(perfect.SPEC, {}, Runtime())
    with pytest.raises(ModelError, match="'perfect' got no target"):
        model.predict([Request(None, _points((0, 0, 1)))])


def test_perfect_does_not_run_in_a_plain_run() -> None:
    """A model that knows the answer says so and is not embedded."""
    assert perfect.SPEC.sees_target
    assert not perfect.SPEC.embedded


def test_specs_import_nothing_heavy() -> None:
    """Listing the models without weights imports neither numpy nor an image library."""
    names = (
        "reference.floors",
        "reference.perfect",
        "classical.grabcut",
        "classical.random_walker",
        "classical.region_growing",
    )
    code = "import sys\n" + "".join(f"import promptseg.models.{name}\n" for name in names)
    code += "print(sorted({'numpy', 'cv2', 'skimage', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
