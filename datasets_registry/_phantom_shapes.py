"""The targets of the phantoms: the same kinds for every modality."""

from __future__ import annotations

import numpy as np

from promptseg.datasets_registry._phantom_grid import Dice, Frame, Region

# Case id to the kind of shape and the size of the picture, height and width.
CASES: dict[str, tuple[str, tuple[int, int]]] = {
    "border_00": ("border", (256, 256)),
    "border_01": ("border", (300, 220)),
    "hollow_00": ("hollow", (240, 240)),
    "hollow_01": ("hollow", (220, 300)),
    "large_00": ("large", (256, 256)),
    "large_01": ("large", (192, 320)),
    "parts_00": ("parts", (256, 256)),
    "parts_01": ("parts", (220, 300)),
    "thin_00": ("thin", (300, 220)),
    "thin_01": ("thin", (256, 256)),
    "tiny_00": ("tiny", (256, 256)),
    "tiny_01": ("tiny", (192, 320)),
}


def target(dice: Dice, case_id: str) -> Region:
    """Return the (H, W) target of a case before the anatomy cuts it."""
    kind, hw = CASES[case_id]
    return _MAKERS[kind](dice, Frame(hw), int(case_id[-2:]))


def blob(dice: Dice, frame: Frame, y: float, x: float, radius: float, *, wobble: float = 0.35) -> Region:
    """Return a rounded, uneven patch of about ``radius``, longer in one direction."""
    stretch = dice.real(1.0, 1.5)
    inside = frame.ellipse(y, x, radius / stretch, radius, dice.turn())
    return inside < 1 + wobble * dice.smooth(frame.hw, max(4.0, radius * frame.unit_yx[0] * 0.7))


def filled(ring: Region) -> Region:
    """Return a ring with what it encloses: pixels with the ring on all four sides of them."""
    inside = np.ones(ring.shape, dtype=bool)
    for turns in range(4):
        seen = np.maximum.accumulate(np.rot90(ring, turns), axis=0)
        inside &= np.rot90(seen, -turns)
    return inside


def _large(dice: Dice, frame: Frame, number: int) -> Region:
    return blob(dice, frame, dice.real(-0.1, 0.1), dice.real(-0.15, 0.15), 0.48 - 0.06 * number)


def _tiny(dice: Dice, frame: Frame, number: int) -> Region:
    """One patch of a few pixels; ``number`` makes it a little larger."""
    y, x = dice.sign() * dice.real(0.15, 0.35), dice.sign() * dice.real(0.15, 0.3)
    return blob(dice, frame, y, x, (3.2 + 1.6 * number) / frame.unit_yx[0], wobble=0.2)


def _thin(dice: Dice, frame: Frame, number: int) -> Region:
    """One bent line, 3 or 5 pixels wide."""
    bend = dice.sign() * dice.real(0.25, 0.5)
    ends = [(dice.real(-0.45, -0.2), -0.5), (bend, dice.real(-0.2, 0.2)), (dice.real(-0.3, 0.45), 0.5)]
    if dice.whole(0, 1):
        ends = [(x, y) for y, x in ends]
    return _stroke(frame, ends, 1.6 + number)


def _stroke(frame: Frame, ends: list[tuple[float, float]], half: float) -> Region:
    """Return what a round pen of ``half`` pixels paints along a quadratic Bezier curve."""
    region = np.zeros(frame.hw, dtype=bool)
    (y0, x0), (y1, x1), (y2, x2) = ends
    rows, columns = np.arange(frame.hw[0])[:, None], np.arange(frame.hw[1])[None, :]
    for step in range(401):
        t = step / 400
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        y = (a * y0 + b * y1 + c * y2) * frame.unit_yx[0] + (frame.hw[0] - 1) / 2
        x = (a * x0 + b * x1 + c * x2) * frame.unit_yx[1] + (frame.hw[1] - 1) / 2
        down, right = rows[int(y) - 4 : int(y) + 6] - y, columns[:, int(x) - 4 : int(x) + 6] - x
        near = down * down + right * right < half * half
        region[int(y) - 4 : int(y) + 6, int(x) - 4 : int(x) + 6] |= near
    return region


def _parts(dice: Dice, frame: Frame, number: int) -> Region:
    """Three or five patches of different size that do not touch."""
    places = [(-0.32, -0.3), (0.02, 0.36), (0.36, -0.14), (-0.36, 0.24), (0.04, -0.02)][: 3 + 2 * number]
    region = np.zeros(frame.hw, dtype=bool)
    for rank, (y, x) in enumerate(places):
        region |= blob(dice, frame, y, x, 0.2 - 0.055 * number - 0.022 * rank, wobble=0.25)
    return region


def _border(dice: Dice, frame: Frame, number: int) -> Region:
    """One patch that an edge of the picture cuts, or, with number 1, a corner."""
    edge_y, edge_x = frame.hw[0] / 2 / frame.unit_yx[0], frame.hw[1] / 2 / frame.unit_yx[1]
    y = edge_y * dice.real(0.85, 0.95) if number else dice.real(-0.1, 0.2)
    return blob(dice, frame, y, dice.sign() * edge_x * dice.real(0.85, 0.95), 0.45)


def _hollow(dice: Dice, frame: Frame, number: int) -> Region:
    """A ring, thick or thin, that is not its own filling."""
    y, x, radius, turn = dice.real(-0.15, 0.15), dice.real(-0.2, 0.2), 0.4 - 0.06 * number, dice.turn()
    wave = 1 + 0.25 * dice.smooth(frame.hw, radius * frame.unit_yx[0])
    outer = frame.ellipse(y, x, radius * 0.8, radius, turn)
    return (outer < wave) & (outer > wave * (0.42 + 0.2 * number))


_MAKERS = {
    "border": _border,
    "hollow": _hollow,
    "large": _large,
    "parts": _parts,
    "thin": _thin,
    "tiny": _tiny,
}
