"""The end of a run, on the controller: the JSON of its cells, the leaderboard, a few lines on the terminal."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptseg.errors import PromptsegError
from promptseg.files.atomic import write_text
from promptseg.results import provenance
from promptseg.session.selection import Selection

JSON_SCHEMA = 1
PUBLISHED = "promptseg"  # the user property of a test report that holds a cell
MEASURED = "promptseg-speed"  # the same with figures of speed, in words
LEADERBOARD = Path("leaderboard/LEADERBOARD.md")
_VERDICTS = ("pass", "warn", "fail", "refused", "missing")
_SHOWN_STOPS = 20
_WORST_LAST = ("skipped", "passed", "failed")


class RunReport:
    """Collects what tests publish about their cells; under xdist the reports of all workers arrive here."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._cells: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._speeds: list[str] = []
        self._lines: list[str] = []
        self._notices: set[str] = set()
        self._begun = False

    @pytest.hookimpl(tryfirst=True)  # before JUnit's reporter, which writes properties as they are
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the cells of a finished test; of several tests on one cell the worst outcome counts."""
        published = [v for name, v in report.user_properties if name == PUBLISHED and isinstance(v, dict)]
        self._begun |= bool(published)  # from the test's setup on, long before its cell has a score
        others = [pair for pair in report.user_properties if pair[0] not in (PUBLISHED, MEASURED)]
        if report.when == "call":
            self._speeds += [str(words) for name, words in report.user_properties if name == MEASURED]
        report.user_properties = [*others, *(pair for entry in published for pair in _properties(entry))]
        if report.outcome in _WORST_LAST and (report.when == "call" or report.failed):
            for entry in published:
                self._keep({**entry, "outcome": report.outcome, "reason": _reason(report)})

    def _keep(self, entry: dict[str, Any]) -> None:
        self._notices.update(entry.pop("notices", ()))
        key = (entry["model"], entry["task"], entry["mode"])
        known = self._cells.get(key)
        if known is None or _WORST_LAST.index(entry["outcome"]) >= _WORST_LAST.index(known["outcome"]):
            self._cells[key] = entry

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the leaderboard and the JSON."""
        options = self._selection.options
        begun = self._begun or _any_cell(session.items)
        if exitstatus == pytest.ExitCode.INTERRUPTED and begun and not options.rerun:  # which takes nothing as finished
            kept = f"finished cases are kept in {options.results}"
            self._lines.append(f"interrupted: {kept}; the same command goes on from there")
        if self._speeds or any("mean_iou" in entry for entry in self._cells.values()):
            self._lines.append(f"results: {options.results}")
            self._rewrite_leaderboard()
        if options.json is not None and not session.config.option.collectonly:
            try:
                self._write_json(options.json)
                self._lines.append(f"scores: {options.json}")
            except OSError as error:
                self._lines.append(f"scores not written to {options.json}: {error}")
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._cells and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
            self._add_to_summary(Path(summary))

    def _add_to_summary(self, path: Path) -> None:
        """Add the cells to the summary of a GitHub step, which other tools may have begun."""
        from promptseg.session import github

        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(github.summary(self._entries()))
        except OSError as error:
            self._lines.append(f"summary not written to {path}: {error}")

    def _entries(self) -> list[dict[str, Any]]:
        """Return the cells as ``--seg-json`` has them."""
        return [_complete(self._cells[key]) for key in sorted(self._cells)]

    def _rewrite_leaderboard(self) -> None:
        from promptseg.leaderboard.board import write_leaderboard

        options = self._selection.options
        path = options.root / LEADERBOARD
        try:
            board = write_leaderboard([options.results], path, self._selection.registry)
        except (OSError, PromptsegError) as error:
            self._lines.append(f"leaderboard not written: {error}; `promptseg leaderboard` builds it from the results")
        else:
            count = len(board.entries)
            self._lines.append(f"leaderboard ({count} {'cell' if count == 1 else 'cells'}): {path}")

    def _write_json(self, path: Path) -> None:
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
        write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how many cells were evaluated, where results are, and which plugins are broken."""
        if not self._cells and not self._lines:
            return
        terminalreporter.section("promptseg")
        outcomes = Counter(entry["outcome"] for entry in self._cells.values())
        scored = sum("mean_iou" in entry for entry in self._cells.values())
        counts = ", ".join(f"{outcomes[name]} {name}" for name in ("passed", "failed", "skipped") if outcomes[name])
        if self._cells or not self._speeds:
            terminalreporter.line(f"cells: {scored} scored; {counts or 'none ran'}")
        for words in self._speeds:
            terminalreporter.line(f"speed: {words}")
        for line in self._lines:
            terminalreporter.line(line)
        for line, is_warning in _baseline_lines(self._cells[key] for key in sorted(self._cells)):
            terminalreporter.line(line, yellow=is_warning)
        if self._cells and not (outcomes["passed"] or outcomes["failed"]):
            terminalreporter.line("no cell asserted anything: this run is no gate (-rs shows why)", yellow=True)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from promptseg.session import github

            for line in github.workflow_commands(self._entries()):
                terminalreporter.line(line)
        if self._selection.options.until_sure is not None:
            for line in _stop_lines([self._cells[key] for key in sorted(self._cells)]):
                terminalreporter.line(line)
        if self._selection.left_out:
            hint = "ask by -k, -m, --seg-models, --seg-tasks or --seg-modes"
            terminalreporter.line(f"{self._selection.left_out} cells were not asked for: {hint}")
        for notice in sorted(self._notices):
            terminalreporter.line(f"note: {notice}", yellow=True)
        for problem in self._selection.registry.problems():
            terminalreporter.line(f"broken plugin: {problem}", yellow=True)


def _any_cell(items: Iterable[pytest.Item]) -> bool:
    """Whether a test has asked for a cell, be it in the middle, where it has no report yet."""
    return any(name == PUBLISHED for item in items for name, _ in item.user_properties)


def _baseline_lines(cells: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield what a run's gates against a baseline found, line by line, and whether a line is a warning."""
    compared = [(cell, cell["baseline"]) for cell in cells if cell.get("baseline")]
    if not compared:
        return
    counts = Counter(found["verdict"] for _, found in compared)
    verdicts = ", ".join(f"{counts[name]} {name}" for name in _VERDICTS if counts[name])
    yield f"baseline {compared[0][1]['reference']}: {verdicts}", False
    drops = [found["detectable_drop"] for _, found in compared if found.get("detectable_drop") is not None]
    if drops:
        yield f"smallest drops that are surely found: {min(drops):.4f} to {max(drops):.4f} IoU", False
    else:
        yield "smallest drops that are surely found: not known (too few subjects, no change, or too much of it)", False
    samples = sum(bool(found.get("of_sample")) for _, found in compared)
    if samples:
        yield f"compared by the cases of a sample alone, as the baseline has no others: {samples} cells", True
    for cell, found in compared:
        if found["verdict"] == "warn":
            yield f"warning: {cell['model']} on {cell['task']}, {cell['mode']}: {found['reason']}", True


