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
from promptseg.session import finished, github, terminal
from promptseg.session.selection import Selection
from promptseg.session.terminal import RunSummary
from promptseg.text import counted

if TYPE_CHECKING:
    from promptseg.session.finished import FinishedCell
    from promptseg.verdicts.score import CellEntry

JSON_SCHEMA = 1
PUBLISHED = "promptseg"  # the user property of a test report that holds a cell
MEASURED = "promptseg-speed"  # the same with figures of speed, in words
LEADERBOARD = Path("leaderboard/LEADERBOARD.md")


class RunReport:
    """Collects what tests publish about their cells; under xdist the reports of all workers arrive here."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._cells: dict[tuple[str, str, str], FinishedCell] = {}
        self._speeds: list[str] = []
        self._files: list[str] = []
        self._notices: set[str] = set()
        self._begun = False

    # --- hooks ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)  # before JUnit's reporter, which writes properties as they are
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the cells of a finished test; of several tests of one cell the worst outcome counts."""
        published, speeds = _take(report)
        self._begun |= bool(published)  # from the test's setup on, long before its cell has a score
        if report.when == "call":
            self._speeds += speeds
        if report.when == "call" or report.failed:
            for entry in published:
                self._keep(entry, report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the leaderboard, the JSON and the summary for GitHub."""
        options = self._selection.options
        if exitstatus == pytest.ExitCode.INTERRUPTED and not options.rerun:  # which counts no case as finished
            self._say_what_is_kept(session.items)
        if self._speeds or any(map(finished.is_scored, self._cells.values())):
            self._files.append(f"results: {options.results}")
            self._rewrite_leaderboard()
        if options.json is not None and not session.config.option.collectonly:
            self._write_json(options.json, session)
        if self._cells and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
            self._add_to_summary(Path(summary))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show how many cells were evaluated, where their results are, and which plugins are broken."""
        if self._cells or self._files:
            terminalreporter.section("promptseg")
            for text, is_warning in terminal.lines(self._summary()):
                terminalreporter.line(text, yellow=is_warning)

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

    def _sorted(self) -> list[FinishedCell]:
        return [self._cells[key] for key in sorted(self._cells)]

    def _entries(self) -> list[FinishedCell]:
        """Return the cells as ``--seg-json`` has them."""
        return [*map(finished.complete, self._sorted())]

    def _summary(self) -> RunSummary:
        cells, on_github = self._sorted(), os.environ.get("GITHUB_ACTIONS") == "true"
        return RunSummary(
            cells=cells,
            speeds=self._speeds,
            files=self._files,
            annotations=[*github.workflow_commands(cells)] if on_github else (),
            until_sure=self._selection.options.until_sure is not None,
            n_left_out=self._selection.left_out,
            notices=sorted(self._notices),
            problems=self._selection.registry.problems(),
        )

    # --- files ----------------------------------------------------------------------------------------------

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
