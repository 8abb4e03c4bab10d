"""What tests get from the fixtures: evaluation that ends as a score, a skip or a failure with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from promptseg.errors import PromptsegError, UnavailableError, UnsupportedPromptError, package_needed
from promptseg.results import speed as results_speed
from promptseg.results.speed import Speed
from promptseg.runner import devices, speed
from promptseg.runner.options import Options
from promptseg.runner.run import Run, open_run
from promptseg.session.progress_bar import Progress
from promptseg.session.report import MEASURED, PUBLISHED
from promptseg.session.selection import Selection
from promptseg.specs import Cell
from promptseg.text import printable
from promptseg.verdicts.score import CellScore


def open_evaluation(selection: Selection, planned: Iterable[Cell], config: pytest.Config) -> Run:
    """Return the evaluation that all tests of a process share."""
    return open_run(
        selection.options,
        selection.registry,
        planned,
        thresholds=selection.thresholds,
        baseline=selection.baseline,
        open_bar=Progress(config, limit=selection.options.limit).open_bar,
        process=devices.of_worker(getattr(config, "workerinput", {})),
    )


class EvaluateFixture:
    """The fixture ``seg_evaluate``: call it with names of a model, a task and a prompt mode.

    What a test evaluates goes into its report, and from there into ``--seg-json``.
    """

    def __init__(self, evaluation: Run, node: pytest.Item, *, require: bool) -> None:
        self._evaluation = evaluation
        self._node = node
        self._require = require

    def __call__(self, model: str, task: str, mode: str) -> CellScore:
        """Return the score of a cell; skip or fail the test where there can be none."""
        __tracebackhide__ = True
        cell = Cell(model, task, mode)
        published = self.publish(cell)
        try:
            score = self._evaluation.score(cell)
        except PromptsegError as error:
            published["notices"] = self._take_notices()
            problem = error
            if isinstance(error, UnavailableError):
                published["missing"] = {"name": error.name, "why": error.why or str(error), "remedy": error.remedy}
        else:
            published.update(score.as_json(), notices=self._take_notices())
            return score
        raise _ending(cell.id, problem, require=self._require)  # outside of except: pytest shows the message alone

    def publish(self, cell: Cell) -> dict[str, Any]:
        """Put a cell into the test's report, once; return its entry there."""
        names = dataclasses.asdict(cell)
        for key, value in self._node.user_properties:
            if key == PUBLISHED and isinstance(value, dict) and names.items() <= value.items():
                return value
        entry: dict[str, Any] = names
        self._node.user_properties.append((PUBLISHED, entry))
        return entry

    def _take_notices(self) -> list[str]:
        """Return what a person should know of the results folder, each sentence once."""
        notices = [*self._evaluation.notices]
        self._evaluation.notices.clear()
        return notices


def _ending(name: str, problem: PromptsegError, *, require: bool) -> BaseException:
    """Return the skip, or the failure, that a test ends with for what keeps it from being run."""
    missing = isinstance(problem, UnavailableError)
    if isinstance(problem, UnsupportedPromptError) or (missing and not require):
        return pytest.skip.Exception(printable(str(problem)))
    required = "required by --seg-require: " if missing else ""
    return pytest.fail.Exception(printable(f"{name}: {required}{problem}"), pytrace=False)


class CellFixture:
    """The fixture ``seg_cell``: one cell, evaluated when its score is asked for.

    Attributes:
        model, task, mode: names.
    """

    def __init__(self, cell: Cell, evaluate: EvaluateFixture) -> None:
        self.model, self.task, self.mode = cell.model, cell.task, cell.mode
        self._evaluate = evaluate
        evaluate.publish(cell)

    def score(self) -> CellScore:
        """Return the cell's score."""
        __tracebackhide__ = True
        return self._evaluate(self.model, self.task, self.mode)


class SpeedHandle:
    """The fixture ``seg_speed``: one model, measured with pytest-benchmark.

    Attributes:
        model: its name.
    """

    def __init__(self, model: str, evaluation: Run, options: Options, request: pytest.FixtureRequest) -> None:
        self.model = model
        self._evaluation = evaluation
        self._options = options
        self._request = request

    def measure(self) -> Speed:
        """Measure the model, keep the figures beside its scores, and give them to pytest-benchmark as extra info.

        pytest-benchmark's own figures are of a whole round: all images encoded and all prompts decoded.
        """
        __tracebackhide__ = True
        try:
            if not self._request.config.pluginmanager.hasplugin("benchmark"):
                raise UnavailableError(package_needed("test_speed", "pytest-benchmark", "benchmark"))
            with self._evaluation.measuring(self.model):
                return self._measured(self._rounds())
        except PromptsegError as error:
            problem = error
        raise _ending(self.model, problem, require=self._options.require)

    def _rounds(self) -> speed.Rounds:
        evaluation = self._evaluation
        return speed.Rounds(evaluation.load(self.model), evaluation.runtime().device, evaluation.registry)

    def _measured(self, rounds: speed.Rounds) -> Speed:
        benchmark = self._request.getfixturevalue("benchmark")  # now: it complains if it is not used
        if not benchmark.enabled:
            benchmark(lambda: None)
            pytest.skip("speed is measured where nothing else runs: without -n and --benchmark-disable")
        rounds.run()  # what is slow only once is not what is measured
        rounds.forget()
        benchmark.pedantic(rounds.run, rounds=speed.ROUNDS)
        found = speed.measured(rounds, self._evaluation.runtime())
        benchmark.extra_info.update(dataclasses.asdict(found))
        results_speed.write(self._options.results, found)
        self._request.node.user_properties.append((MEASURED, results_speed.text(found)))
        return found
