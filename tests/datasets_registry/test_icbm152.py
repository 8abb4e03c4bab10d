"""The averaged MRI that nilearn carries becomes 20 upright slices with label maps."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from promptseg.datasets_registry.icbm152 import SPEC, Icbm152Samples, load
from promptseg.errors import UnavailableError
from promptseg.samples import Samples, target_of

needs_nilearn = pytest.mark.skipif(importlib.util.find_spec("nilearn") is None, reason="nilearn is not installed")


@pytest.fixture(scope="module")
def samples() -> Icbm152Samples:
    """Return the loaded data set."""
    return load(SPEC, None)


@needs_nilearn
def test_twenty_slices_of_one_subject(samples: Samples) -> None:
    """Planes run evenly from the cerebellum to the vertex, and all are of one brain."""
    ids = samples.ids()
    assert ids == sorted(ids) == [f"axial_{plane:03d}" for plane in range(15, 149, 7)]
    assert {samples.subject(case_id) for case_id in ids} == {"icbm152"}


@needs_nilearn
def test_every_task_has_a_target_on_every_slice(samples: Samples) -> None:
    """No task is empty on any plane, and grey, white and the rest share no pixel."""
    assert samples.ids()
    for case_id in samples.ids():
        labels = samples.labels(case_id)
        assert (labels.shape, labels.dtype.name) == ((233, 197), "uint8")
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert all(target_of(task, labels).any() for task in SPEC.tasks)


@needs_nilearn
def test_the_brain_is_what_the_image_shows(samples: Samples) -> None:
    """The T1 is skull-stripped, so the brain is where the normalised image is not black."""
    assert samples.ids()
    for case_id in samples.ids():
        image = samples.image(case_id)
        assert (image.shape, image.dtype.name, image.max()) == ((233, 197, 3), "uint8", 255)
        np.testing.assert_array_equal(image[..., 0] > 0, samples.labels(case_id) > 0)


@needs_nilearn
def test_white_matter_is_brighter_than_grey_and_grey_than_fluid(samples: Samples) -> None:
    """The order of T1 contrast holds on a plane through the ventricles, so labels lie on their tissue."""
    labels, image = samples.labels("axial_092"), samples.image("axial_092")[..., 0]
    fluid, grey, white = (image[labels == label].mean() for label in (3, 1, 2))
    assert fluid + 40 < grey < white - 40


@needs_nilearn
def test_anterior_is_up(samples: Samples) -> None:
    """On a low plane the cerebellum, wide and posterior, is below; the frontal poles are narrow and above."""
    brain = samples.labels("axial_015") > 0
    rows = np.flatnonzero(brain.any(axis=1))
    assert rows.min() > brain.shape[0] // 2
    left, right = brain[:, :98], brain[:, 99:][:, ::-1]  # column 98 is MNI x = 0; the average is symmetric
    assert (left & right).sum() / (left | right).sum() > 0.9


@needs_nilearn
def test_the_fingerprint_follows_the_planes(samples: Icbm152Samples) -> None:
    """The same options give the same fingerprint, other planes another."""
    import dataclasses

    fewer = dataclasses.replace(SPEC, options={"first": 15, "step": 7, "count": 2})
    assert load(SPEC, None).fingerprint == samples.fingerprint
    assert load(fewer, None).fingerprint != samples.fingerprint


def test_a_missing_nilearn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell is skipped with the command that downloads the data."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"nilearn, which is not installed: pip install 'pytest-promptseg\[nil"):
        load(SPEC, None)


def test_a_nilearn_without_the_files_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If a version of nilearn stops carrying the volumes, the message names them."""
    found = ModuleSpec("nilearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(UnavailableError, match=r"does not carry mni_icbm152_t1_.*mni_icbm152_wm_.*pip install"):
        load(SPEC, None)


def test_the_spec_imports_nothing_heavy() -> None:
    """Reading the spec touches neither numpy nor nilearn nor nibabel."""
    code = (
        "import sys; before = set(sys.modules); import promptseg.specs; light = set(sys.modules)\n"
        "import promptseg.datasets_registry.icbm152\n"
        "print({'nilearn', 'nibabel', 'numpy', 'PIL', 'cv2'} & (set(sys.modules) - light))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
