"""Map the values of a scanner to the 8 bits of a picture: the rules, and why.

The study does not say how it made pictures of its volumes, and its code begins with finished PNG files, so none of
these rules is known to be its own; they are the plain ones of the field. Every rule maps a range of values linearly to
0..255, cuts what lies outside, and rounds to the nearest integer (halves to the even one). All slices of a
volume share one range: a range for each slice would make noise look like tissue in slices without much in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.preparation.volumes import Volume

Bytes = npt.NDArray[np.uint8]

PET_SUV = (0.0, 10.0)  # 10 keeps lesions apart from the liver (about 2 to 3) and clips bladder and brain
SOFT_TISSUE_HU = (-160.0, 240.0)  # width 400 at level 40, the usual window of the abdomen


def scaled(plane: npt.NDArray[Any], low: float, high: float) -> Bytes:
    """Return real values as uint8 of the same shape: ``low`` and below is 0, ``high`` and above is 255.

    Raises:
        ValueError: ``low`` is not below ``high``, or the values are not finite (`Volume.plane` ensures that they are).
    """
    if not low < high:
        raise ValueError(f"The range {low:g} to {high:g} is empty.")
    if not np.isfinite(plane).all():
        raise ValueError(f"{int((~np.isfinite(plane)).sum())} of {plane.size} values are NaN or infinite.")
    share = (np.asarray(plane, np.float64) - low) / (high - low)
    return np.asarray(np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8))


def ct_window(plane: npt.NDArray[Any], low_hu: float, high_hu: float) -> Bytes:
    """Return a CT plane in Hounsfield units as uint8, by a window from ``low_hu`` to ``high_hu``.

    A CT holds some 4000 levels, a picture 256: the window spends them on the tissue that the task is about.
    """
    return scaled(plane, low_hu, high_hu)


def mr_percentiles(volume: Volume, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Return the percentiles ``low`` and ``high`` of the non-zero values of a whole MR volume, for `scaled`.

    MR has no unit, so the range must come from the volume. Zeros are left out, because the background around a head or
    limb, often exactly 0 after masking, would otherwise decide; the ends are cut, because single bright voxels
    (vessels, artefacts) would otherwise darken everything. Percentiles are interpolated linearly.

    Raises:
        CaseError: NaN or infinite values, no value but zero, or no two different percentiles.
    """
    values = _non_zero(volume)
    if values.size == 0:
        raise CaseError(volume.name, "the volume is all zero, so it has no range of values; drop it.")
    bottom, top = (float(value) for value in np.percentile(values, (low, high), overwrite_input=True))
    if not bottom < top:
        raise CaseError(
            volume.name,
            f"the percentiles {low:g} and {high:g} of its {values.size} non-zero values are both {top:g}, so they span "
            "no range; drop the volume.",
        )
    return bottom, top


def _non_zero(volume: Volume) -> npt.NDArray[np.float32]:
    values, count = np.empty(volume.values.size, np.float32), 0
    for index in range(len(volume.values)):
        plane = volume.plane(index)
        some = plane[plane != 0]
        values[count : count + len(some)] = some
        count += len(some)
    return values[:count]


def pet_ct(pet_suv: npt.NDArray[Any], ct_hu: npt.NDArray[Any]) -> Bytes:
    """Return (H, W, 3) uint8 RGB of a PET plane in SUV and the CT plane on the same grid.

    Red is the PET, green and blue are the CT, as in the study's pictures (its appendix B). The ranges, SUV 0 to 10 and
    -160 to 240 HU, are ours: the study's are not published.

    Raises:
        ValueError: the planes differ in shape, or hold values that are not finite.
    """
    if pet_suv.shape != ct_hu.shape:
        raise ValueError(f"The PET plane is {pet_suv.shape}, the CT plane {ct_hu.shape}: resample one to the other.")
    red, rest = scaled(pet_suv, *PET_SUV), ct_window(ct_hu, *SOFT_TISSUE_HU)
    return np.stack([red, rest, rest], axis=-1)
