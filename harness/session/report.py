"""The end of a run, on the controller: the JSON of its cells, the leaderboard, the last lines on the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from promptseg.errors import PromptsegError
from promptseg.files.atomic import write_text
from promptseg.results import provenance
from promptseg.results.running import take_left_behind
from promptseg.session import finished, github, terminal
from promptseg.session.lines import Line
from promptseg.session.selection import Selection
from promptseg.session.terminal import RunSummary
from promptseg.text import counted, printable

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell
    from promptseg.verdicts.score import CellEntry

JSON_SCHEMA = 1
PUBLISHED = "promptseg"  # the user property of a test report that holds a cell
MEASURED = "promptseg-speed"  # the same with figures of speed, in words
LEADERBOARD = Path("leaderboard/LEADERBOARD.md")


class RunReport:
    """Collects what tests publish about their cells; under xdist the reports of all workers arrive here.

    Attributes:
        unavailable: node ids of the tests that lacked weights or data.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._cells: dict[tuple[str, str, str], FinishedCell] = {}
        self._speeds: list[str] = []
        self._files: list[str] = []
        self._notices: set[str] = {*selection.remarks}
        self._failures: dict[str, str] = {}
        self.unavailable: set[str] = set()
        self._n_others = 0
        self._begun = False
        self._collected = False

    # --- hooks ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)  # before JUnit's reporter, which writes properties as they are
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the cells of a finished test; of several tests of one cell the worst outcome counts."""
        published, speeds = _take(report)
        self._begun |= bool(published)  # from the test's setup on, long before its cell has a score
        if report.when == "call":
            self._speeds += speeds
        self._n_others += not published and (report.failed or (report.when == "call" and report.passed))
        if report.when == "call" or report.failed:
            for entry in published:
                self._keep(entry, report)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Name the cells of earlier processes that ended without a word: now, since this one may end like them."""
        if session.config.option.collectonly:
            return
        if any("_seg_evaluation" in getattr(item, "fixturenames", ()) for item in session.items):
            self._name_left_behind(session.config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Name them on the controller of xdist, which collects nothing itself; at the first worker alone."""
        if not self._collected and any(self._selection.group_of(nodeid) is not None for nodeid in ids):
            self._collected = True
            self._name_left_behind(node.config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Say of a test whose worker has crashed what was being evaluated, and count its cell among the failed."""
        if self._selection.group_of(crashitem) is None:
            return
        cell = dict(zip(("model", "task", "mode"), crashitem[crashitem.rindex("[") + 1 : -1].split("-"), strict=True))
        report.user_properties.append((PUBLISHED, cell))
        report.longrepr = "\n".join([report.longreprtext, *map(str, take_left_behind(self._selection.options.results))])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the leaderboard, the JSON and the summary for GitHub."""
        options = self._selection.options
        if exitstatus == pytest.ExitCode.INTERRUPTED and not options.rerun:  # which counts no case as finished
            self._say_what_is_kept(session.items)
        if self._speeds or any(map(finished.is_scored, self._cells.values())):
            self._files.append(f"results: {options.results}")
            self._rewrite_leaderboard()
        if options.json is not None and not options.plan and not session.config.option.collectonly:
            self._write_json(options.json, session)
        if exitstatus == pytest.ExitCode.OK and self._nothing_was_there():
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        if self._cells and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
            self._add_to_summary(Path(summary))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the scores, what failed or was missing, where results are, and which plugins are broken."""
        width, n_impossible = terminalreporter.config.get_terminal_writer().fullwidth, self._selection.n_impossible
        if self._cells or self._files:
            lines = terminal.lines(self._summary(width))
        else:  # nothing ran, or only the plan was asked for
            lines = terminal.impossible(n_impossible, width)
        if lines:
            terminalreporter.section("promptseg")
        for line in lines:
            _write(terminalreporter, line)

    # --- what was collected ---------------------------------------------------------------------------------

    def _keep(self, entry: dict[str, Any], report: pytest.TestReport) -> None:
        if report.outcome not in finished.OUTCOMES:  # a plugin's own, as of a test that is run again
            return
        self._notices.update(entry.get("notices", ()))
        facts = {key: value for key, value in entry.items() if key != "notices"}
        cell = cast("FinishedCell", {**facts, "outcome": report.outcome, "reason": _reason(report)})
        key = (cell["model"], cell["task"], cell["mode"])
        if finished.replaces(cell, self._cells.get(key)):
            self._cells[key] = cell
            if report.failed:
                self._failures[finished.name(cell)] = _message(report)
        if "missing" in cell:
            self.unavailable.add(report.nodeid)

    def _nothing_was_there(self) -> bool:
        """Whether cells were asked for, none had its files, and no other test passed or failed."""
        cells = self._cells.values()
        ran = any(finished.is_scored(cell) or cell["outcome"] != "skipped" for cell in cells)
        return any("missing" in cell for cell in cells) and not ran and not self._n_others

    def _sorted(self) -> list[FinishedCell]:
        return [self._cells[key] for key in sorted(self._cells)]

    def _entries(self) -> list[FinishedCell]:
        """Return the cells as ``--seg-json`` has them."""
        return [*map(finished.complete, self._sorted())]

    def _summary(self, width: int) -> RunSummary:
        cells, on_github = self._sorted(), os.environ.get("GITHUB_ACTIONS") == "true"
        return RunSummary(
            cells=cells,
            speeds=self._speeds,
            files=self._files,
            annotations=[*github.workflow_commands(cells)] if on_github else (),
            until_sure=self._selection.options.until_sure is not None,
            n_left_out=self._selection.left_out,
            n_impossible=self._selection.n_impossible,
            failures=self._failures,
            notes=self._notes(),
            width=width,
            notices=sorted(self._notices),
            problems=self._selection.registry.problems(),
        )

    def _notes(self) -> dict[str, str]:
        """Return why models are no competitors, as on the board: floors, and those that see the target."""
        if not any(map(finished.has_mean, self._cells.values())):
            return {}
        from promptseg.leaderboard.aggregate import FLOOR

        specs = [model.spec for model in self._selection.registry.models.values() if model.spec]
        floors = {spec.name: FLOOR for spec in specs if spec.family == FLOOR}
        return floors | {spec.name: "sees the target" for spec in specs if spec.sees_target}

    # --- files ----------------------------------------------------------------------------------------------

    def _name_left_behind(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        for mark in take_left_behind(self._selection.options.results):
            if reporter is not None:
                reporter.ensure_newline()
                reporter.line(f"promptseg: {printable(str(mark))}", yellow=True)

    def _say_what_is_kept(self, items: Iterable[pytest.Item]) -> None:
        if self._begun or _any_cell(items):
            kept = f"finished cases are kept in {self._selection.options.results}"
            self._files.append(f"interrupted: {kept}; run the same command again to resume")

    def _add_to_summary(self, path: Path) -> None:
        """Add the cells to the summary of a GitHub step, which other tools may have begun."""
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(github.summary(self._entries()))
        except OSError as error:
            self._files.append(f"summary not written to {path}: {error}")

    def _rewrite_leaderboard(self) -> None:
        from promptseg.leaderboard.board import write_leaderboard

        options = self._selection.options
        path = options.root / LEADERBOARD
        try:
            board = write_leaderboard([options.results], path, self._selection.registry)
        except (OSError, PromptsegError) as error:
            self._files.append(f"leaderboard not written: {error}; `promptseg leaderboard` builds it from the results")
        else:
            self._files.append(f"leaderboard ({counted(len(board.entries), 'cell')}): {path}")
            self._notices.update(f"left out of the leaderboard: {line}" for line in board.unreadable)

    def _write_json(self, path: Path, session: pytest.Session) -> None:
        options = self._selection.options
        document = {
            "schema": JSON_SCHEMA,
            "run": {
                "seed": options.seed,
                "limit": options.limit,
                "until_sure": options.until_sure,
                "device": options.device,
                "dtype": options.dtype,
                "fast": sorted(options.fast),
                "date": provenance.today(),
                "versions": provenance.versions(),
                "git_commit": provenance.git_commit(options.root),
            },
            "cells": self._entries(),
        }
        try:
            write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            self._files.append(f"scores not written to {path}: {error}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        else:
            self._files.append(f"scores: {path}")


def _take(report: pytest.TestReport) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the cells and the figures of speed that a test published; leave plain properties in their place."""
    cells = [entry for name, entry in report.user_properties if name == PUBLISHED and isinstance(entry, dict)]
    plain = (pair for entry in cells for pair in finished.properties(cast("CellEntry", entry)))
    speeds = [str(value) for name, value in report.user_properties if name == MEASURED]
    others = [pair for pair in report.user_properties if pair[0] not in (PUBLISHED, MEASURED)]
    report.user_properties = [*others, *plain]
    return cells, speeds


def _write(terminal: pytest.TerminalReporter, line: Line) -> None:
    for text, is_bold in line.parts():
        terminal.write(text, bold=is_bold, yellow=line.is_warning, light=line.is_dim)
    terminal.line("")


def _message(report: pytest.TestReport) -> str:
    """Return what a failed test says, without the traceback."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message) if crash is not None else str(report.longrepr or "")
    return message.removeprefix("AssertionError: ").removeprefix("Failed: ")


def _any_cell(items: Iterable[pytest.Item]) -> bool:
    """Whether any test has started on a cell, even if it has not finished."""
    return any(name == PUBLISHED for item in items for name, _ in item.user_properties)


def _reason(report: pytest.TestReport) -> str | None:
    """Return why a test was skipped or failed, None for one that passed."""
    if report.passed:
        return None
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext
