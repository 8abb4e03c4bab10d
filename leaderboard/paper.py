"""The published numbers of the study whose protocol promptseg follows, and the thresholds derived from them.

Mazurowski et al., "Segment anything model for medical image analysis: an experimental study", Medical Image Analysis 89
(2023) 102918. ``paper.toml`` has the numbers, ``disagreements.toml`` the places where text, code and tables disagree.
Everything here is a pure function of these two files.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from promptseg.specs import Cell, MaskChoice
from promptseg.verdicts import thresholds as thresholds_toml
from promptseg.verdicts.thresholds import Threshold

STATIC = ("point_largest", "point_each", "box_largest", "box_each", "box_all")  # the study's modes 1 to 5
GUIDES: Mapping[str, MaskChoice] = {"clicks_first": "first", "clicks_confident": "confident", "clicks_oracle": "oracle"}
CLICKS = 9
# The study measured one point twice, as mode 1 and as first click, with different draws among the farthest pixels, and
# its own numbers differ by up to 0.015 (D7). A new draw cannot be expected to come closer.
TOLERANCE = 0.02
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Method:
    """One of the study's methods.

    Attributes:
        name: as the study writes it.
        model: our model that runs as the study ran it.
        others: our models of the same method, run as its authors do.
        curves: the choice of mask that guides the clicks -> the key of the curve in ``paper.toml``.
        figure: the figures that show the curves.
    """

    name: str
    model: str
    others: tuple[str, ...] = ()
    curves: Mapping[MaskChoice, str]
    figure: str


def _rival(name: str, model: str) -> Method:
    """Return a method that gives one mask, which is the first, the most confident and the best."""
    curves: dict[MaskChoice, str] = dict.fromkeys(GUIDES.values(), name.lower())
    return Method(name=name, model=f"{model}_paper2023", others=(model,), curves=curves, figure="Fig. 5 and 17")


METHODS = (
    Method(name="SAM", model="sam_vit_h", curves={"first": "sam_first", "oracle": "sam_oracle"}, figure="Fig. 5"),
    _rival("RITM", "ritm_hrnet32"),
    _rival("SimpleClick", "simpleclick_vit_h"),
    _rival("FocalClick", "focalclick_segformer_b3"),
)
MODELS: Mapping[str, Method] = {model: method for method in METHODS for model in (method.model, *method.others)}


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """One of the study's 28 tasks.

    Attributes:
        dataset: the study's name of the data set.
        in_modes, in_clicks: the study's names of the task in its table of prompt modes and in those of clicks.
        n_masks: number of images with a mask that is not empty, in the whole data set.
        alone: whether it is the only task of its data set, so that ``n_masks`` is the number of its cases.
        values: key of ``paper.toml`` -> mean IoUs, of modes 1 to 5 or after clicks 1 to 9.
    """

    dataset: str
    in_modes: str
    in_clicks: str
    n_masks: int
    alone: bool
    values: Mapping[str, tuple[float, ...]]

    @property
    def cases(self) -> str:
        """The number of cases in words, as far as it was published."""
        return str(self.n_masks) if self.alone else f"at most {self.n_masks}"


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A point in which the study's text, code and tables differ, or promptseg differs from them.

    Attributes:
        name: ``D1``, ``D2``, ...
        text, code, tables: what each of them says; empty if nothing.
        here: what promptseg does.
        models, modes, tasks: what it affects; empty means all.
    """

    name: str
    text: str = ""
    code: str = ""
    tables: str = ""
    here: str
    models: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def touches(self, cell: Cell) -> bool:
        """Whether it affects a cell."""
        named = ((self.models, cell.model), (self.modes, cell.mode), (self.tasks, cell.task))
        return all(name in names for names, name in named if names)


@cache
def tasks() -> Mapping[str, PublishedTask]:
    """Return the published numbers by task, in the order of the study's Tables 1 and 2."""
    document = _read("paper.toml")
    datasets = [entry["dataset"] for entry in document["tasks"].values()]
    return {
        name: _task(entry, document["masks"][entry["dataset"]], alone=datasets.count(entry["dataset"]) == 1)
        for name, entry in document["tasks"].items()
    }


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_HERE / name).read_text(encoding="utf-8"))


