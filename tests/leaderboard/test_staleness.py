"""Which stored results are out of date: by specs and source alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from promptseg.errors import PromptsegError, ResultsError, UnknownNameError
from promptseg.evaluation.kinds import ImageKind
from promptseg.files.models import LocalModel
from promptseg.leaderboard import staleness
from promptseg.registry.entries import Registered, Registry
from promptseg.results import fingerprints
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.runner import groups
from promptseg.runner.options import Options
from promptseg.samples import Samples
from promptseg.specs import Cell, DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec, WeightFile

MODEL = ModelSpec(
    name="m",
    family="sam",
    load="promptseg.models.reference.floors:load_box_fill",
    licence="MIT",
    accepts=frozenset({"boxes"}),
    origin=Origin(host="hub", repo="org/m", revision="1" * 40),
    weights=(WeightFile(role="checkpoint", path="m.pt", sha256="a" * 64), WeightFile(role="head", path="h.pt")),
    options={"size": 1024, "means": (1, 2)},
)
TASK = TaskSpec(name="t", labels=(1, 2))
DATA = DatasetSpec(
    name="d",
    modality="ct",
    load="promptseg.datasets_registry.phantom:load",
    tasks=(TASK,),
    licence="MIT",
    origin=Origin(host="hub", repo="org/d", revision="2" * 40),
)
MODE = PromptMode(name="box", needs="boxes", simulate="promptseg.prompts:box_all")


def registry(model: ModelSpec = MODEL, data: DatasetSpec = DATA, mode: PromptMode = MODE) -> Registry:
    """Return what is installed now."""
    return Registry([Registered("m", "x 1", model)], [Registered("d", "x 1", data)], [Registered("box", "x 1", mode)])


def stored() -> CellResult:
    """Return a result of what the specs above say, as a file gives it back."""
    identity = fingerprints.identity(
        MODEL,
        DATA,
        kind="image",
        sha256={"checkpoint": "a" * 64, "head": "b" * 64},
        data="c" * 64,
        seed=0,
        sample_seed=0,
        device="cpu",
        dtype="float32",
        fast=(),
    )
    fingerprint = fingerprints.fingerprint(identity, TASK, MODE)
    about = {
        **identity,
        "model": {**identity["model"], "repo": "org/m", "revision": "1" * 40},
        "dataset": {**identity["dataset"], "version": 1, "repo": "org/d", "revision": "2" * 40},
        "task": {"labels": TASK.labels},
        "mode": {**fingerprints.of_mode(MODE), "needs": "boxes"},
    }
    row = ResultRow(case_id="x", iou_first=0.5, iou_confident=0.5, iou_oracle=0.5)
    return CellResult(
        cell=Cell("m", "t", "box"),
        fingerprint=fingerprint,
        rows=(row,),
        n_examined=1,
        provenance=Provenance.from_json(about),
    )


def test_nothing_changed() -> None:
    """What would be evaluated again to the same is up to date."""
    assert staleness.changes(stored(), registry()) == ()


def with_origin(spec: Any, revision: str) -> Any:
    """Return a spec that is pinned elsewhere."""
    return dataclasses.replace(spec, origin=dataclasses.replace(spec.origin, revision=revision))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"model": dataclasses.replace(MODEL, load="promptseg.testing:load")}, ("model's loader", "model's code")),
        ({"model": dataclasses.replace(MODEL, load=f"{MODEL.load}_another")}, ("model's loader",)),
        ({"data": dataclasses.replace(DATA, load=f"{DATA.load}_another")}, ("data set's loader",)),
        ({"model": dataclasses.replace(MODEL, options={"size": 512, "means": (1, 2)})}, ("model's options",)),
        ({"model": dataclasses.replace(MODEL, accepts=frozenset({"boxes", "points"}))}, ("model's prompts",)),
        (
            {
                "model": dataclasses.replace(
                    MODEL, weights=(dataclasses.replace(MODEL.weights[0], sha256="e" * 64), MODEL.weights[1])
                )
            },
            ("weights",),
        ),
        ({"model": with_origin(MODEL, "9" * 40)}, ("model's revision",)),
        ({"data": with_origin(DATA, "9" * 40)}, ("data set's revision",)),
        ({"data": dataclasses.replace(DATA, version=2)}, ("data set's version",)),
        ({"data": dataclasses.replace(DATA, options={"side": 9})}, ("data set's options",)),
        (
            {"data": dataclasses.replace(DATA, tasks=(dataclasses.replace(TASK, labels=(1,)),))},
            ("data set's labels", "task's labels"),
        ),
        ({"mode": dataclasses.replace(MODE, simulate="promptseg.prompts:box_each")}, ("prompt mode",)),
    ],
)
def test_what_changed_is_named(now: dict[str, Any], told: tuple[str, ...]) -> None:
    """Of model, data set, task and prompt mode; nothing else is blamed."""
    assert staleness.changes(stored(), registry(**now)) == told


def test_another_revision_of_the_same_files_is_no_change() -> None:
    """Where the spec pins every file by its sum, the commit that holds it does not matter."""
    found = stored()
    weights = (MODEL.weights[0], dataclasses.replace(MODEL.weights[1], sha256="b" * 64))
    pinned = dataclasses.replace(with_origin(MODEL, "9" * 40), weights=weights)
    assert staleness.changes(found, registry(pinned)) == ()


def test_protocol_and_scoring_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of the protocol, or other code that scores, is named."""
    found = stored()
    monkeypatch.setattr(fingerprints, "PROTOCOL_VERSION", 2)
    assert staleness.changes(found, registry()) == ("protocol",)
    monkeypatch.setattr(fingerprints, "SCORING", {"image": ("promptseg.evaluation.metrics",)})
    assert staleness.changes(found, registry()) == ("protocol", "scoring code")


