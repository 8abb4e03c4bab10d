"""The catalogue is the study's: its 28 tasks on 19 data sets, its counts, and substitutes that do not pose as them."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.archives import BUILDERS, Builder, builder_of, check, found, synthetic
from support.paths import ROOT
from typer.testing import CliRunner

from promptseg.cli import describe, main
from promptseg.registry.entries import build
from promptseg.specs import DatasetSpec, Origin, TaskSpec

PAPER = ROOT.parent / "shared" / "paper" / "paper.txt"
REGISTRY = build()
CATALOGUE: dict[str, DatasetSpec] = {
    name: REGISTRY.dataset(name)
    for name, entry in REGISTRY.datasets.items()
    if entry.provider.startswith("pytest-promptseg ") and REGISTRY.dataset(name).layouts
}
STUDY = {spec.study: spec for spec in CATALOGUE.values() if spec.study}

# Tables 1 and 2 of the study: name, classes, masks.
TABLES = {
    "MRI-Spine": (2, 551),
    "MRI-Heart": (1, 1301),
    "MRI-Prostate": (1, 893),
    "MRI-Brain": (3, 12591),
    "MRI-Breast": (2, 503),
    "Xray-Chest": (1, 704),
    "Xray-Hip": (2, 140),
    "US-Breast": (1, 647),
    "US-Kidney": (1, 4586),
    "US-Muscle": (1, 4044),
    "US-Nerve": (1, 2323),
    "US-Ovarian-Tumor": (1, 1469),
    "CT-Colon": (1, 1285),
    "CT-HepaticVessel": (1, 13046),
    "CT-Pancreas": (1, 8792),
    "CT-Spleen": (1, 1051),
    "CT-Liver": (1, 5501),
    "CT-Organ": (5, 4776),
    "PET-Whole-Body": (1, 1015),
}
TASKS = {
    *("mri_spine_gm", "mri_spine_cord", "mri_heart", "mri_prostate", "mri_brain_core", "mri_brain_edema"),
    *("mri_brain_enhancing", "mri_breast_whole", "mri_breast_fgt", "xray_chest", "xray_hip_ilium", "xray_hip_femur"),
    *("us_breast", "us_kidney", "us_muscle", "us_nerve", "us_ovarian_tumor", "ct_colon", "ct_hepatic_vessel"),
    *("ct_pancreas", "ct_spleen", "ct_liver", "ct_organ_liver", "ct_organ_bladder", "ct_organ_lung"),
    *("ct_organ_kidney", "ct_organ_bone", "pet_whole_body"),
}


def test_the_tasks_are_those_of_the_study() -> None:
    """28 tasks, by the names that are fixed, each with its label ids."""
    tasks = [task for spec in STUDY.values() for task in spec.tasks]
    assert len(tasks) == len(TASKS) == 28
    assert {task.name for task in tasks} == TASKS
    assert all(task.labels for task in tasks)


def test_the_counts_are_those_of_the_study() -> None:
    """Each data set has the number of classes and of masks that the study's tables have."""
    assert {name: (len(spec.tasks), spec.n_masks) for name, spec in STUDY.items()} == TABLES
    single = {spec.name: spec.tasks[0].n_masks for spec in STUDY.values() if len(spec.tasks) == 1}
    assert single == {spec.name: spec.n_masks for spec in STUDY.values() if len(spec.tasks) == 1}
    assert all(task.n_masks is None for spec in STUDY.values() if len(spec.tasks) > 1 for task in spec.tasks)


@pytest.mark.real
@pytest.mark.skipif(not PAPER.is_file(), reason=f"no text of the study at {PAPER}")
def test_the_tables_are_copied_right() -> None:
    """The tables above are what the study prints."""
    rows = [line.split("\t") for line in PAPER.read_text().splitlines() if line.count("\t") == 5]
    printed = {row[0]: (int(row[3]), int(row[5].replace(",", ""))) for row in rows if row[5][0].isdigit()}
    assert printed == TABLES


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_data_set_of_the_catalogue_is_complete(name: str) -> None:
    """Licence, citation, owners' page with what to do there, layouts, and what was seen of every repository."""
    spec = CATALOGUE[name]
    assert spec.load == "promptseg.data.prepared:load"
    assert spec.licence
    assert len(spec.citation) > 40
    assert spec.original is not None
    assert spec.original.page.startswith(("https://", "http://"))
    assert spec.original.how.endswith(".")
    assert spec.faults
    assert all(fault.endswith(".") for fault in spec.faults)
    for origin in (spec.origin, *spec.mirrors):
        assert origin is None or (origin.host == "hub" and re.search(r"\w{3,}", origin.seen))
        assert origin is None or origin.revision is None or re.fullmatch("[0-9a-f]{40}", origin.revision)
    assert not (spec.shareable and re.search("terms|not stated|by memory|rules", spec.licence))


