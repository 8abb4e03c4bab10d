"""What tests get from the fixtures: evaluation that ends as a score, a skip or a failure with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from promptseg import processes, progress
from promptseg.errors import PromptsegError, UnavailableError, UnsupportedPromptError
from promptseg.selection import Selection
from promptseg.session import Evaluation
from promptseg.specs import Cell
from promptseg.verdict import Score


def open_evaluation(selection: Selection, planned: Iterable[Cell], config: pytest.Config) -> Evaluation:
    """Return the evaluation that all tests of a process share."""
    evaluation = Evaluation(
        selection.options,
        selection.registry,
        selection.thresholds,
        selection.baseline,
        progress.Progress(config),
        selection.options.root,
        process=processes.of_worker(getattr(config, "workerinput", {})),
    )
    evaluation.plan(planned)
    return evaluation


class Evaluate:
    """The fixture ``seg_evaluate``: call it with names of a model, a task and a prompt mode.

    What a test evaluates goes into its report, and from there into ``--seg-json``.
    """

    def __init__(self, evaluation: Evaluation, node: pytest.Item, *, require: bool) -> None:
        self._evaluation = evaluation
        self._node = node
        self._require = require

    def __call__(self, model: str, task: str, mode: str) -> Score:
        """Return the score of a cell; skip or fail the test where there can be none."""
        __tracebackhide__ = True
        cell = Cell(model, task, mode)
        published = self.publish(cell)
        try:
            score = self._evaluation.score(cell)
        except PromptsegError as error:
            problem = error
        else:
            published.update(score.as_json(), notices=self._take_notices())
            return score
        # Outside of the except block, so that pytest shows the message alone.
        if isinstance(problem, UnsupportedPromptError):
            pytest.skip(str(problem))
        if isinstance(problem, UnavailableError) and not self._require:
            pytest.skip(str(problem))
        required = "required by --seg-require: " if isinstance(problem, UnavailableError) else ""
        pytest.fail(f"{cell.id}: {required}{problem}", pytrace=False)

    def publish(self, cell: Cell) -> dict[str, Any]:
        """Put a cell into the test's report, once; return its entry there."""
        names = dataclasses.asdict(cell)
        for key, value in self._node.user_properties:
            if key == "promptseg" and isinstance(value, dict) and names.items() <= value.items():
                return value
        entry: dict[str, Any] = names
        self._node.user_properties.append(("promptseg", entry))
        return entry

    def _take_notices(self) -> list[str]:
        """Return what a person should know of the results folder, each sentence once."""
        notices = [*self._evaluation.notices]
        self._evaluation.notices.clear()
        return notices


class CellHandle:
    """The fixture ``seg_cell``: one cell, evaluated when its score is asked for.

    Attributes:
        model, task, mode: names.
    """

    def __init__(self, cell: Cell, evaluate: Evaluate) -> None:
        self.model, self.task, self.mode = cell.model, cell.task, cell.mode
        self._evaluate = evaluate
        evaluate.publish(cell)

    def score(self) -> Score:
        """Return the cell's score."""
        __tracebackhide__ = True
        return self._evaluate(self.model, self.task, self.mode)