def test_a_result_that_tells_less_is_held_against_its_fingerprint() -> None:
    """Older results do not tell the code of their prompt mode; it is part of their fingerprint all the same."""
    found = stored()
    about = {**found.provenance.json, "mode": {"steps": 0}, "task": {}}
    old = dataclasses.replace(found, provenance=Provenance.from_json(about))
    assert staleness.changes(old, registry()) == ()
    other = dataclasses.replace(MODE, simulate="promptseg.prompts:box_each")
    assert staleness.changes(old, registry(mode=other)) == ("prompt mode or task",)


def test_what_cannot_be_told_is_an_error() -> None:
    """A name that is not registered here, or a result that does not say what it was made with."""
    with pytest.raises(UnknownNameError, match="'m'"):
        staleness.changes(stored(), Registry([], [], []))
    empty = dataclasses.replace(stored(), provenance=Provenance.from_json({"model": None, "dataset": "x"}))
    with pytest.raises(ResultsError, match="does not say its weights and data and seed and sample seed and"):
        staleness.changes(empty, registry())
    broken = Registry([Registered("m", "x 1", problem="no import")], [Registered("d", "x 1", DATA)], [])
    with pytest.raises(PromptsegError):
        staleness.changes(stored(), broken)


def test_an_identity_is_composed_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key added to it changes the fingerprint of a run, and that of a stored result in the same way."""
    real = fingerprints.identity
    files = LocalModel(files={}, sha256={"checkpoint": "a" * 64, "head": "b" * 64}, revision="1" * 40)
    samples = cast("Samples", SimpleNamespace(fingerprint="c" * 64))
    part = groups.PlannedCell(Cell("m", "t", "box"), DATA, TASK, MODE)

    def of_a_run() -> str:
        options = Options(root=Path(), results=Path())
        identity = groups.identity(ImageKind(), MODEL, DATA, files, samples, options, "cpu")
        return groups.fingerprint(identity, part)

    before = stored()
    assert of_a_run() == before.fingerprint
    monkeypatch.setattr(fingerprints, "identity", lambda *specs, **facts: {**real(*specs, **facts), "new": 1})
    after = of_a_run()
    assert after != before.fingerprint
    assert staleness.changes(before, registry()) == ("prompt mode or task",)
    assert staleness.changes(dataclasses.replace(before, fingerprint=after), registry()) == ()


def test_nothing_heavy_is_imported() -> None:
    """Neither models nor data sets are loaded to tell what is out of date."""
    heavy = "{'torch', 'cv2', 'datasets', 'pyarrow'}"
    code = f"import sys, promptseg.leaderboard.staleness\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
