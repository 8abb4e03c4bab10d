"""Which cells there are, and which of them a run evaluates."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest

from promptseg import registry
from promptseg.errors import ConfigError, UnknownNameError
from promptseg.leaderboard import paper
from promptseg.registry import config as configuration
from promptseg.results.store import OldResultsError, refuse_old
from promptseg.runner.options import Options
from promptseg.session import plan
from promptseg.session._pytest_compat import NOTSET, Expression, KeywordMatcher
from promptseg.session.lines import wrapped
from promptseg.session.root import remarks
from promptseg.specs import Cell
from promptseg.verdicts import baselines, thresholds
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.thresholds import Threshold

_ID_PART = re.compile(r"[a-z0-9_]+")
_WORD = re.compile(r"[\w:+\-.\[\]\\/]+")  # a word of an expression for -k, as pytest reads it
SPEED = "speed"  # mark of the tests that measure speed, and part of their names
_OPERATORS = {"and", "or", "not"}


class Selection:
    """The cells of one pytest run. The registry is read when the first cell is needed, not before."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.options = options
        self.left_out = 0
        self.remarks = remarks(config, options.root)
        self._impossible: set[Cell] = set()
        self._plan_said = False
        self._n_impossible = 0  # of the workers of xdist
        self._config = config

    @cached_property
    def registry(self) -> registry.Registry:
        """All installed and configured plugins. Raises `pytest.UsageError` for an unusable promptseg.toml."""
        path = self.options.root / configuration.FILE_NAME
        try:
            return registry.build(path if path.is_file() else None)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error

    def cells(self) -> list[Cell]:
        """Return all cells, or those of the models, tasks and modes that options name."""
        options = self.options
        try:
            return self.registry.cells(options.models, options.tasks, options.modes)
        except UnknownNameError as error:
            raise pytest.UsageError(str(error)) from error

    def check(self) -> None:
        """Check the names and files that options give, so that a mistake ends the run before anything is collected.

        Raises:
            pytest.UsageError: an unknown model, task or mode; a thresholds file or a baseline that cannot be used.
        """
        if self.options.names_cells:
            self.cells()
        self._own_thresholds()
        self._located_baseline()

    @cached_property
    def thresholds(self) -> dict[Cell, Threshold]:
        """What cells must reach. Raises `pytest.UsageError` for a file of the user's that cannot be used."""
        return paper.shipped() | self._own_thresholds()

    @cached_property
    def baseline(self) -> Baseline | None:
        """What cells must not be worse than. Raises `pytest.UsageError` if it is missing, or is this run's own."""
        return self._located_baseline()

    def _own_thresholds(self) -> dict[Cell, Threshold]:
        path = self.options.thresholds
        try:
            own = thresholds.read(path) if path else {}
            for cell in own:
                self.registry.cells([cell.model], [cell.task], [cell.mode])
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        except UnknownNameError as error:
            raise pytest.UsageError(f"thresholds file {path}: {error}") from error
        return own

    def _located_baseline(self) -> Baseline | None:
        reference, root = self.options.baseline, self.options.root
        if reference is None:
            return None
        try:
            found = baselines.locate(reference, root / baselines.FOLDER, self._config.invocation_params.dir, root)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        if found.root.resolve() == self.options.results.resolve():
            raise pytest.UsageError(
                f"The baseline {reference!r} is the results folder of this run, which would be compared with itself: "
                f"keep it first, with `promptseg baseline save NAME`."
            )
        return found

    def parameters(self, definition: pytest.Item) -> list[Any]:
        """Return a marked pytest parameter for each cell that a test, ``definition``, is to evaluate.

        There are tens of thousands of cells, and test items are expensive, so no item is made for a cell that was not
        selected: one that needs a download or much time, where the run selects no cells; one of a mode that must be
        named and was not; and one that ``-k`` leaves out anyway. Cells share their marks.
        """
        models = {name: self._model_marks(name) for name in self.registry.models}
        tasks = {name: self._task_marks(name) for name in self.registry.tasks}
        modes = {name: [_mark("mode", name)] for name in self.registry.modes}
        cells = self.cells()
        asked = [cell for cell in cells if self._is_wanted(cell, f"{definition.nodeid}[{cell.id}]")]
        self.left_out = len(cells) - len(asked)
        marked = ((cell, [*models[cell.model], *tasks[cell.task], *modes[cell.mode]]) for cell in asked)
        matches = self._keyword_filter(definition, cells)
        if matches is not None:
            marked = ((cell, marks) for cell, marks in marked if matches(cell, marks))
            if not self._config.option.markexpr:  # else pytest decides later, and then `drop_impossible`
                nodeid = definition.nodeid
                marked = ((cell, marks) for cell, marks in marked if self._may_run(cell, f"{nodeid}[{cell.id}]"))
        return [pytest.param(cell, id=cell.id, marks=marks) for cell, marks in marked]

    def drop_impossible(self, items: list[pytest.Item]) -> None:
        """Drop the tests of cells that can never run and that nothing names by model and mode; they are counted."""
        items[:] = [item for item in items if (cell := cell_of(item)) is None or self._may_run(cell, item.nodeid)]

    @property
    def n_impossible(self) -> int:
        """Number of cells that were left out because they can never run."""
        return len(self._impossible) or self._n_impossible

    def _may_run(self, cell: Cell, nodeid: str) -> bool:
        """Whether a cell can run, or is named, so that its test says why it cannot; the others are remembered."""
        if self._can_run(cell) or self._is_asked_for_by_name(cell, nodeid):
            return True
        self._impossible.add(cell)
        return False

    def _can_run(self, cell: Cell) -> bool:
        """Whether the model takes the prompts of the mode; True where either is broken, so that the cell says so."""
        model, mode = self.registry.models[cell.model].spec, self.registry.modes[cell.mode].spec
        return model is None or mode is None or mode.needs in model.accepts

    def _is_asked_for_by_name(self, cell: Cell, nodeid: str) -> bool:
        """Whether a node id, two options, or two words of ``-k`` and ``-m`` name this model together with this mode."""
        options, words = self.options, self._words
        by_options = options.models is not None and options.modes is not None
        return by_options or {cell.model, cell.mode} <= words or self._is_named(nodeid, cell.id)

    def left_out_as_plain(self) -> dict[str, int]:
        """Return how many cells were left out, in a form that one process can send to another."""
        return {"left_out": self.left_out, "n_impossible": self.n_impossible}

    def take_left_out(self, plain: Mapping[str, int]) -> None:
        """Take over what a worker left out."""
        self.left_out = plain.get("left_out", self.left_out)
        self._n_impossible = plain.get("n_impossible", self._n_impossible)

    def models(self, definition: pytest.Item) -> list[Any]:
        """Return a marked pytest parameter for each model whose speed is to be measured.

        Speed is measured where it is named: ``-k test_speed``, ``-m speed``, a node id. ``-k minisam`` selects cells.
        """
        named = any(SPEED in word for word in self._words)
        known = [name for name in self.registry.models if self.options.models is None or name in self.options.models]
        wanted = [name for name in known if named or self._is_named(f"{definition.nodeid}[{name}]", name)]
        return [pytest.param(name, id=name, marks=self._model_marks(name)) for name in wanted]

    def _is_named(self, nodeid: str, parameter: str) -> bool:
        """Whether the command line, or ``--lf``, names a test item by its node id."""
        return parameter in self._named_ids or nodeid in self._failed

    def _keyword_filter(
        self, definition: pytest.Item, cells: Iterable[Cell]
    ) -> Callable[[Cell, Sequence[pytest.MarkDecorator]], bool] | None:
        """Return a function that says whether ``-k`` matches a cell and its marks, as pytest will decide by names.

        It decides only where each word of the expression is part of the id of some cell: other words may match what
        plugins add to items later, which pytest alone can know. Then there is None.
        """
        expression = str(self._config.option.keyword or "")
        words = set(_WORD.findall(expression.lower())) - _OPERATORS
        if not words:
            return lambda _cell, _marks: True
        try:
            compiled = Expression.compile(expression)
        except SyntaxError:  # pytest itself reports it
            return None
        ids = "\n".join(cell.id for cell in cells)
        if not all(word in ids or SPEED in word for word in words):
            return None
        names = KeywordMatcher.from_item(definition)

        def matches(cell: Cell, marks: Sequence[pytest.MarkDecorator]) -> bool:
            own = "\n".join([f"{definition.name}[{cell.id}]", *(mark.name for mark in marks)]).lower()
            return compiled.evaluate(lambda word, /, **_: word.lower() in own or names(word))

        return matches

    def _model_marks(self, name: str) -> list[pytest.MarkDecorator]:
        spec = self.registry.models[name].spec
        marks = [_mark("model", name)]
        if spec and spec.gpu:
            marks.append(pytest.mark.gpu)
        if spec and spec.origin and spec.origin.gated:
            marks.append(pytest.mark.gated)
        return marks

    def _task_marks(self, name: str) -> list[pytest.MarkDecorator]:
        task = self.registry.tasks[name]
        marks = [_mark("task", name), _mark("modality", task.modality)]
        if task.dataset.spec and task.dataset.spec.gated:
            marks.append(pytest.mark.gated)
        return marks

    def _expression_asks(self) -> bool:
        """Whether ``-k`` or ``-m`` selects something, as an expression does that is false where no name matches.

        ``-k us_kidney`` selects, ``-m "not gpu"`` only excludes.
        """
        option = self._config.option
        return any(text and not _holds_for_nothing(text) for text in (option.keyword, option.markexpr))

    def _is_wanted(self, cell: Cell, nodeid: str) -> bool:
        if self._is_named(nodeid, cell.id):
            return True
        return self._may_come_along(cell.mode) if self._asked else self.registry.is_embedded(cell)

    @cached_property
    def _asked(self) -> bool:
        """Whether the run asks for cells."""
        return self.options.names_cells or self._expression_asks()

    def _may_come_along(self, name: str) -> bool:
        """Whether a run that asks for cells evaluates a mode: unless it must be named, and nothing names it."""
        mode = self.registry.modes[name].spec
        if mode is None or mode.when != "named" or self.options.modes is not None:
            return True
        return any(word in name for word in self._words)

    @cached_property
    def _words(self) -> set[str]:
        """The names in ``-k`` and ``-m``, or parts of names."""
        option = self._config.option
        words = _ID_PART.findall(f"{option.keyword} {option.markexpr}".lower())
        return set(words) - _OPERATORS

    @cached_property
    def _named_ids(self) -> set[str]:
        """Parameter ids of the node ids on the command line."""
        return {arg[arg.index("[") + 1 : -1] for arg in self._config.args if "::" in arg and arg.endswith("]")}

    @cached_property
    def _failed(self) -> set[str]:
        """Node ids that ``--lf`` and ``--ff`` run again."""
        option = self._config.option
        if not (getattr(option, "lf", False) or getattr(option, "failedfirst", False)) or self._config.cache is None:
            return set()
        return set(self._config.cache.get("cache/lastfailed", {}))

    def planned(self, items: Iterable[pytest.Item]) -> list[Cell]:
        """Return the cells of the items."""
        return [cell for cell in map(cell_of, items) if cell is not None]

    def check_results(self) -> None:
        """Raise `pytest.UsageError` if the results folder holds what promptseg wrote before 0.2.0."""
        try:
            refuse_old(self.options.results)
        except OldResultsError as error:
            raise pytest.UsageError(str(error)) from error

    def group_of(self, nodeid: str) -> str | None:
        """Return the (model, data set) of a cell's node id, None for other tests."""
        cell = self._cell_of_id(nodeid)
        return None if cell is None else f"{cell.model}-{self.registry.tasks[cell.task].dataset.name}"

    def cells_of_ids(self, nodeids: Iterable[str]) -> list[Cell]:
        """Return the cells among tests, given by their node ids."""
        return [cell for cell in map(self._cell_of_id, nodeids) if cell is not None]

    def _cell_of_id(self, nodeid: str) -> Cell | None:
        if not nodeid.endswith("]"):
            return None
        parts = nodeid[nodeid.rindex("[") + 1 : -1].split("-")
        if len(parts) != 3 or not all(_ID_PART.fullmatch(part) for part in parts):
            return None
        try:
            registry = self.registry
        except pytest.UsageError:  # an unusable promptseg.toml: the workers report it where cells are collected
            return None
        if parts[0] not in registry.models or parts[1] not in registry.tasks or parts[2] not in registry.modes:
            return None
        return Cell(*parts)

    def plan_lines(self, cells: Collection[Cell]) -> list[str]:
        """Return what the run says before it begins, the first time; with ``-q`` only what will go wrong."""
        only = self.options.plan
        if self._plan_said or not (cells or only):
            return []
        self._plan_said = True
        found = plan.survey(cells, self.registry, limit=self.options.limit)
        said = plan.lines(found) if only or self._config.get_verbosity() >= 0 else plan.warnings(found)
        width = self._config.get_terminal_writer().fullwidth
        return [line for text in said for line in wrapped(text, width, hang=2)]


def _mark(kind: str, name: str) -> pytest.MarkDecorator:
    # By position for readers of the mark, by keyword for -m "model(name='...')".
    return getattr(pytest.mark, kind)(name, name=name)  # type: ignore[no-any-return]


def _holds_for_nothing(expression: str) -> bool:
    try:
        return bool(Expression.compile(expression).evaluate(lambda *_, **__: False))
    except SyntaxError:
        return False  # pytest itself reports it


def cell_of(item: pytest.Item) -> Cell | None:
    """Return the cell that a test evaluates, None for other tests."""
    callspec = getattr(item, "callspec", None)
    value = callspec.params.get("seg_cell") if callspec else None
    return value if isinstance(value, Cell) else None


def measures_nothing(item: pytest.Item) -> bool:
    """Whether a test would measure models' speed, and the run named no model."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("seg_speed") is NOTSET
