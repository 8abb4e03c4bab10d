"""The pytest plugin: hooks and fixtures of a few lines, which call `promptseg.session`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

pytest.register_assert_rewrite("promptseg.benchmark")

from promptseg.session import command_line, hints  # noqa: E402 - after the registration above
from promptseg.session.report import RunReport  # noqa: E402
from promptseg.session.scored import ScoredStatus  # noqa: E402
from promptseg.session.selection import Selection, measures_nothing  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.scheduler.loadscope import LoadScopeScheduling

    from promptseg.runner.run import Run
    from promptseg.session.fixtures import CellFixture, EvaluateFixture, SpeedHandle

MARKERS = (
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


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> None:
    """Refuse a command that moves pytest's root, before a conftest.py of the wrong root is looked for."""
    command_line.refuse_moved(early_config, parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; check the options, and the names in them, before anything is collected."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    hints.refuse_module_as_path(config)
    options = command_line.received(config) or command_line.read(config)
    config.stash[_SELECTION] = selection = Selection(config, options)
    if selection.options.plan:
        config.option.dist = "no"  # nothing will be run, so no workers are needed
    if not hasattr(config, "workerinput"):  # xdist's controller, or the only process
        report = RunReport(selection)
        config.pluginmanager.register(report, "promptseg-report")
        config.pluginmanager.register(ScoredStatus(report.unavailable), "promptseg-scored")
    selection.check()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests: ``seg_cell`` by every selected cell, ``seg_speed`` by every model to be measured."""
    selection = metafunc.config.stash[_SELECTION]
    if "seg_cell" in metafunc.fixturenames:
        metafunc.parametrize("seg_cell", selection.parameters(metafunc.definition), indirect=True)
    if "seg_speed" in metafunc.fixturenames:
        metafunc.parametrize("seg_speed", selection.models(metafunc.definition), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Drop tests that would be noise: of speed without a model, and, of what -k and -m leave, those that cannot run."""
    items[:] = [item for item in items if not measures_nothing(item)]
    yield
    config.stash[_SELECTION].drop_impossible(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a results folder of an older promptseg once, before anything is evaluated."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    if any("_seg_evaluation" in getattr(item, "fixturenames", ()) for item in session.items):
        config.stash[_SELECTION].check_results()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    """Where nothing was selected, say which words of ``-k`` are nearly the name of something."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and config.option.keyword:
        with suppress(pytest.UsageError):  # an unusable promptseg.toml, which matters where cells are collected
            for hint in hints.on_keyword(config.option.keyword, config.stash[_SELECTION].registry):
                terminalreporter.write_line(hint, yellow=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of xdist the options of this run, so that one that starts late, after a crash, has the same."""
    command_line.send(node.config.stash[_SELECTION].options, node)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Say what the run is going to do."""
    if config.option.collectonly:
        return []
    selection = config.stash[_SELECTION]
    return selection.plan_lines(selection.planned(items))


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run nothing where only the plan was asked for."""
    return session.config.stash[_SELECTION].options.plan or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Do on the controller of xdist, which collects nothing itself, what is done at the end of a collection."""
    selection = node.config.stash[_SELECTION]
    cells = selection.cells_of_ids(ids)
    if cells:
        selection.check_results()
        terminal = node.config.pluginmanager.getplugin("terminalreporter")
        for line in selection.plan_lines(cells):
            terminal.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a worker of xdist report what it left out: its controller collects nothing itself."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["promptseg"] = session.config.stash[_SELECTION].left_out_as_plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take that on the controller; the workers agree, and one that died reports nothing."""
    node.config.stash[_SELECTION].take_left_out(getattr(node, "workeroutput", {}).get("promptseg", {}))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Send the cells of one (model, data set) to one worker, so that images are encoded once.

    This applies to ``--dist load`` and ``loadgroup``; another ``--dist`` stays what the user chose.
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
    """One model whose speed is to be measured: ``seg_speed.measure()``, with pytest-benchmark."""
    from promptseg.session.fixtures import SpeedHandle

    return SpeedHandle(request.param, _seg_evaluation, request.config.stash[_SELECTION].options, request)
