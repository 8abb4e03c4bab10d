"""An X-ray-like picture of a chest: attenuation added up along the beam, counted photons, scatter, a film's scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promptseg.datasets_registry._phantom_grid import Dice, Field, Frame, Region, blur, exp, log, to_bytes
from promptseg.datasets_registry._phantom_shapes import blob

_PHOTONS = 3000.0  # a pixel, without a patient


def render(dice: Dice, kind: str, target: Region) -> tuple[npt.NDArray[np.uint8], Region]:
    """Return the (H, W) uint8 picture, and the target, which the picture shows as a whole."""
    border = kind == "border"
    frame = Frame(target.shape, zoom=1.25 if border else 1.0)
    depth = blur(_chest(dice, frame), 1) + _object(dice, kind, target)
    return to_bytes(_film(dice, depth)), target


def _object(dice: Dice, kind: str, target: Region) -> Field:
    """Return what the target adds to the attenuation: metal where it is thin or a ring, else tissue that is round."""
    solid = target.astype(np.float64)
    peak = {"thin": 0.75, "tiny": 0.6, "hollow": 0.5}.get(kind, dice.real(0.45, 0.6))
    rounds = (2, 4, 6) if kind in ("large", "border") else (1, 2)
    return peak * solid * (0.45 + 0.55 * blur(solid, *rounds)) * (1 + 0.06 * dice.smooth(target.shape, 12))


def _chest(dice: Dice, frame: Frame) -> Field:
    """Return the attenuation along each ray: trunk, lungs, heart, diaphragm, vessels and bones."""
    trunk = frame.ellipse(0.25, 0, 1.5, 1.12) * (1 + 0.02 * dice.smooth(frame.hw, 60))
    neck = frame.ellipse(-1.0, 0, 0.5, 0.3)
    depth = 2.2 * _thick(trunk) + 0.9 * _thick(neck) * (trunk > 0.9)
    depth += 0.25 * _thick(frame.ellipse(0.5, -0.62, 0.3, 0.26)) + 0.25 * _thick(frame.ellipse(0.5, 0.62, 0.3, 0.26))
    left, right = _lung(dice, frame, -1), _lung(dice, frame, 1)
    air = np.maximum(_thick(left), _thick(right))
    belly = frame.y > 0.62 + 0.25 * frame.x * frame.x + 0.02 * dice.smooth(frame.hw, 50)
    air = np.where(belly, 0, air)
    heart = np.maximum(_thick(frame.ellipse(0.28, 0.14, 0.36, 0.34, (4 / 5, 3 / 5))), 0)
    mediastinum = np.maximum(0, 1 - np.abs(frame.x) / 0.2)
    depth -= 1.35 * air * (1 - 0.75 * heart)
    depth += 0.35 * mediastinum + np.where(belly, 0.25, 0.0) + _vessels(dice, frame, air)
    return np.maximum(depth + _bones(dice, frame), 0)


def _thick(inside: Field) -> Field:
    """Return the thickness of an ellipsoid along the ray, 1 in its middle, flattened."""
    return np.sqrt(np.sqrt(np.maximum(0, 1 - inside)))


def _lung(dice: Dice, frame: Frame, side: int) -> Field:
    """Return the ellipse of one lung, narrower at its top."""
    lean = (frame.x - side * 0.47) * (1 + 0.25 * (0.1 - frame.y)) / 0.37
    down = (frame.y - 0.02) / 0.83
    return (lean * lean + down * down) * (1 + 0.06 * dice.smooth(frame.hw, 40))


def _vessels(dice: Dice, frame: Frame, air: Field) -> Field:
    """Return the branching texture of a lung, denser at its root."""
    root = np.maximum(0, 1 - (frame.ellipse(0.05, -0.3, 0.5, 0.35) * 0.5)) + np.maximum(
        0, 1 - (frame.ellipse(0.05, 0.3, 0.5, 0.35) * 0.5)
    )
    ridges = sum(
        (np.maximum(0, 0.16 - np.abs(dice.smooth(frame.hw, step))) for step in (9, 15, 24)), np.zeros(frame.hw)
    )
    return air * (0.08 * root + 1.0 * ridges * (0.25 + 0.5 * root))


def _bones(dice: Dice, frame: Frame) -> Field:
    """Return what spine, ribs, collar bones and shoulder blades add."""
    column = np.maximum(0, 1 - (frame.x * frame.x) / 0.0121)
    place = (frame.y + 2) * 6.5
    disc = np.abs(place - np.floor(place) - 0.5) < 0.1
    depth = 0.42 * np.sqrt(column) * np.where(disc, 0.72, 1.0)
    for number in range(10):
        depth += _rib(frame, -0.95 + 0.165 * number + dice.real(-0.01, 0.01), 1.0, 0.034, 0.42)
    for number in range(5):
        depth += _rib(frame, 0.0 + 0.19 * number, -0.6, 0.036, 0.2) * (np.abs(frame.x) > 0.3)
    for side in (-1, 1):
        slope = -0.72 - 0.16 * (side * frame.x - 0.1) + 0.03 * dice.smooth(frame.hw, 60)
        depth += 0.5 * _tube(frame.y - slope, 0.045) * ((side * frame.x > 0.07) & (side * frame.x < 0.85))
        blade = blob(dice, frame, -0.45, side * 0.86, 0.3, wobble=0.2)
        depth += 0.22 * blur(blade.astype(np.float64), 1, 2)
        depth += 0.9 * _thick(frame.ellipse(-0.1, side * 1.22, 0.9, 0.24))
        depth += 0.7 * _thick(frame.ellipse(-0.6, side * 1.08, 0.18, 0.16))
    return depth


def _rib(frame: Frame, top: float, fall: float, half: float, strength: float) -> Field:
    """Return one pair of ribs: bands that fall to both sides (or rise) and turn back at the flank."""
    out = np.abs(frame.x)
    middle = top + fall * (out * 0.75 - 0.1) - 0.45 * fall * out * out
    slope = fall * 0.75 - 0.9 * fall * out
    away = (frame.y - middle) / np.sqrt(1 + slope * slope)
    return strength * _tube(away, half) * ((out > 0.07) & (out < 0.92))


def _tube(away: Field, half: float) -> Field:
    """Return the thickness of a wall around marrow: brightest at the two edges."""
    square = (away / half) * (away / half)
    return np.sqrt(np.maximum(0, 1 - square)) - 0.55 * np.sqrt(np.maximum(0, 1 - square / 0.6))


def _film(dice: Dice, depth: Field) -> Field:
    """Return grey values of counted photons: bone bright, air dark.

    Counts are large, so Poisson's distribution is taken as a Gaussian of the same variance.
    """
    primary = _PHOTONS * exp(-depth)
    beam = primary + 0.15 * blur(primary, 2, 4, 8, 12)
    counts = np.maximum(beam + np.sqrt(beam) * dice.gauss(depth.shape), 1)
    seen = log(_PHOTONS * 1.15 / (0.6 * counts + 0.4 * blur(counts, 1)))
    return (seen - 0.5) / 2.6
