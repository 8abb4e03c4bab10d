"""An ultrasound-like picture: scatterers, a beam, attenuation and shadows along it, log compression, a fan or a strip.

The echo field is made in the coordinates of the probe, depth along the beam and beam after beam, so speckle grows wider
with depth, and shadows follow the beams.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promptseg.datasets_registry._phantom_grid import (
    Dice,
    Field,
    Frame,
    Region,
    blur,
    blur_along,
    exp,
    log,
    to_bytes,
)
from promptseg.datasets_registry._phantom_shapes import blob, filled

_NEPER = 0.1151  # one decibel of amplitude
_RANGE = 58.0  # decibels from black to white


class Probe:
    """The geometry of a curved or a straight probe above a picture.

    Beams leave a point above the picture; a straight probe is a curved one whose point is far away. A beam is named by
    the tangent of its angle, so that no angle has to be computed.

    Args:
        hw: height and width of the picture.
        straight: whether the field is a strip that fills the picture, else a fan.
    """

    def __init__(self, hw: tuple[int, int], *, straight: bool) -> None:
        height, width = hw
        self.near = height * (6.0 if straight else 0.28)
        self.depth = height * (1.08 if straight else 0.94)
        self.tangent = width * 0.56 / self.near if straight else min(0.8, width * 0.62 / height)
        self.apex_y = -self.near if straight else 5 - self.near
        self.middle_x = (width - 1) / 2
        self.samples = (int(self.depth * 1.5), int(width * 0.8))

    def beams(self, hw: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return row and column of the pixel of each (depth, beam) sample."""
        depth = (self.near + np.arange(self.samples[0]) * (self.depth / (self.samples[0] - 1)))[:, None]
        tangent = (np.arange(self.samples[1]) * (2 * self.tangent / (self.samples[1] - 1)) - self.tangent)[None, :]
        long = np.sqrt(1 + tangent * tangent)
        rows, columns = self.apex_y + depth / long, self.middle_x + depth * tangent / long
        return _index(rows, hw[0]), _index(columns, hw[1])

    def picture(self, echoes: Field, hw: tuple[int, int]) -> tuple[Field, Region]:
        """Return (depth, beam) samples as a picture, and where the picture shows any."""
        down = np.arange(hw[0])[:, None] - self.apex_y
        right = np.arange(hw[1])[None, :] - self.middle_x
        depth = (np.sqrt(down * down + right * right) - self.near) * ((self.samples[0] - 1) / self.depth)
        beam = (right / down + self.tangent) * ((self.samples[1] - 1) / (2 * self.tangent))
        shown = (depth >= 0) & (depth <= self.samples[0] - 1) & (beam >= 0) & (beam <= self.samples[1] - 1)
        return np.where(shown, _between(echoes, depth, beam), 0), shown


def render(dice: Dice, kind: str, target: Region) -> tuple[npt.NDArray[np.uint8], Region]:
    """Return the (H, W) uint8 picture, and the target as far as the probe sees it."""
    hw = target.shape
    probe = Probe(hw, straight=kind == "border" or dice.whole(0, 2) == 0)
    level, loss = _tissue(dice, Frame(hw))
    _insert(dice, kind, target, level, loss)
    echoes = _echoes(dice, probe, level, loss)
    picture, shown = probe.picture(echoes, hw)
    return to_bytes(np.where(shown, np.maximum(picture, 0.004), 0)), target & shown


def _insert(dice: Dice, kind: str, target: Region, level: Field, loss: Field) -> None:
    """Paint the target: a cyst, a dark or a bright mass; a bright wall around fluid; a bright needle."""
    if kind == "hollow":
        inside = filled(target)
        level[inside], loss[inside] = -46, -0.02
    strength = {"thin": -6.0, "tiny": -4.0, "hollow": -9.0}.get(kind)
    if strength is None:
        strength = (-48.0, -33.0, -31.0, -10.0)[dice.whole(0, 3)]
    level[target] = (strength + 2 * dice.smooth(target.shape, 9))[target]
    loss[target] = -0.03 if strength < -40 else 0.012
    rim = blur(target.astype(np.float64), 1)
    edge = (rim > 0.2) & (rim < 0.8) & (strength < -30)
    level[edge & ~target] += 7  # a capsule


