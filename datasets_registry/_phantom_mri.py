"""An MR-like slice of a head: T1 with contrast agent or FLAIR, Rician noise, a bias field, a faint ghost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promptseg.datasets_registry._phantom_grid import Dice, Field, Frame, Region, blur, to_bytes
from promptseg.datasets_registry._phantom_shapes import blob, filled

# Signals of scalp, muscle, bone, fluid, grey matter, white matter, lesion.
_T1 = (0.92, 0.45, 0.05, 0.16, 0.46, 0.62, 0.8)
_FLAIR = (0.7, 0.35, 0.04, 0.1, 0.55, 0.44, 0.72)


def render(dice: Dice, kind: str, target: Region) -> tuple[npt.NDArray[np.uint8], Region]:
    """Return the (H, W) uint8 picture, and the target as far as it is in the brain."""
    border = kind == "border"
    frame = Frame(target.shape, zoom=2.15 if border else 1.05, at=(0.1 * dice.sign(), 0.0))
    tissue = _T1 if dice.whole(0, 1) else _FLAIR
    brain = frame.ellipse(0, 0, 0.79, 0.64) * (1 + 0.04 * dice.smooth(frame.hw, 50))
    seen = target & (brain < 0.97)
    signal = _head(dice, frame, brain, tissue)
    if kind == "hollow":
        signal = np.where(filled(target) & (brain < 0.97), 0.8 * tissue[4], signal)  # a dead core
    signal = np.where(seen, tissue[6] + 0.07 * dice.smooth(frame.hw, 8), _oedema(dice, signal, seen, tissue))
    return to_bytes(_scan(dice, blur(signal, 1))), seen


def _oedema(dice: Dice, signal: Field, seen: Region, tissue: tuple[float, ...]) -> Field:
    """Return the signal with a faint, uneven rim around the lesion that does not belong to it."""
    near = blur(seen.astype(np.float64), 2, 4, 6)
    change = 0.16 if tissue is _FLAIR else -0.1
    return signal + change * (near + near * dice.smooth(signal.shape, 7))


def _head(dice: Dice, frame: Frame, brain: Field, tissue: tuple[float, ...]) -> Field:
    """Return the signal of scalp, skull and brain."""
    scalp, muscle, bone, fluid = tissue[:4]
    signal = np.zeros(frame.hw)
    signal[brain < 1.44] = scalp
    signal[(brain < 1.3) & (np.abs(frame.x) > 0.5) & (np.abs(frame.y) < 0.5)] = muscle
    signal[brain < 1.24] = bone
    marrow = (brain < 1.19) & (brain > 1.13) & (dice.smooth(frame.hw, 12) > -0.2)
    signal[marrow] = 0.4 * scalp
    signal[brain < 1.06] = fluid
    return np.where(brain < 1, _brain(dice, frame, brain, tissue), signal)


def _brain(dice: Dice, frame: Frame, brain: Field, tissue: tuple[float, ...]) -> Field:
    """Return the signal of a folded cortex, white matter, nuclei and ventricles."""
    fluid, grey, white = tissue[3:6]
    folds = np.abs(dice.smooth(frame.hw, 11) + 0.5 * dice.smooth(frame.hw, 6))
    rim = np.minimum(1, np.maximum(0, (brain - 0.3) / 0.55))  # 0 deep inside, 1 at the surface
    signal = np.where(folds < 0.46 * rim, grey, white)
    signal[brain > 0.88] = grey
    signal[(folds < 0.11 * rim) & (brain > 0.5)] = fluid
    gap = np.abs(frame.x + 0.012 * dice.smooth(frame.hw, 25))
    signal[(gap < 0.045) & (np.abs(frame.y) > 0.3)] = grey
    signal[(gap < 0.014) & (np.abs(frame.y) > 0.28)] = fluid
    _nuclei(dice, frame, signal, tissue)
    return signal + 0.02 * dice.smooth(frame.hw, 5)


def _nuclei(dice: Dice, frame: Frame, signal: Field, tissue: tuple[float, ...]) -> None:
    """Paint thalamus, putamen, and ventricles that differ a little from side to side."""
    fluid, grey = tissue[3:5]
    size = dice.real(0.85, 1.25)
    for side in (-1, 1):
        signal[blob(dice, frame, 0.1, 0.11 * side, 0.11, wobble=0.2)] = grey
        turn = (12 / 13, 5 / 13 * side)
        signal[frame.ellipse(-0.02, 0.27 * side, 0.17, 0.065, turn) < 1] = grey
        uneven = size * dice.real(0.9, 1.1)
        signal[frame.ellipse(-0.2, 0.085 * side, 0.15 * uneven, 0.05 * uneven, (12 / 13, -5 / 13 * side)) < 1] = fluid
        signal[frame.ellipse(0.28, 0.17 * side, 0.16 * uneven, 0.045 * uneven, (4 / 5, -3 / 5 * side)) < 1] = fluid
    signal[(np.abs(frame.x) < 0.016) & (np.abs(frame.y) < 0.12)] = fluid


def _scan(dice: Dice, signal: Field) -> Field:
    """Return the magnitude image of a scanner with uneven coils, one moving patient and thermal noise."""
    bias = 1 + 0.22 * dice.smooth(signal.shape, max(signal.shape))
    ghost = 0.04 * np.roll(signal, signal.shape[0] // 2, axis=0)
    level = dice.real(0.025, 0.045)
    real = signal * bias + ghost + level * dice.gauss(signal.shape)
    imaginary = level * dice.gauss(signal.shape)
    return np.sqrt(real * real + imaginary * imaginary)
