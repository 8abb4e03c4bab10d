"""The pytest plugin: hooks of a few lines each. What they do is in `selection`, `session` and `run_report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.register_assert_rewrite("promptseg.benchmark")

from promptseg.session import command_line  # noqa: E402 - after the registration above
from promptseg.session.report import RunReport  # noqa: E402
from promptseg.session.selection import Selection, measures_nothing  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.scheduler.loadscope import LoadScopeScheduling

    from promptseg.runner.run import Run
    from promptseg.session.fixtures import CellFixture, EvaluateFixture, SpeedHandle

_MARKERS = (
    "model(name): the model that a cell evaluates",
    "task(name): the task that a cell evaluates",
    "mode(name): the prompt mode that a cell evaluates",
    "modality(name): the modality of the cell's task",
    "gated: weights or data need terms to be accepted first",
    "speed: measures a model's speed; runs where it is named",
    "gpu: too slow to be of use without a GPU",
)

_SELECTION = pytest.StashKey[Selection]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seg-*`` and the ``seg_*`` ini values."""
    command_line.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; check the options, and the names they hold, before anything is collected."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[_SELECTION] = selection = Selection(config, command_line.read(config))
    if not hasattr(config, "workerinput"):  # xdist's controller, or the only process
        config.pluginmanager.register(RunReport(selection), "promptseg-report")
    if selection.options.names_cells:
        selection.cells()
    if selection.options.thresholds is not None:
        _ = selection.thresholds
    _ = selection.baseline


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for ``seg_cell`` every cell that the run asks for, for ``seg_speed`` every model."""
    selection = metafunc.config.stash[_SELECTION]
    if "seg_cell" in metafunc.fixturenames:
        metafunc.parametrize("seg_cell", selection.parameters(metafunc.definition), indirect=True)
    if "seg_speed" in metafunc.fixturenames:
        metafunc.parametrize("seg_speed", selection.models(metafunc.definition), indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what measures the speed of no model: nobody asked for it, so it is not worth a skipped test."""
    items[:] = [item for item in items if not measures_nothing(item)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Send the cells of one (model, data set) to one worker: images are then encoded once.

    Only where xdist would distribute by load or by group; another ``--dist`` stays what the user chose.
    """
    if config.getoption("dist") not in ("load", "loadgroup"):
        return None
    from promptseg.session.scheduling import GroupScheduling

    return GroupScheduling(config, log, config.stash[_SELECTION].group_of)


@pytest.fixture(scope="session")
def _seg_evaluation(request: pytest.FixtureRequest) -> Iterator[Run]:
    from promptseg.session.fixtures import open_evaluation

    selection = request.config.stash[_SELECTION]
    evaluation = open_evaluation(selection, selection.planned(request.session.items), request.config)
    yield evaluation
    evaluation.close()


@pytest.fixture
def seg_evaluate(request: pytest.FixtureRequest, _seg_evaluation: Run) -> EvaluateFixture:
    """Evaluate any registered cell: ``seg_evaluate("sam_vit_b", "us_kidney", "box_each").mean_iou``.

    Skips the test where weights or data are not available (fails it with ``--seg-require``).
    """
    from promptseg.session.fixtures import EvaluateFixture

    require = request.config.stash[_SELECTION].options.require
    return EvaluateFixture(_seg_evaluation, request.node, require=require)


@pytest.fixture
def seg_cell(request: pytest.FixtureRequest, seg_evaluate: EvaluateFixture) -> CellFixture:
    """One (model, task, prompt mode); a test that asks for it runs once for each.

    ``seg_cell.model``, ``.task`` and ``.mode`` are names, ``seg_cell.score()`` returns a
    `promptseg.verdicts.score.CellScore`.
    """
    from promptseg.session.fixtures import CellFixture

    return CellFixture(request.param, seg_evaluate)


@pytest.fixture
def seg_speed(request: pytest.FixtureRequest, _seg_evaluation: Run) -> SpeedHandle:
    """One model whose speed is asked for: ``seg_speed.measure()``, with pytest-benchmark."""
    from promptseg.session.fixtures import SpeedHandle

    return SpeedHandle(request.param, _seg_evaluation, request.config.stash[_SELECTION].options, request)
