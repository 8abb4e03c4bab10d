"""Stored cases to look at: rows, image, target, prompts and candidate masks of a result, as far as they are here.

Reads only what is on this machine: nothing is downloaded, prepared or evaluated. What cannot be shown is said in
words (`CaseView.problems`); the rows are always there.
"""

from __future__ import annotations

import importlib.util
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.data import prepared
from promptseg.errors import CaseError, PromptsegError, ResultsError, package_needed
from promptseg.evaluation import metrics
from promptseg.preparation import fetch
from promptseg.registry.entries import Registry
from promptseg.results.masks import MaskStore, SavedMask
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore, refuse_old
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Image, Mask, Prediction, Prompt
from promptseg.specs import Cell, TaskSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One row of a case: the answer to a static mode's prompts, or to one click.

    Attributes:
        row: as stored.
        prompts: what was given; empty for a grid.
        predictions: all candidates, one prediction for each prompt; empty where the masks were not saved.
        choice: the candidates united index by index, and which of them is the first, the confident and the oracle
            mask (`promptseg.evaluation.metrics.choose`); None without masks or without target.
    """

    row: ResultRow
    prompts: tuple[Prompt, ...]
    predictions: tuple[Prediction, ...] = ()
    choice: metrics.Choice | None = None

    @property
    def candidates(self) -> tuple[Mask, ...]:
        """The (H, W) candidates, those of several prompts united index by index; empty without masks."""
        return tuple(np.logical_or.reduce([p.masks for p in self.predictions])) if self.predictions else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseView:
    """One case of a result.

    Attributes:
        case_id: the image's id.
        image: (H, W, 3) uint8, None where it is not here.
        target: (H, W) bool, None where it is not here.
        steps: one for a static mode, one for each click of an iterative one.
        problems: why something is missing, a sentence each.
    """

    case_id: str
    image: Image | None
    target: Mask | None
    steps: tuple[Step, ...]
    problems: tuple[str, ...] = ()


class CellViews:
    """The cases of one result.

    Args:
        result: the result.
        samples: opens the result's data set; see `samples_of`.
        roots: results folders that may have its masks. A baseline has none; those of the run that it was saved from
            may still be in the folder of that run.
    """

    def __init__(self, result: CellResult, samples: Callable[[CellResult], Samples], *roots: Path) -> None:
        self.result = result
        rows: dict[str, list[ResultRow]] = defaultdict(list)
        for row in result.rows:
            rows[row.case_id].append(row)
        self.rows: Mapping[str, tuple[ResultRow, ...]] = {case: tuple(found) for case, found in rows.items()}
        self._samples: Samples | None = None
        self._no_samples = self._no_masks = ""
        try:
            self._samples = samples(result)
        except PromptsegError as error:
            self._no_samples = str(error)
        stores = [MaskStore(root, lambda _: None) for root in roots]  # lines of journals are not read here
        self._masks = next((s for s in stores if s.versions(result.cell, result.fingerprint)), None)
        if self._masks is None:
            self._no_masks = "Its masks were not saved: run pytest again with --seg-save-masks."
        elif importlib.util.find_spec("pycocotools") is None:
            self._masks = None
            self._no_masks = package_needed("Drawing its masks", "pycocotools", "masks") + "."

    @property
    def problems(self) -> tuple[str, ...]:
        """Why no case of this result can be shown in full, a sentence each; empty where it can."""
        return tuple(filter(None, (self._no_samples, self._no_masks)))

    def view(self, case_id: str) -> CaseView:
        """Return one case. Raises `ResultsError` for an id that the result does not hold."""
        return next(self.views([case_id]))

    def views(self, case_ids: Iterable[str]) -> Iterator[CaseView]:
        """Yield some cases in the order given; the masks of all of them are read at once.

        Raises:
            ResultsError: the result does not hold a case.
        """
        wanted = list(case_ids)
        for case_id in wanted:
            if case_id not in self.rows:
                raise ResultsError(f"The result of {self.result.cell.id} holds no case {case_id!r}.")
        masks = self._saved(wanted)
        for case_id in wanted:
            yield self._view(case_id, masks[case_id])

    def _saved(self, case_ids: list[str]) -> dict[str, list[SavedMask]]:
        found: dict[str, list[SavedMask]] = defaultdict(list)
        try:
            masks = self._masks.read(self.result.cell, self.result.fingerprint, case_ids) if self._masks else []
        except ResultsError as error:
            self._masks, self._no_masks = None, str(error)
            return found
        for mask in masks:
            found[mask.case_id].append(mask)
        return found

    def _view(self, case_id: str, masks: list[SavedMask]) -> CaseView:
        problems = list(self.problems)
        image = target = None
        if self._samples is not None:
            try:
                image = self._samples.image(case_id)
                target = target_of(_task(self.result), self._samples.labels(case_id))
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                problems.append(str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}")
        if self._masks is not None and not masks and not any(row.error for row in self.rows[case_id]):
            problems.append("The masks of this case were not saved.")
        by_click: dict[int, list[SavedMask]] = defaultdict(list)
        for mask in masks:
            by_click[mask.click].append(mask)
        steps = tuple(_step(row, by_click[row.click], target) for row in self.rows[case_id])
        return CaseView(case_id=case_id, image=image, target=target, steps=steps, problems=tuple(problems))


def open_cell(results: Path, registry: Registry, cell: Cell) -> CellViews:
    """Return the cases of a cell's latest result in a results folder.

    Raises:
        ResultsError: there is no such result, or it cannot be read.
    """
    refuse_old(results)
    result = ResultStore(results).latest(cell)
    if result is None:
        raise ResultsError(f"{results} holds no result of {cell.id}. Run pytest first, or name another folder.")
    return CellViews(result, samples_of(registry), results)


def samples_of(registry: Registry) -> Callable[[CellResult], Samples]:
    """Return a function that opens the data set of a result, each data set once.

    It raises `PromptsegError` where the data set is not on this machine, or holds other pixels than were evaluated.
    """
    opened: dict[str, Samples | PromptsegError] = {}

    def samples(result: CellResult) -> Samples:
        name = str(result.provenance.dataset.name)
        if name not in opened:
            try:
                opened[name] = _open(registry, name)
            except PromptsegError as error:
                opened[name] = error
        found = opened[name]
        if isinstance(found, PromptsegError):
            raise found
        if found.fingerprint != result.provenance.dataset.fingerprint:
            raise ResultsError(f"The data set {name} on this machine has other images or masks than were evaluated.")
        return found

    return samples


def _open(registry: Registry, name: str) -> Samples:
    """Open a data set that is here, prepared where it must be. Raises `PromptsegError` for any other."""
    if name not in registry.datasets:
        raise ResultsError(f"The data set {name} is not registered on this machine.")
    spec = registry.dataset(name)
    if not fetch.dataset_is_here(spec) or (spec.layouts and prepared.find(spec) is None):
        raise ResultsError(f"The data set {name} is not on this machine: run `promptseg pull {name}`.")
    try:
        return fetch.open_samples(spec)[1]
    except PromptsegError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise ResultsError(f"The data set {name} cannot be opened: {type(error).__name__}: {error}") from error


def _task(result: CellResult) -> TaskSpec:
    """Return the task as it was evaluated, which the registry may by now know otherwise."""
    return TaskSpec(name=result.cell.task, labels=result.provenance.task.labels or ())


def prompts_of(row: ResultRow) -> tuple[Prompt, ...]:
    """Return the prompts of a row; none for a grid."""
    given: list[dict[str, Any]] = json.loads(row.prompts)
    return tuple(_prompt(prompt) for prompt in given if "grid" not in prompt)


def _prompt(given: Mapping[str, Any]) -> Prompt:
    box = given["box_xyxy"]
    return Prompt(
        points_xy=np.array(given["points_xy"], dtype=np.float32).reshape(-1, 2),
        labels=np.array(given["labels"], dtype=np.int64),
        box_xyxy=None if box is None else np.array(box, dtype=np.float32),
    )


def _step(row: ResultRow, masks: list[SavedMask], target: Mask | None) -> Step:
    by_prompt: dict[int, list[SavedMask]] = defaultdict(list)
    for mask in masks:
        by_prompt[mask.prompt].append(mask)
    predictions = tuple(_prediction(by_prompt[prompt]) for prompt in sorted(by_prompt))
    choice = metrics.choose(predictions, target) if predictions and target is not None else None
    return Step(row=row, prompts=prompts_of(row), predictions=predictions, choice=choice)


def _prediction(masks: list[SavedMask]) -> Prediction:
    ordered = sorted(masks, key=lambda mask: mask.candidate)
    scores = [mask.predicted_iou for mask in ordered if mask.predicted_iou is not None]
    return Prediction(
        masks=np.stack([mask.mask() for mask in ordered]),
        predicted_iou=np.array(scores, dtype=np.float32) if len(scores) == len(ordered) else None,
    )
