"""What tests get from the fixtures: evaluation that ends as a score, a skip or a failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from promptseg import progress
from promptseg.errors import PromptsegError, UnavailableError, UnsupportedPromptError
from promptseg.selection import Selection
from promptseg.session import Evaluation, Score
from promptseg.specs import Cell


class Evaluate:
    """The fixture ``seg_evaluate``: call it with names of a model, a task and a prompt mode."""

    def __init__(self, selection: Selection, planned: Iterable[Cell], config: pytest.Config) -> None:
        options = selection.options
        self._require = options.require
        self._evaluation = Evaluation(
            options,
            selection.registry,
            selection.thresholds,
            progress.Progress(config),
            options.root,
            processes=getattr(config, "workerinput", {}).get("workercount", 1),
        )
        self._evaluation.plan(planned)

    def take_notices(self) -> list[str]:
        """Return what a person should know of the results folder, each sentence once."""
        notices = [*self._evaluation.notices]
        self._evaluation.notices.clear()
        return notices

    def __call__(self, model: str, task: str, mode: str) -> Score:
        """Return the score of a cell; skip or fail the test where there can be none."""
        __tracebackhide__ = True
        cell = Cell(model, task, mode)
        try:
            return self._evaluation.score(cell)
        except PromptsegError as error:
            problem = error
        # Outside of the except block, so that pytest shows the message alone.
        if isinstance(problem, UnsupportedPromptError):
            pytest.skip(str(problem))
        if isinstance(problem, UnavailableError) and not self._require:
            pytest.skip(str(problem))
        required = "required by --seg-require: " if isinstance(problem, UnavailableError) else ""
        pytest.fail(f"{cell.id}: {required}{problem}", pytrace=False)


class CellHandle:
    """The fixture ``seg_cell``: one cell, evaluated when its score is asked for.

    Attributes:
        model, task, mode: names.
    """

    def __init__(self, cell: Cell, evaluate: Evaluate, node: pytest.Item) -> None:
        self.model, self.task, self.mode = cell.model, cell.task, cell.mode
        self._evaluate = evaluate
        self._published: dict[str, object] = {"model": cell.model, "task": cell.task, "mode": cell.mode}
        node.user_properties.append(("promptseg", self._published))

    def score(self) -> Score:
        """Return the cell's score, and put it into the run's report."""
        __tracebackhide__ = True
        score = self._evaluate(self.model, self.task, self.mode)
        self._published.update(score.as_json(), notices=self._evaluate.take_notices())
        return score
