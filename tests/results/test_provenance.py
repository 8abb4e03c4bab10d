"""What a result records of its origin, with types, whatever a file holds."""

from __future__ import annotations

import json

import pytest

from promptseg.results.provenance import Provenance

FULL = {
    "protocol": ["paper", 1],
    "seed": 3,
    "dtype": "float32",
    "fast": ["sdpa"],
    "n_images": 12,
    "versions": {"torch": "2.13"},
    "model": {"sha256": {"checkpoint": "aa"}, "training_data": [], "sees_target": True, "options": {"size": 1}},
    "dataset": {"name": "d", "overlaps": ["e"], "prepared": {"layout": "x"}},
    "task": {"labels": [1, 2]},
    "mode": {"guide": "first", "steps": 9},
    "of a later version": {"kept": True},
}


def test_facts_have_types() -> None:
    """Lists are tuples; what was not recorded is None, or empty where that means the same."""
    made = Provenance.from_json(FULL)
    assert (made.protocol, made.seed, made.dtype, made.fast) == (("paper", "1"), 3, "float32", ("sdpa",))
    assert (made.n_images, made.versions, made.date) == (12, {"torch": "2.13"}, None)
    assert (made.model.sha256, made.model.training_data, made.model.sees_target) == ({"checkpoint": "aa"}, (), True)
    assert (made.dataset.name, made.dataset.overlaps, made.dataset.prepared) == ("d", ("e",), {"layout": "x"})
    assert (made.task.labels, made.mode.guide, made.mode.select, made.mode.steps) == ((1, 2), "first", None, 9)
    nothing = Provenance()
    assert (nothing.protocol, nothing.fast, nothing.model.sha256, nothing.task.labels) == (None, (), None, None)


def test_nothing_of_it_is_lost() -> None:
    """Facts that this version does not know come back as they were; tuples are lists, as a file gives them back."""
    assert Provenance.from_json(FULL).as_json() == FULL
    assert json.loads(json.dumps(Provenance.from_json({"a": (1, (2,))}).as_json())) == {"a": [1, [2]]}
    assert Provenance.from_json({"a": (1,)}) == Provenance.from_json({"a": [1]})


@pytest.mark.parametrize("value", [None, 7, "x", [1.5], {"a": 1}, True])
def test_facts_of_another_type_are_not_known(value: object) -> None:
    """A file may hold anything; no reader has to look twice."""
    keys = ("seed", "dtype", "n_images", "versions", "model", "dataset", "task", "mode", "date", "protocol")
    made = Provenance.from_json(dict.fromkeys(keys, value))
    assert made.seed in (None, 7)
    assert made.dtype in (None, "x")
    assert made.model.family is None
    assert made.dataset.fingerprint is None
    assert made.task.labels is None
    assert made.mode.grid is None
    assert isinstance(made.versions, dict)


@pytest.mark.parametrize("value", [[1], "x", None])
def test_what_is_no_object_is_no_provenance(value: object) -> None:
    """Such a file was not written by promptseg."""
    with pytest.raises(ValueError, match="no JSON object"):
        Provenance.from_json(value)  # type: ignore[arg-type]
