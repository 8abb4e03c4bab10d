"""ICBM152: axial slices of the averaged T1 MRI of 152 adults, with grey and white matter. Real, and no download.

The package nilearn carries three volumes of the ICBM152 2009 nonlinear average on one grid of 1 mm: the skull-stripped
T1 and the probabilities of grey and of white matter. nilearn itself is not imported, its files are read.

Label map, by pixel: 1 grey matter where its probability is above 0.5; 2 white matter where its probability is above
0.5 (the two never add up to more than 1); 3 the rest of the brain, mostly cerebrospinal fluid and partial volume: every
other pixel that the skull-stripped T1 holds. The target of ``icbm152_brain`` is all three.

Slices are in neurological display: anterior up, the patient's left on the left. The case id ``axial_078`` is voxel
plane 78, MNI z = 6 mm (plane - 72). A slice is normalised by itself, as every image is.

How to read the scores: the probabilities were made from the MRI by software, and are smooth, so white matter is easy
where it is thick and a matter of taste at its thin ends; the skull is gone, so ``icbm152_brain`` is close to a
threshold and shows that a model works at all. All slices are of one (averaged) brain, hence one subject: an interval
that clusters by subject has no second cluster and cannot be given, and one that took slices as independent would be too
narrow.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import UnavailableError
from promptseg.specs import DatasetSpec, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from promptseg.samples import LabelMap
    from promptseg.segmenter import Image

    Volume = npt.NDArray[np.uint8]  # (X, Y, Z) in RAS: x to the right, y to anterior, z up

_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"

SPEC = DatasetSpec(
    name="icbm152",
    modality="mri",
    load="promptseg.datasets_registry.icbm152:load",
    tasks=(
        TaskSpec(name="icbm152_brain", target="brain with its fluid spaces", labels=(1, 2, 3)),
        TaskSpec(name="icbm152_gray_matter", target="grey matter, probability above 0.5", labels=(1,)),
        TaskSpec(name="icbm152_white_matter", target="white matter, probability above 0.5", labels=(2,)),
    ),
    licence="free use with the notice (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, McGill University",
    options={"first": 15, "step": 7, "count": 20},
    citation="Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54 (2011) 313",
    url="https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009",
    embedded=True,
)


def load(spec: DatasetSpec, root: Path | None) -> Icbm152Samples:  # noqa: ARG001 - every loader is called so
    """Return the slices that ``spec.options`` asks for; ``root`` is not used.

    Raises:
        UnavailableError: nilearn is not installed, or carries other files.
    """
    folder = _folder_of_nilearn()
    paths = [folder / _FILE.format(kind) for kind in ("t1", "gm", "wm")]
    gone = [path.name for path in paths if not path.is_file()]
    if gone:
        raise UnavailableError(
            f"data set icbm152: the nilearn at {folder} does not carry {', '.join(gone)}. Versions 0.11 to 0.14 do: "
            "pip install 'pytest-promptseg[nilearn]' 'nilearn<0.15'."
        )
    planes = range(
        spec.options["first"],
        spec.options["first"] + spec.options["step"] * spec.options["count"],
        spec.options["step"],
    )
    return Icbm152Samples(paths, planes)


class Icbm152Samples:
    """Axial slices; see `promptseg.samples.Samples`.

    Attributes:
        fingerprint: sha256 over the three files and the planes.
    """

    def __init__(self, paths: Sequence[Path], planes: Sequence[int]) -> None:
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        self.fingerprint = hashlib.sha256(f"version 1 {list(planes)} {digests}".encode()).hexdigest()
        self._planes = {f"axial_{plane:03d}": plane for plane in planes}
        self._t1, self._grey, self._white = (_read(path) for path in paths)

    def ids(self) -> Sequence[str]:
        """Return the planes from the cerebellum to the vertex."""
        return list(self._planes)

    def subject(self, case_id: str) -> str | None:
        """Return the one subject: all slices are of one brain."""
        return "icbm152"

    def labels(self, case_id: str) -> LabelMap:
        """Return the (233, 197) uint8 label map: 1 grey matter, 2 white matter, 3 the rest of the brain."""
        import numpy as np

        plane = self._planes[case_id]
        t1, grey, white = (_upright(volume, plane) for volume in (self._t1, self._grey, self._white))
        labels = np.where(t1 > 0, 3, 0).astype(np.uint8)
        labels[grey > 127] = 1  # 255 is a probability of 1
        labels[white > 127] = 2
        return labels

    def image(self, case_id: str) -> Image:
        """Return the (233, 197, 3) uint8 slice of the T1, normalised."""
        from promptseg.data.images import normalise

        return normalise(_upright(self._t1, self._planes[case_id]), case_id)


def _folder_of_nilearn() -> Path:
    """Return the folder of nilearn's data files without importing nilearn, which takes seconds."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None or importlib.util.find_spec("nibabel") is None:
        raise UnavailableError(
            "data set icbm152 is read from the package nilearn, which is not installed: "
            "pip install 'pytest-promptseg[nilearn]'."
        )
    return Path(found.origin).parent / "datasets" / "data"


def _read(path: Path) -> Volume:
    """Return the volume in RAS order."""
    import nibabel
    import numpy as np

    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asanyarray(image.dataobj, dtype=np.uint8)


def _upright(volume: Volume, plane: int) -> npt.NDArray[np.uint8]:
    """Return one axial plane as (rows, columns): anterior up, right to the right."""
    return volume[:, ::-1, plane].T
