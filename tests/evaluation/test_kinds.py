"""Tests of `promptseg.evaluation.kinds`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from promptseg.errors import CaseError, ConfigError
from promptseg.evaluation.kinds import KINDS, ImageKind, count_cases, kind_of
from promptseg.registry import modes
from promptseg.samples import LabelMap
from promptseg.segmenter import Image
from promptseg.specs import TaskSpec

TASK = TaskSpec(name="thing", labels=(1,))
BY_NAME = dataclasses.replace(modes.BOX_ALL, name="by_name", needs="text")


class Labels:
    """Three images: with the object, without it, and one whose mask cannot be read."""

    fingerprint = "0"

    def ids(self) -> list[str]:
        """Return the ids."""
        return ["a", "b", "c"]

    def subject(self, case_id: str) -> str | None:
        """Know none."""

    def labels(self, case_id: str) -> LabelMap:
        """Return one pixel."""
        if case_id == "c":
            raise CaseError(case_id, "cut short")
        return np.array([[case_id == "a"]], dtype=np.uint8)

    def image(self, case_id: str) -> Image:
        """Never be asked."""
        raise AssertionError(case_id)


def test_every_built_in_mode_has_a_kind() -> None:
    """Each mode names one that there is."""
    built_in = [mode for mode in vars(modes).values() if isinstance(mode, type(modes.BOX_ALL))]
    assert built_in
    assert {kind_of(mode).name for mode in built_in} == {"image"}
    assert all(kind.name == name for name, kind in KINDS.items())


def test_an_unknown_kind_is_named() -> None:
    """A plugin of a newer version, say."""
    mode = dataclasses.replace(modes.BOX_ALL, kind="hologram")
    with pytest.raises(ConfigError, match="'box_all' is of kind 'hologram'; this version of promptseg knows image"):
        kind_of(mode)


def test_cases_are_counted_by_their_masks() -> None:
    """Images without the object count where a mode may ask for it by name; unreadable ones never do."""
    assert count_cases(ImageKind(), Labels(), TASK, modes.BOX_ALL) == 1
    assert count_cases(ImageKind(), Labels(), TASK, BY_NAME) == 2
    assert ImageKind().cases(Labels()) == ["a", "b", "c"]


def test_masks_are_read_once_for_all_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks and modes are asked about."""
    samples, read = Labels(), list[str]()
    real = samples.labels

    def labels(case_id: str) -> LabelMap:
        read.append(case_id)
        return real(case_id)

    monkeypatch.setattr(samples, "labels", labels)
    other = TaskSpec(name="other", labels=(2,))
    cells = [(TASK, modes.BOX_ALL), (other, modes.BOX_ALL), (TASK, BY_NAME), (other, BY_NAME)]
    assert ImageKind().belonging(samples, cells, "a") == [True, False, True, True]
    assert read == ["a"]
