"""Settings of this repository's own tests; nothing here is needed by users of the plugin.

Here the benchmark is collected beside some thousands of unit tests, many with the names of models and tasks in their
own. ``pytest -k us_kidney`` asks for cells: where every word of ``-k`` is a registered name, and no file or folder is
named, unit tests are left out, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from promptseg import registry

pytest_plugins = ["pytester"]

_LEFT_OUT = pytest.StashKey[int]()
_OPERATORS = {"and", "or", "not"}


def is_of_registered_names(expression: str, found: registry.Registry) -> bool:
    """Whether an expression for ``-k`` has words, and all of them are models, data sets, tasks or prompt modes."""
    words = set(re.findall(r"[^\s()]+", expression.lower())) - _OPERATORS
    return bool(words) and all(
        any(word in names for names in (found.models, found.datasets, found.tasks, found.modes)) for word in words
    )


def _names_paths(config: pytest.Config) -> bool:
    """Whether the command line names files or folders; a worker of xdist gets them from its controller in any case."""
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["names_paths"])
    return config.args_source == pytest.Config.ArgsSource.ARGS


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Say it to a worker."""
    node.workerinput["names_paths"] = _names_paths(node.config)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave unit tests out, of what ``-k`` has selected, where it asks for cells."""
    yield
    if not config.option.keyword or _names_paths(config):
        return
    own = config.rootpath / "promptseg.toml"
    if not is_of_registered_names(config.option.keyword, registry.build(own if own.is_file() else None)):
        return
    units = [item for item in items if "seg_cell" not in getattr(item, "fixturenames", ())]
    if units:
        items[:] = [item for item in items if item not in set(units)]
        config.hook.pytest_deselected(items=units)
        config.stash[_LEFT_OUT] = len(units)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a worker of xdist report how many, since only the controller has a terminal."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["unit_tests_left_out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the number of a worker; all of them left out the same tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("unit_tests_left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many unit tests were left out, and how to run them."""
    config = terminalreporter.config
    if count := config.stash.get(_LEFT_OUT, 0):
        left_out = f"{count} unit test{'' if count == 1 else 's'} with such names left out, since -k asks for cells"
        terminalreporter.line(f"{left_out}: pytest tests -k {config.option.keyword!r} runs them too")
