"""A CT-like slice of an abdomen: Hounsfield units, noise shaped by the reconstruction, a soft-tissue window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promptseg.datasets_registry._phantom_grid import Dice, Field, Frame, Region, blur, to_bytes
from promptseg.datasets_registry._phantom_shapes import blob, filled

AIR, LUNG, FAT, WATER, MUSCLE, LIVER, KIDNEY, MARROW, BONE = -1000, -800, -100, 15, 55, 95, 165, 230, 650


def render(dice: Dice, kind: str, target: Region) -> tuple[npt.NDArray[np.uint8], Region]:
    """Return the (H, W) uint8 picture, and the target as far as it is in the body."""
    border = kind == "border"
    frame = Frame(target.shape, zoom=1.9 if border else 1.1, at=(0.05, 0.1 * dice.sign()) if border else (-0.12, 0.0))
    wall = frame.ellipse(0, 0, 0.76, 0.94) * (1 + 0.05 * dice.smooth(frame.hw, 60))
    seen = target & (wall < 0.8)
    units = _abdomen(dice, frame, wall)
    if kind == "hollow":
        units[filled(target) & (wall < 0.8)] = WATER
    units[seen] = _contrast(dice, kind, frame.hw)[seen]
    units = blur(units, 1) + _noise(dice, wall)
    return to_bytes((units + 160) / 400), seen  # window 400, level 40


def _contrast(dice: Dice, kind: str, hw: tuple[int, int]) -> Field:
    """Return the target's own Hounsfield units: enhancing tissue, a vessel for what is thin."""
    level = {"thin": 190, "tiny": 175, "hollow": 130}.get(kind, dice.whole(115, 140))
    return level + 8 * dice.smooth(hw, 9)


def _abdomen(dice: Dice, frame: Frame, wall: Field) -> Field:
    """Return Hounsfield units of a body without the target."""
    units = np.where(wall < 1, FAT + 8 * dice.smooth(frame.hw, 10), AIR)
    units[(wall < 1) & (wall > 0.965)] = 20  # skin
    units[(wall < 0.8) & (wall > 0.66)] = MUSCLE
    inside = wall < 0.64
    side = dice.sign()
    _fill(units, inside & blob(dice, frame, -0.08, -0.48 * side, 0.5), LIVER + 8 * dice.smooth(frame.hw, 14))
    _fill(units, inside & blob(dice, frame, 0.02, 0.55 * side, 0.24), LIVER + 20 + 8 * dice.smooth(frame.hw, 14))
    for x in (-0.38, 0.38):
        _kidney(dice, frame, units, 0.3 + dice.real(-0.04, 0.04), x)
    for _ in range(9):
        _bowel(dice, frame, units, inside)
    _spine(dice, frame, units)
    _ribs(dice, frame, units, wall)
    table = np.abs(frame.y - 0.93 + 0.12 * frame.x * frame.x) < 0.02
    units[table & (wall > 1.02)] = -250
    return units


def _fill(units: Field, region: Region, values: Field) -> None:
    units[region] = values[region]


def _kidney(dice: Dice, frame: Frame, units: Field, y: float, x: float) -> None:
    """Paint an enhanced cortex around a darker sinus."""
    turn = dice.turn()
    kidney = frame.ellipse(y, x, 0.13, 0.18, turn) * (1 + 0.15 * dice.smooth(frame.hw, 12))
    units[kidney < 1] = KIDNEY
    units[kidney < 0.45] = KIDNEY - 45
    units[frame.ellipse(y, x * 0.93, 0.04, 0.08, turn) < 1] = FAT + 30


def _bowel(dice: Dice, frame: Frame, units: Field, inside: Region) -> None:
    """Paint one loop: a wall around fluid, sometimes with gas on top of it."""
    y, x, radius = dice.real(-0.55, 0.12), dice.real(-0.5, 0.5), dice.real(0.06, 0.13)
    loop = frame.ellipse(y, x, radius, radius * dice.real(1, 1.7), dice.turn())
    units[inside & (loop < 1)] = MUSCLE + 20
    units[inside & (loop < 0.6)] = WATER + dice.whole(0, 25)
    if dice.whole(0, 2) == 0:
        units[inside & (loop < 0.6) & (frame.y < y)] = LUNG


def _spine(dice: Dice, frame: Frame, units: Field) -> None:
    """Paint vertebra, canal, processes, the muscles beside them, aorta and vena cava."""
    for x in (-0.2, 0.2):
        units[frame.ellipse(0.56, x, 0.13, 0.17) < 1] = MUSCLE
        units[frame.ellipse(0.36, x * 0.95, 0.1, 0.09) < 1] = MUSCLE
    body = frame.ellipse(0.36, 0, 0.12, 0.16)
    units[body < 1] = BONE
    _fill(units, body < 0.78, MARROW + 60 * dice.smooth(frame.hw, 3))
    arch = frame.ellipse(0.52, 0, 0.075, 0.095)
    units[(arch < 1.9) | ((np.abs(frame.x) < 0.022) & (frame.y > 0.55) & (frame.y < 0.68))] = BONE
    units[(np.abs(frame.y - 0.51 - 0.1 * np.abs(frame.x)) < 0.028) & (np.abs(frame.x) < 0.24)] = BONE - 150
    units[arch < 1] = 25
    units[frame.ellipse(0.17, -0.06, 0.062, 0.062) < 1] = 185
    units[frame.ellipse(0.17, 0.12, 0.05, 0.075) < 1] = 130


def _ribs(dice: Dice, frame: Frame, units: Field, wall: Field) -> None:
    """Paint ribs where the muscle wall is, cut obliquely."""
    layer = (wall > 0.68) & (wall < 0.79)
    for x in (-0.8, -0.62, 0.62, 0.8):
        for y in (-0.42, 0.0, 0.36):
            rib = frame.ellipse(y + dice.real(-0.08, 0.08), x, 0.1, 0.12)
            units[layer & (rib < 1)] = BONE - 100
            units[(wall > 0.705) & (wall < 0.765) & (rib < 0.6)] = MARROW


def _noise(dice: Dice, wall: Field) -> Field:
    """Return noise in Hounsfield units.

    Filtered back projection takes out its low frequencies, the kernel its high ones; it is strongest in the middle of
    the body, where the fewest photons come through.
    """
    white = blur(dice.gauss(wall.shape), 1)
    grain: Field = white - blur(white, 2, 3)
    level: Field = 18 + 28 * np.maximum(0, 1 - wall)
    return grain * level
