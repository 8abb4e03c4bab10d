"""ct_organ: five organs in CT (CT-ORG), the study's tasks CT-Organ.

Axial slices of the volumes 0 to 20, the owners' test volumes. The study does not say which volumes it used; its 4,776
slices are about 21 volumes of 227 slices, while all 140 volumes would give many times that.

One picture serves five organs, from lung (about -800 Hounsfield units) to bone (above 1,000), so the window is wide:
-1000 to 1000. Liver and kidneys have less contrast in it than in an abdominal window.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import PREPARED, VOLUMES
from promptseg.specs import DatasetSpec, Layout, Origin, Original, TaskSpec

_TEST = r"(?P<n>\d|1\d|20)"

SPEC = DatasetSpec(
    name="ct_organ",
    modality="ct",
    load=PREPARED,
    tasks=(
        TaskSpec(name="ct_organ_liver", labels=(1,), target="liver"),
        TaskSpec(name="ct_organ_bladder", labels=(2,), target="bladder"),
        TaskSpec(name="ct_organ_lung", labels=(3,), target="lungs"),
        TaskSpec(name="ct_organ_kidney", labels=(4,), target="kidneys"),
        TaskSpec(name="ct_organ_bone", labels=(5,), target="bones"),
    ),
    licence="CC BY 3.0, not verified; read the terms at the page of the collection",
    origin=Origin(
        host="hub",
        repo="MedOtter/ct-org",
        seen="Its page was seen: 140 volumes, volumes/volume-N.nii.gz and labels/labels-N.nii.gz. No commit and no "
        "licence were seen.",
    ),
    files=tuple(f"*{kind}-{n}.nii.gz" for kind in ("volume", "labels") for n in ("[0-9]", "1[0-9]", "20")),
    citation=(
        "Rister, B., Shivakumar, K., Nobashi, T., Rubin, D.L.: CT-ORG: A dataset of CT volumes with multiple organ "
        "segmentations, version 1. The Cancer Imaging Archive (2019), doi:10.7937/tcia.2019.tt7f4v7o"
    ),
    url="https://doi.org/10.7937/tcia.2019.tt7f4v7o",
    layouts=(
        Layout(
            name="CT-ORG",
            expects="volume-N.nii.gz with labels-N.nii.gz, N = 0 to 20 (further volumes are left alone)",
            read=VOLUMES,
            options={
                "image": rf"volume-{_TEST}\.nii(?:\.gz)?",
                "masks": [rf"labels-{_TEST}\.nii(?:\.gz)?"],
                "case": "volume_{n:0>3}",
                "subject": "volume_{n:0>3}",
                "intensity": {"rule": "ct_window", "low": -1000, "high": 1000},
            },
        ),
    ),
    original=Original(
        page="https://doi.org/10.7937/tcia.2019.tt7f4v7o",
        how="No registration. Download the collection with IBM Aspera; the volumes and labels 0 to 20 are enough.",
    ),
    mirrors=(Origin(host="hub", repo="Angelou0516/ct-org", seen="Shows the same page; perhaps the same repository."),),
    study="CT-Organ",
    n_masks=4776,
    other_labels=(6,),  # brain, which the study left out
    overlaps=("ct_liver", "ct_liver_msd", "lits"),
    faults=(
        "Which volumes the study used is inferred from its count, not stated.",
        "Masks of lungs and bones were made by software.",
        "Some volumes are the CT of a PET/CT, of low dose.",
    ),
)