def _stop_lines(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which cells stopped before their data set ended, line by line, and how many ``--seg-limit`` ended first."""
    stopped = [cell for cell in cells if cell.get("until_sure")]
    if stopped:
        yield f"partial, stopped as soon as they were settled: {len(stopped)} cells"
    for cell in stopped[:_SHOWN_STOPS]:
        yield f"{cell['model']} on {cell['task']}, {cell['mode']}: {cell['until_sure']['reason']}"
    if len(stopped) > _SHOWN_STOPS:
        yield f"and {len(stopped) - _SHOWN_STOPS} more (--seg-json has them all)"
    judged = [cell for cell in cells if cell.get("outcome") in ("passed", "failed")]
    ended = sum(bool(cell.get("partial")) and not cell.get("until_sure") for cell in judged)
    if ended:
        yield f"partial, ended by --seg-limit before they were settled, and judged by the cases so far: {ended} cells"


def _complete(entry: dict[str, Any]) -> dict[str, Any]:
    """Give a cell that was never scored the same keys as the others."""
    unscored = {
        "n": 0,
        "select": None,
        "mean_iou": None,
        "iou": {"first": None, "confident": None, "oracle": None},
        "ci95": None,
        "threshold": None,
        "baseline": None,
        "until_sure": None,
    }
    return {**unscored, **entry}


def _properties(entry: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield what a JUnit file tells of a cell: plain names and values."""
    low, high = entry.get("ci95") or (None, None)
    baseline = entry.get("baseline") or {}
    facts = {
        **{name: entry.get(name) for name in ("model", "task", "mode", "n", "n_errors", "select", "mean_iou")},
        **{f"iou_{choice}": value for choice, value in entry.get("iou", {}).items()},
        "ci95_low": low,
        "ci95_high": high,
        **{name: entry.get(name) for name in ("threshold", "tolerance", "seed", "fingerprint")},
        "baseline": baseline.get("reference"),
        "baseline_verdict": baseline.get("verdict"),
        "baseline_delta": baseline.get("delta"),
    }
    yield from ((f"seg_{name}", value) for name, value in facts.items() if value is not None)


def _reason(report: pytest.TestReport) -> str | None:
    """Return why a test was skipped or failed, None for one that passed."""
    if report.passed:
        return None
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext
