"""Arithmetic of the phantoms that gives the same bits on every machine.

Random numbers are the raw 64-bit words of PCG64, whose stream numpy guarantees for a seed, and sums of their bytes: no
distribution of numpy's is used, since those may change between versions. On floats only +, -, *, / and square roots are
used, element by element: IEEE 754 says the last bit of each of these. Not used are functions whose last bits a maths
library or a vector unit chooses (exp, log, sin, pow), and sums over floats, whose order is numpy's choice.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]  # (H, W) values of a quantity
Region = npt.NDArray[np.bool_]  # (H, W)
Turn = tuple[float, float]  # cosine and sine of an angle

# Angles with rational cosine and sine, so that none is computed: about 0, 23, 37, 53 and 67 degrees, up and down.
TURNS: tuple[Turn, ...] = tuple(
    (c / n, sign * s / n) for c, s, n in ((1, 0, 1), (12, 5, 13), (4, 3, 5), (3, 4, 5), (5, 12, 13)) for sign in (1, -1)
)


class Dice:
    """A source of random numbers that depends on a name alone."""

    def __init__(self, name: str) -> None:
        self._bits = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))

    def whole(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def real(self, low: float, high: float) -> float:
        """Return a number from ``low`` to ``high``, one of 1001 evenly spaced."""
        return low + (high - low) * (self.whole(0, 1000) / 1000)

    def turn(self) -> Turn:
        """Return one of `TURNS`."""
        return TURNS[self.whole(0, len(TURNS) - 1)]

    def sign(self) -> int:
        """Return 1 or -1."""
        return 2 * self.whole(0, 1) - 1

    def gauss(self, hw: tuple[int, int]) -> Field:
        """Return noise of mean 0 and standard deviation 1: the sum of eight bytes, nearly Gaussian up to 4.9."""
        words = self._words(hw[0] * hw[1])
        total: Field = words.view(np.uint8).reshape(*hw, 8).sum(axis=-1, dtype=np.int64).astype(np.float64)
        return (total - 1020) / 209  # 8 * 127.5, and sqrt(8 * (256 ** 2 - 1) / 12)

    def smooth(self, hw: tuple[int, int], step: float) -> Field:
        """Return random hills and valleys from -1 to 1, ``step`` pixels apart."""
        pitch = max(2, int(step))
        rows, columns = hw[0] // pitch + 2, hw[1] // pitch + 2
        knots = (self._words(rows * columns) % 2001).astype(np.float64).reshape(rows, columns) / 1000 - 1
        (top, down), (left, right) = _weights(hw[0], pitch), _weights(hw[1], pitch)
        low = knots[top][:, left] * (1 - right) + knots[top][:, left + 1] * right
        high = knots[top + 1][:, left] * (1 - right) + knots[top + 1][:, left + 1] * right
        return low * (1 - down[:, None]) + high * down[:, None]

    def _words(self, count: int) -> npt.NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)


def _weights(length: int, pitch: int) -> tuple[npt.NDArray[np.int64], Field]:
    """Return the knot before each pixel, and the smooth share of the one after it."""
    pixels = np.arange(length)
    share = (pixels % pitch) / pitch
    return pixels // pitch, share * share * (3 - 2 * share)


def blur(field: Field, *steps: int) -> Field:
    """Return ``field`` smoothed by (1, 2, 1) / 4 along rows and columns, once for each step, that many pixels apart."""
    for step in steps:
        field = blur_along(blur_along(field, 0, step), 1, step)
    return field


def blur_along(field: Field, axis: int, *steps: int) -> Field:
    """Return ``field`` smoothed along one axis; see `blur`."""
    for step in steps:
        pad = [(step, step) if a == axis else (0, 0) for a in (0, 1)]
        wide = np.pad(field, pad, mode="edge")
        length = field.shape[axis]
        before, after = (np.take(wide, np.arange(length) + start, axis=axis) for start in (0, 2 * step))
        field = (before + after) * 0.25 + field * 0.5
    return field


def exp(field: Field) -> Field:
    """Return e to the power of values from about -50 to 10: (1 + x / 4096) ** 4096 by squaring."""
    result = 1 + np.maximum(field, -50) / 4096
    for _ in range(12):
        result = result * result
    return result


def log(field: Field) -> Field:
    """Return the natural logarithm of positive values: 4096 * (x ** (1 / 4096) - 1) by square roots."""
    for _ in range(12):
        field = np.sqrt(field)
    return (field - 1) * 4096


def to_bytes(field: Field) -> npt.NDArray[np.uint8]:
    """Return ``field``, black at 0 and white at 1, as (H, W) uint8."""
    return np.floor(np.minimum(np.maximum(field, 0), 1) * 255 + 0.5).astype(np.uint8)


class Frame:
    """Coordinates of a picture: ``y`` down and ``x`` to the right, 0 in the middle, 1 about half the shorter side.

    A picture that is not square stretches the anatomy by half of the difference.

    Args:
        hw: height and width in pixels.
        zoom: how much larger than usual the anatomy is.
        at: (y, x) that stands in the middle.
    """

    def __init__(self, hw: tuple[int, int], zoom: float = 1.0, at: tuple[float, float] = (0.0, 0.0)) -> None:
        self.hw = hw
        short = min(hw)
        self.unit_yx = ((hw[0] + short) * zoom / 4, (hw[1] + short) * zoom / 4)
        self.y = ((np.arange(hw[0]) - (hw[0] - 1) / 2) / self.unit_yx[0] + at[0])[:, None] + np.zeros(hw)
        self.x = ((np.arange(hw[1]) - (hw[1] - 1) / 2) / self.unit_yx[1] + at[1])[None, :] + np.zeros(hw)

    def ellipse(self, y: float, x: float, ry: float, rx: float, turn: Turn = (1.0, 0.0)) -> Field:
        """Return the squared distance from (y, x) in radii: below 1 inside of the ellipse."""
        right, down = self.x - x, self.y - y
        u = (right * turn[0] + down * turn[1]) / rx
        v = (down * turn[0] - right * turn[1]) / ry
        return u * u + v * v

    def band(self, middle: Field, half: float) -> Region:
        """Return where ``y`` is within ``half`` of ``middle``, a value for each pixel."""
        return np.abs(self.y - middle) < half
