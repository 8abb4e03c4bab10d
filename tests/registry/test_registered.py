"""Everything built in is complete, pinned where it can be, and costs nothing to list."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from promptseg.registry.entries import GROUPS, build
from promptseg.specs import DatasetSpec, ModelSpec, PromptMode

OURS = "pytest-promptseg"
HEAVY = {"torch", "numpy", "cv2", "PIL", "skimage", "datasets", "transformers", "huggingface_hub", "pyarrow", "nilearn"}
REGISTRY = build()


def built_in(kind: str) -> list[str]:
    """Return the names that this distribution registers."""
    entries = entry_points(group=GROUPS[kind])
    return sorted(entry.name for entry in entries if entry.dist and entry.dist.name == OURS)


MODELS, DATASETS, MODES = (built_in(kind) for kind in GROUPS)
PAPER_MODES = {
    "point_largest": ("points", 0, None),
    "point_each": ("points", 0, None),
    "box_largest": ("boxes", 0, None),
    "box_each": ("boxes", 0, None),
    "box_all": ("boxes", 0, None),
    "clicks_first": ("points", 9, "first"),
    "clicks_confident": ("points", 9, "confident"),
    "clicks_oracle": ("points", 9, "oracle"),
    "noc": ("points", 20, "confident"),
}
# Data sets on the Hub whose commit has not been seen (their specs say what was); do not add to this list.
NOT_PINNED_YET = {
    "ct_colon",
    "ct_hepatic_vessel",
    "ct_liver_msd",
    "ct_organ",
    "mri_heart",
    "pet_whole_body",
    "us_kidney",
    "us_ovarian_tumor",
}
NO_COMMIT_YET = {"sam_hq_vit_b", "sam_hq_vit_l", "slimsam_50", "slimsam_77"}  # models; likewise


def exists(reference: str) -> bool:
    """Whether the module of ``module:function`` is there and has the function, without importing it."""
    module, _, function = reference.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{reference}: no such module"
    assert spec.loader is not None
    source = spec.loader.get_source(module)  # type: ignore[attr-defined]
    return f"\ndef {function}(" in source


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_complete(name: str) -> None:
    """Licence, home page, loader; what is not pinned, revision or hash, is said."""
    spec: ModelSpec = REGISTRY.model(name)
    assert spec.name == name
    assert spec.licence
    assert spec.licence != "unknown"
    assert spec.family
    assert exists(spec.load)
    assert (spec.origin is None) == (not spec.weights)
    assert not (spec.embedded and spec.weights)
    if spec.origin is None:
        return
    assert spec.url.startswith("https://")
    assert spec.origin.host in {"hub", "npm", "web"}
    assert len({weight.role for weight in spec.weights}) == len(spec.weights)
    pinned = spec.origin.revision is not None and all(weight.sha256 for weight in spec.weights)
    assert pinned or "seen" in spec.origin.seen
    unpinned = spec.origin.revision is None and spec.origin.host != "web"
    assert unpinned == (name.removesuffix("_feedback") in NO_COMMIT_YET)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_is_complete(name: str) -> None:
    """Licence, loader, modality and named targets; where it comes from, and how to cite it, if it is not ours."""
    spec: DatasetSpec = REGISTRY.dataset(name)
    assert spec.licence
    assert spec.licence != "unknown"
    assert spec.modality in {"ct", "mri", "ultrasound", "xray", "pet_ct"}
    assert exists(spec.load)
    assert all(task.target for task in spec.tasks)
    assert all(task.name.startswith(spec.name) for task in spec.tasks)
    assert spec.embedded == (spec.origin is None and not spec.layouts)
    if spec.embedded:
        return
    assert spec.url.startswith(("https://", "http://"))
    assert spec.citation
    assert bool(spec.files) == (spec.origin is not None)
    assert (spec.origin is not None and spec.origin.revision is None) == (name in NOT_PINNED_YET)


@pytest.mark.parametrize("name", MODES)
def test_a_prompt_mode_is_complete(name: str) -> None:
    """A description, and a simulation that exists."""
    spec: PromptMode = REGISTRY.mode(name)
    assert spec.description.endswith(".")
    assert exists(spec.simulate)


def test_the_modes_of_the_paper_are_there() -> None:
    """The names, needs, numbers of clicks and guides that the protocol fixes."""
    found = {name: (spec.needs, spec.steps, spec.guide) for name in PAPER_MODES if (spec := REGISTRY.mode(name))}
    assert found == PAPER_MODES


def test_the_embedded_defaults_are_there() -> None:
    """A plain pytest evaluates floors and classical models on phantoms and the averaged MRI."""
    embedded = {name for name in MODELS if REGISTRY.model(name).embedded}
    assert {"box_fill", "point_disc", "grabcut", "random_walker", "region_growing"} == embedded
    tasks = {task for task, one in REGISTRY.tasks.items() if one.get()[0].embedded}
    assert {f"phantom_{kind}" for kind in ("ct", "mri", "us", "xray")} <= tasks
    assert {f"icbm152_{kind}" for kind in ("gray_matter", "white_matter", "brain")} <= tasks
    assert "us_kidney" in REGISTRY.tasks


def test_only_the_ceiling_sees_the_target() -> None:
    """Nothing else is handed the answer."""
    assert [name for name in MODELS if REGISTRY.model(name).sees_target] == ["perfect"]


def test_ids_hold_together() -> None:
    """A test id can be split back into its three names: none of them holds a hyphen, and each cell's id is unique."""
    cells = REGISTRY.cells()
    assert len({cell.id for cell in cells}) == len(cells)
    assert all(cell.id.split("-") == [cell.model, cell.task, cell.mode] for cell in cells)


@pytest.mark.parametrize("kind", list(GROUPS))
def test_specs_import_nothing_heavy(kind: str) -> None:
    """Listing a group loads no array, image, network or learning library."""
    code = f"""
import sys
from importlib.metadata import entry_points
for entry in entry_points(group={GROUPS[kind]!r}):
    if entry.dist.name == {OURS!r}:
        entry.load()
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
