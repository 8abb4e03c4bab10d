"""``scripts/checks/reproduce_minisam.py``: the project that it makes."""

from __future__ import annotations

from pathlib import Path

from support.script_modules import load_script

from promptseg import registry

script = load_script("reproduce_minisam")
SETS = ["ct_liver", "ct_spleen", "mri_heart", "petct_lesion", "us_breast", "us_ovarian_tumor"]


def test_the_names_of_the_samples_are_taken_by_nobody(tmp_path: Path) -> None:
    """Most of the sets have the name of a data set that is registered."""
    for name in SETS:
        for kind in ("images", "masks"):
            (tmp_path / "data" / name / kind).mkdir(parents=True)
            (tmp_path / "data" / name / kind / "a.png").touch()
    script.prepare(tmp_path / "project", tmp_path / "data", tmp_path / "weights", SETS)
    found = registry.build(tmp_path / "project" / "promptseg.toml")
    assert found.problems() == []
    for name in SETS:
        dataset, _ = found.task(script.registered(name))
        assert dataset.name == f"sample_{name}"