def _task(entry: Mapping[str, Any], n_masks: int, *, alone: bool) -> PublishedTask:
    names = {key: value for key, value in entry.items() if isinstance(value, str)}
    values = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return PublishedTask(**names, n_masks=n_masks, alone=alone, values=values)


@cache
def disagreements() -> tuple[Disagreement, ...]:
    """Return where text, code and tables disagree, in the order of their numbers."""
    return tuple(_disagreement(name, entry) for name, entry in _read("disagreements.toml").items())


def _disagreement(name: str, entry: Mapping[str, Any]) -> Disagreement:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Disagreement(name=name, **values)


def curve(cell: Cell, select: MaskChoice) -> tuple[float, ...] | None:
    """Return the published mean IoU after each of nine clicks, None if there is none.

    A curve belongs to the choice of mask that guided its clicks, and to no other.
    """
    task, method = tasks().get(cell.task), MODELS.get(cell.model)
    if task is None or method is None or GUIDES.get(cell.mode) != select or select not in method.curves:
        return None
    return task.values[method.curves[select]]


def published(cell: Cell, select: MaskChoice) -> float | None:
    """Return the published mean IoU of a cell by a choice of mask, None if there is none.

    For a click mode it is the mean of the curve, as our score of a cell is the mean over its clicks.
    """
    clicks = curve(cell, select)
    if clicks is not None:
        return math.fsum(clicks) / len(clicks)
    key = f"modes_{select}"
    if cell.model != METHODS[0].model or cell.mode not in STATIC or cell.task not in tasks():
        return None
    values = tasks()[cell.task].values
    return values[key][STATIC.index(cell.mode)] if key in values else None


def targets() -> Iterator[tuple[Cell, MaskChoice, float]]:
    """Yield every cell with a published number, the choice of mask to compare it with, and the number.

    The choice is the guide of the clicks and, in a static mode, candidate 0, which the study measured (D2).
    """
    for model, mode, task in product(MODELS, (*STATIC, *GUIDES), tasks()):
        cell, select = Cell(model, task, mode), GUIDES.get(mode, "first")
        value = published(cell, select)
        if value is not None:
            yield cell, select, value


def thresholds() -> dict[Cell, Threshold]:
    """Return a threshold for each published number, with `TOLERANCE`.

    It applies to a score over exactly the published number of cases. For tasks that share a data set only the data
    set's number is known: there it applies to scores over whole data sets with no more cases than that.
    """
    return {cell: _threshold(cell, select, value) for cell, select, value in targets()}


def _threshold(cell: Cell, select: MaskChoice, value: float) -> Threshold:
    task = tasks()[cell.task]
    return Threshold(
        value=value,
        select=select,
        tolerance=TOLERANCE,
        source=_source(cell, select),
        n=task.n_masks if task.alone else None,
        at_most=None if task.alone else task.n_masks,
    )


def _source(cell: Cell, select: MaskChoice) -> str:
    if cell.mode in STATIC:
        return f"paper, Fig. 2, mode {STATIC.index(cell.mode) + 1}, candidate 0"
    method = MODELS[cell.model]
    guide = {"sam_first": " by candidate 0", "sam_oracle": " by oracle"}.get(method.curves[select], "")
    profile = f", of {method.model}" if cell.model != method.model else ""
    return f"paper, {method.figure}, {method.name}{guide}, mean of {CLICKS} clicks{profile}"


def shipped() -> dict[Cell, Threshold]:
    """Return the thresholds that come with promptseg: the paper's numbers, and those of ``thresholds.toml``."""
    return dict(_shipped())


@cache
def _shipped() -> dict[Cell, Threshold]:
    return thresholds() | thresholds_toml.read(Path(__file__).parent / "thresholds.toml")
