"""Phantoms: pictures made by arithmetic, for tests and for a first run without any download.

Four data sets, ``phantom_ct``, ``phantom_mri``, ``phantom_us`` and ``phantom_xray``, each with one task of its name and
two targets of each kind: large, tiny (a few dozen pixels), thin, in several parts (three, and five: more than the
protocol prompts), cut by the border of the picture, and hollow. Contrast and noise are those of the modality:
Hounsfield units and noise shaped by the reconstruction; a bias field and Rician noise; speckle, shadows and a fan;
projected thickness and counted photons. Organs, vessels and bones around the target are not labelled.

What is guaranteed: the same pixels and labels on every machine and with every version of numpy, for one value of
`VERSION`. `promptseg.datasets_registry._phantom_grid` says how; a test compares a sha256 over all of them.

What is not: that a score here says anything about patients. The phantoms show that a model and the evaluation work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.specs import DatasetSpec, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from promptseg.samples import LabelMap
    from promptseg.segmenter import Image

VERSION = 1  # one more whenever a pixel changes


def _spec(name: str, modality: str, target: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        modality=modality,
        load="promptseg.datasets_registry.phantom:load",
        tasks=(TaskSpec(name=name, labels=(1,), target=target, n_masks=12),),
        licence="Apache-2.0",
        options={"version": VERSION},
        embedded=True,
    )


CT = _spec("phantom_ct", "ct", "synthetic enhancing tissue or vessel in an abdomen")
MRI = _spec("phantom_mri", "mri", "synthetic lesion in a brain")
US = _spec("phantom_us", "ultrasound", "synthetic mass, cyst, wall or needle")
XRAY = _spec("phantom_xray", "xray", "synthetic mass, nodule, ring or wire over a chest")


def load(spec: DatasetSpec, root: Path | None) -> PhantomSamples:  # noqa: ARG001 - every loader is called so
    """Return the cases of one of the four data sets; ``root`` is not used."""
    return PhantomSamples(spec.name)


class PhantomSamples:
    """Twelve cases, made when they are asked for; see `promptseg.samples.Samples`.

    Attributes:
        fingerprint: of the name and `VERSION`; pixels depend on nothing else.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.fingerprint = hashlib.sha256(f"{name} version {VERSION}".encode()).hexdigest()

    def ids(self) -> Sequence[str]:
        """Return the kinds with their numbers, sorted."""
        from promptseg.datasets_registry._phantom_shapes import CASES

        return sorted(CASES)

    def subject(self, case_id: str) -> str | None:
        """Return the case itself: no two cases share an anatomy."""
        return case_id

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) uint8 label map: 1 is the target."""
        return _make(self._name, case_id)[1]

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 image, normalised."""
        from promptseg.data.images import normalise

        return normalise(_make(self._name, case_id)[0], case_id)


@lru_cache(maxsize=48)
def _make(name: str, case_id: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the (H, W) uint8 picture and label map of a case; kept, 7 MB for all."""
    import importlib

    import numpy as np

    from promptseg.datasets_registry._phantom_grid import Dice
    from promptseg.datasets_registry._phantom_shapes import CASES, target

    scanner = importlib.import_module(f"promptseg.datasets_registry._{name}")
    dice = Dice(f"{name}/{case_id}/{VERSION}")
    picture, seen = scanner.render(dice, CASES[case_id][0], target(dice, case_id))
    labels = seen.astype(np.uint8)
    for array in (picture, labels):
        array.setflags(write=False)  # shared by all callers
    return picture, labels