def _tissue(dice: Dice, frame: Frame) -> tuple[Field, Field]:
    """Return echo level in decibels and loss in decibels a sample, of tissue without the target."""
    level = -23 + 3 * dice.smooth(frame.hw, 40) + 2 * dice.smooth(frame.hw, 14)
    loss = np.full(frame.hw, 0.012)
    _layers(dice, frame, level)
    for _ in range(dice.whole(2, 4)):
        _vessel(dice, frame, level, loss)
    for _ in range(2):
        level[blob(dice, frame, dice.real(-0.4, 0.7), dice.real(-0.8, 0.8), 0.14)] += 6 * dice.sign()
    _stone(dice, frame, level, loss)
    deep = 0.82 + 0.2 * frame.x * frame.x + 0.03 * dice.smooth(frame.hw, 40)
    level[frame.band(deep, 0.018)] = -5
    return level, loss


def _layers(dice: Dice, frame: Frame, level: Field) -> None:
    """Paint skin, fat and muscle with their fasciae near the probe."""
    wave = 0.05 * dice.smooth(frame.hw, 45)
    top = frame.y[0, 0]
    depth = top + 0.34 + wave + 0.1 * frame.x * dice.sign()
    level[frame.y < depth] = -29
    streaks = dice.smooth((frame.hw[0], frame.hw[1]), 5) * 5
    muscle = (frame.y > depth) & (frame.y < depth + 0.22)
    level[muscle] = (-27 + streaks)[muscle]
    for place in (0.0, 0.22, dice.real(0.08, 0.15)):
        broken = dice.smooth(frame.hw, 20) > -0.6
        level[frame.band(depth + place, 0.013) & broken] = -8
    level[frame.y < top + 0.06] = -10


def _vessel(dice: Dice, frame: Frame, level: Field, loss: Field) -> None:
    """Paint a round or long vessel: a bright wall around fluid."""
    y, x, radius = dice.real(-0.3, 0.7), dice.sign() * dice.real(0.35, 0.9), dice.real(0.04, 0.09)
    vessel = frame.ellipse(y, x, radius, radius * dice.real(1, 3.5), dice.turn())
    level[vessel < 1.4] = -15
    level[vessel < 1], loss[vessel < 1] = -46, 0.0


def _stone(dice: Dice, frame: Frame, level: Field, loss: Field) -> None:
    """Paint a strong reflector that lets almost nothing through."""
    y, x = dice.real(-0.2, 0.3), dice.sign() * dice.real(0.55, 0.95)
    stone = frame.ellipse(y, x, 0.035, dice.real(0.06, 0.12), dice.turn())
    level[stone < 1], loss[stone < 1] = 0, 1.8


def _echoes(dice: Dice, probe: Probe, level: Field, loss: Field) -> Field:
    """Return (depth, beam) grey values from 0 to 1 of what comes back."""
    rows, columns = probe.beams(level.shape)
    along = np.cumsum((loss[rows, columns] * 1000).astype(np.int64), axis=0) / 1000  # whole numbers add up exactly
    depth = np.arange(probe.samples[0])[:, None] / probe.samples[0]
    gain = level[rows, columns] - along + 3 - 5 * depth  # the operator's depth gain is nearly right
    strength = exp(gain * _NEPER)
    real, imaginary = (_beam(strength * dice.gauss(probe.samples)) for _ in range(2))
    floor = 0.0012
    real, imaginary = (part + floor * dice.gauss(probe.samples) for part in (real, imaginary))
    power = real * real + imaginary * imaginary + 1e-12
    return log(power) / (2 * _NEPER * _RANGE) + 1.0


def _beam(field: Field) -> Field:
    """Return scatterers as a pulse of about 2 samples and a beam of about 5 see them."""
    return blur_along(blur_along(field, 0, 1), 1, 1, 1, 2) * 2.6


def _index(places: Field, length: int) -> npt.NDArray[np.int64]:
    return np.minimum(np.maximum(np.floor(places + 0.5), 0), length - 1).astype(np.int64)


def _between(samples: Field, rows: Field, columns: Field) -> Field:
    """Return ``samples`` at fractional places, bilinear; places outside take the edge."""
    rows = np.minimum(np.maximum(rows, 0), samples.shape[0] - 1.001)
    columns = np.minimum(np.maximum(columns, 0), samples.shape[1] - 1.001)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = rows - top, columns - left
    upper = samples[top, left] * (1 - right) + samples[top, left + 1] * right
    lower = samples[top + 1, left] * (1 - right) + samples[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down
