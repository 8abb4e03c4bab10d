"""What becomes of Hounsfield units, MR values and SUV in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from promptseg.errors import CaseError
from promptseg.preparation.intensity import ct_window, mr_percentiles, pet_ct, scaled
from promptseg.preparation.volumes import Volume, scalar


def made(values: npt.NDArray[Any], slope: float = 1, intercept: float = 0) -> Volume:
    """Return a volume named v."""
    return Volume(name="v", values=values, affine=np.eye(4), slope=scalar(slope), intercept=scalar(intercept))


def test_a_window_is_linear_and_cut() -> None:
    """Its ends are 0 and 255, what lies beyond is cut, and values are rounded to the nearest, halves to the even."""
    plane = np.array([[-1000, -160, -159, 40, 239, 240, 3000]], np.float32)
    windowed = ct_window(plane, -160, 240)
    assert windowed.dtype == np.uint8
    np.testing.assert_array_equal(windowed, [[0, 0, 1, 128, 254, 255, 255]])  # -159: 0.64, 40: 127.5, 239: 254.36
    np.testing.assert_array_equal(scaled(np.array([0.5, 1.5, 2.5]), 0, 255), [0, 2, 2])


def test_a_range_must_be_one() -> None:
    """An empty or turned range, and NaN, would give pictures that mean nothing."""
    for low, high in ((1, 1), (2, 1), (np.nan, 1)):
        with pytest.raises(ValueError, match=r"The range .* is empty"):
            scaled(np.zeros((2, 2)), low, high)
    with pytest.raises(ValueError, match="1 of 2 values are NaN or infinite"):
        scaled(np.array([np.nan, 1]), 0, 1)


@pytest.mark.parametrize("background", [0, 10**4])
def test_percentiles_are_of_what_is_not_zero(background: int) -> None:
    """However much background there is, and over all planes, the ends are the tissue's."""
    tissue = np.arange(1, 1001, dtype=np.int16)
    values = np.concatenate([np.zeros(background, np.int16), tissue]).reshape(4, 5, -1)
    low, high = mr_percentiles(made(values))
    np.testing.assert_allclose((low, high), np.percentile(tissue, (0.5, 99.5)), rtol=1e-6)
    assert mr_percentiles(made(values), 0, 100) == (1, 1000)


def test_percentiles_are_of_real_values() -> None:
    """A stored 0 that means something else counts, a stored value that means 0 does not."""
    values = np.array([[[0, 10, 20, 30]]], np.int16)
    assert mr_percentiles(made(values, 2, -20), 0, 100) == (-20, 40)
    assert mr_percentiles(made(values[..., 1:], 2, -20), 0, 100) == (20, 40)


def test_volumes_without_a_range() -> None:
    """All zero, all the same, and NaN: the volume is named, and what was found."""
    with pytest.raises(CaseError, match="case 'v': the volume is all zero"):
        mr_percentiles(made(np.zeros((2, 3, 4), np.int16)))
    with pytest.raises(CaseError, match=r"0\.5 and 99\.5 of its 24 non-zero values are both 7"):
        mr_percentiles(made(np.full((2, 3, 4), 7, np.int16)))
    with pytest.raises(CaseError, match="case 'v': 24 of 24 values of the volume are NaN or infinite"):
        mr_percentiles(made(np.full((2, 3, 4), np.nan, np.float32)))


def test_pet_is_red_and_ct_the_rest() -> None:
    """SUV 0 to 10 in red, -160 to 240 HU in green and blue."""
    picture = pet_ct(np.array([[0, 5, 12]], np.float32), np.array([[240, -160, 40]], np.float32))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[[0, 255, 255], [128, 0, 0], [255, 128, 128]]])


def test_pet_and_ct_must_lie_on_one_grid() -> None:
    """The PET's own grid is coarser; nothing is broadcast."""
    with pytest.raises(ValueError, match=r"The PET plane is \(1, 1\), the CT plane \(2, 2\): resample"):
        pet_ct(np.zeros((1, 1)), np.zeros((2, 2)))
