"""The word ``scored`` on pytest's terminal: for a cell with a score that was skipped, as nothing was asserted of it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping

import pytest

from promptseg.session.finished import score_of

SCORED = "scored"
Status = tuple[str, str, tuple[str, Mapping[str, bool]]]  # of pytest: category, letter, word with its colours


class ScoredStatus:
    """Lets scored cells read so while tests run and in the counts, and as skipped in the list that ``-r`` asks for.

    Args:
        named: node ids of skipped tests that the end of the run names by itself, grouped by their reasons. They are in
            pytest's list where ``-r`` asks for skipped tests by letter, not where it asks for all kinds.
    """

    def __init__(self, named: Collection[str]) -> None:
        self._named = named
        self._listing = False

    def pytest_report_teststatus(self, report: pytest.TestReport) -> Status | None:
        """Return what a scored cell reads as, with its number; None for all others."""
        if self._listing or report.when != "call" or not report.skipped:
            return None
        score = score_of(report.user_properties)
        return None if score is None else (SCORED, "c", (f"SCORED {score:.4f}", {"cyan": True}))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
        """Count scored cells among the skipped ones while pytest lists these, and then as before."""
        stats = terminalreporter.stats
        skipped = stats.get("skipped", [])
        letters = set(terminalreporter.config.option.reportchars)
        hidden = () if letters & {"s", "S"} else self._named
        stats["skipped"] = [r for r in [*skipped, *stats.get(SCORED, [])] if r.nodeid not in hidden]
        self._listing = True
        try:
            return (yield)
        finally:
            self._listing = False
            stats["skipped"] = skipped
