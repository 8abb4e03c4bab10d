"""A model that is new here is asked in company before it counts, and not again until it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.unruly import Honest, Scans

from promptseg.errors import ModelError
from promptseg.evaluation.company import Dissent
from promptseg.registry import modes
from promptseg.runner import conformance, precision_guard
from promptseg.segmenter import Runtime
from promptseg.specs import Cell, PromptMode, TaskSpec

KEY = conformance.key_of({"model": "m"})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of what is kept."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path))
    return tmp_path / "conformance"


class Counting(Honest):
    """Counts the images that it encodes."""

    encoded = 0

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Return the image."""
        self.encoded += 1
        return image


def probes(*some: PromptMode) -> precision_guard.ProbeSet:
    """Return the prompts of some modes on the first case."""
    samples, task = Scans(4), TaskSpec(name="bars", labels=(1,))
    cells = {Cell("unruly", "bars", mode.name): (task, mode) for mode in some}
    return precision_guard.trial(samples, samples.ids(), cells, 0, conformance.N_CASES)


@pytest.mark.parametrize("some", [(), (modes.BOX_ALL,), (modes.POINT_EACH, modes.BOX_EACH, modes.CLICKS_CONFIDENT)])
def test_few_images_are_encoded(some: tuple[PromptMode, ...]) -> None:
    """Six at most, whatever runs; an honest model passes, with or without a case of the data set."""
    model = Counting()
    found = conformance.dissent(model, probes(*some), Runtime(), seed=0)
    assert found.problem == ""
    assert found.compared > 0
    assert model.encoded == (6 if some else 4)


def test_a_spec_that_cannot_be_right_is_found() -> None:
    """As `promptseg validate` says it."""
    model = Honest()
    model.spec = None  # type: ignore[assignment]
    assert conformance.dissent(model, probes(), Runtime(), 0).problem.startswith("model.spec is NoneType")


def test_what_passed_is_known_and_nothing_else() -> None:
    """By its key; a model that answered nothing is asked again."""
    assert not conformance.is_known(KEY)
    conformance.settle(KEY, "m", Dissent(0, ""))
    assert not conformance.is_known(KEY)
    conformance.settle(KEY, "m", Dissent(3, ""))
    assert conformance.is_known(KEY)
    assert not conformance.is_known(conformance.key_of({"model": "n"}))


def test_what_depends_on_company_fails_by_name_each_time() -> None:
    """The message says what differed and what to do; nothing is kept."""
    with pytest.raises(ModelError, match=r"model 'm' does not .* box: 3% differ.*keep nothing between.*--model m"):
        conformance.settle(KEY, "m", Dissent(3, "box: 3% differ"))
    assert not conformance.is_known(KEY)


def test_what_breaks_the_contract_fails_by_name_with_its_own_remedy() -> None:
    """Advice about company would lead astray."""
    with pytest.raises(ModelError) as caught:
        conformance.settle(KEY, "m", Dissent(0, "box: predict() writes to what it was given: copy it.", is_breach=True))
    assert str(caught.value) == (
        "model 'm' breaks the contract of a model, so nothing was scored. box: predict() writes to what it was given: "
        "copy it. `promptseg validate --model m` tries more."
    )
    assert not conformance.is_known(KEY)


@pytest.mark.parametrize("change", ["format", "key", "passed", "cut", "list"])
def test_a_file_that_is_damaged_or_of_another_version_is_not_known(cache: Path, change: str) -> None:
    """It is made anew."""
    conformance.settle(KEY, "m", Dissent(3, ""))
    [path] = cache.iterdir()
    text = path.read_text()
    changed = {"cut": text[:20], "list": "[]"}.get(change) or json.dumps({**json.loads(text), change: "other"})
    path.write_text(changed)
    assert not conformance.is_known(KEY)
    conformance.settle(KEY, "m", Dissent(3, ""))
    assert conformance.is_known(KEY)


def test_without_a_cache_nothing_is_lost(cache: Path) -> None:
    """A file where the folder should be: it is asked again next time."""
    cache.write_text("")
    conformance.settle(KEY, "m", Dissent(3, ""))
    assert not conformance.is_known(KEY)