@pytest.mark.parametrize("name", [name for name, spec in CATALOGUE.items() if not spec.study])
def test_a_substitute_has_its_own_name(name: str) -> None:
    """It is called neither like the study's data set nor like one of its tasks, and says what it is."""
    spec = CATALOGUE[name]
    assert not {task.name for task in spec.tasks} & TASKS
    assert spec.n_masks is None
    assert any("substitute" in fault for fault in spec.faults)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda one: f"{one.dataset}-{one.layout}")
def test_the_labels_of_a_layout_are_known(builder: Builder, tmp_path: Path) -> None:
    """Whatever the files hold, a task or ``other_labels`` speaks of it."""
    expected = builder.build(tmp_path, synthetic(builder.kind))
    spec = CATALOGUE[builder.dataset]
    held = {int(label) for case in expected.values() for label in set(case.labels.ravel().tolist())} - {0}
    assert spec.known_labels is not None
    assert held <= spec.known_labels


# The builders write these as the Hub has them: loose files, or archives of the names that are asked for.
@pytest.mark.parametrize(
    "name", [n for n, s in CATALOGUE.items() if s.files and (n == "pet_whole_body" or ".zip" not in "".join(s.files))]
)
def test_the_patterns_bring_what_the_first_layout_reads(name: str, tmp_path: Path) -> None:
    """What the Hub is asked for is all that the data set is made of: nothing that it needs stays there."""
    builder = builder_of(name)
    expected = builder.build(tmp_path, synthetic(builder.kind))
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        if not any(fnmatch(path.relative_to(tmp_path).as_posix(), pattern) for pattern in CATALOGUE[name].files):
            path.unlink()
    check(found(CATALOGUE[name], tmp_path), expected)


# --- what users see -----------------------------------------------------------------------------------------


def _spec(**changes: object) -> DatasetSpec:
    layouts = REGISTRY.dataset("ct_spleen").layouts
    about = {"name": "one", "modality": "ct", "load": "a:b", "tasks": (TaskSpec(name="one"),), "licence": "MIT"}
    return DatasetSpec(**{**about, "layouts": layouts, **changes})  # type: ignore[arg-type]


def test_the_status_says_what_it_takes() -> None:
    """In the order from nothing to a download by hand."""
    assert describe.status(_spec(layouts=(), embedded=True)) == "embedded"
    assert describe.status(_spec(origin=Origin(host="hub", repo="a/b", revision="a" * 40))) == "pinned"
    assert describe.status(_spec(origin=Origin(host="hub", repo="a/b"))) == "on the Hub, not pinned yet"
    assert describe.status(_spec(origin=Origin(host="local", repo="x"), layouts=())) == "own folder"
    assert describe.status(_spec()) == "prepare from download"


def _run(*words: str) -> str:
    return CliRunner().invoke(main.app, words, catch_exceptions=False).stdout


def test_lists_show_source_licence_count_and_status() -> None:
    """For a task of a data set with one, and with several; and for a data set."""
    lines = {line.split()[0]: line for line in _run("list", "tasks").splitlines() if line}
    for text in ("1051", "pinned", "MedOtter/msd-spleen@6ba3d36fc252", "CC BY-SA 4.0"):
        assert text in lines["ct_spleen"]
    for text in ("503 in 2 tasks", "prepare from download", "doi.org/10.7937/TCIA.e3sv-re93"):
        assert text in lines["mri_breast_fgt"]
    lines = {line.split()[0]: line for line in _run("list", "datasets").splitlines() if line}
    for text in ("mri", "12591", "prepare from download", "www.synapse.org"):
        assert text in lines["mri_brain"]


def test_show_tells_all_that_a_spec_says() -> None:
    """The original, archives with sums, mirrors, layouts, faults."""
    text = _run("show", "us_muscle")
    spec = CATALOGUE["us_muscle"]
    assert spec.original is not None
    for said in (
        spec.study,
        spec.original.page,
        spec.original.how,
        str(spec.original.archives[0].sha256),
        spec.layouts[0].expects,
        spec.mirrors[0].seen,
        *spec.faults,
    ):
        assert said in text
    assert CATALOGUE["ct_spleen"].origin is not None
    assert CATALOGUE["ct_spleen"].origin.seen in _run("show", "ct_spleen")


def test_the_pages_are_in_step_with_the_specs() -> None:
    """`make docs-write` would change nothing in docs/data-sets."""
    command = [sys.executable, "scripts/docs/data_set_pages.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in (ROOT / "docs/data-sets").glob("*.md")} - {"README"} == set(CATALOGUE)
