"""Progress bars in a run of pytest, past its capture of output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from promptseg.progress import Advance, shown
from promptseg.session.plan import Estimate


class Progress:
    """Shows bars on the terminal of the process that the user looks at; nothing in xdist's workers.

    Where there is no terminal, as in CI, a line for each piece of work that takes more than a minute says how long,
    once its first items are through. ``limit`` is the number of cases that a piece of work ends with.
    """

    def __init__(self, config: pytest.Config, *, limit: int | None = None) -> None:
        self._limit = limit
        self._capture = config.pluginmanager.getplugin("capturemanager")
        terminal = config.pluginmanager.getplugin("terminalreporter")  # None in xdist's workers
        self._shown = terminal is not None and terminal.isatty and "CI" not in os.environ
        self._estimates = terminal is not None and not self._shown and config.get_verbosity() >= 0

    @contextmanager
    def open_bar(self, title: str, total: int) -> Iterator[Advance]:
        """Yield a function to be called with the number of items that were finished; a `promptseg.progress.OpenBar`."""
        if self._estimates:
            yield self._estimating(title, total)
            return
        if not self._shown:
            yield lambda _: None
            return
        with self._uncaptured(), shown(title, total) as advance:
            yield advance

    def _estimating(self, title: str, total: int) -> Advance:
        estimate = Estimate(title, total if self._limit is None else min(total, self._limit))

        def advance(count: int) -> None:
            line = estimate.after(count, time.monotonic())
            if line is not None:
                with self._uncaptured():
                    sys.stdout.write(f"{line}\n")

        return advance

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        if self._capture is None:
            yield
            return
        with self._capture.global_and_fixture_disabled():
            sys.stdout.write("\n")  # pytest's own line of dots stays whole
            yield
