"""Progress bars in a run of pytest, past its capture of output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from promptseg.progress import Advance, shown


class Progress:
    """Shows bars on the terminal of the process that the user looks at; nothing in CI and xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")
        terminal = config.pluginmanager.getplugin("terminalreporter")  # None in xdist's workers
        self._shown = terminal is not None and terminal.isatty and "CI" not in os.environ

    @contextmanager
    def open_bar(self, title: str, total: int) -> Iterator[Advance]:
        """Yield a function to be called with the number of items that were finished; a `promptseg.progress.OpenBar`."""
        if not self._shown:
            yield lambda _: None
            return
        with self._uncaptured(), shown(title, total) as advance:
            yield advance

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        if self._capture is None:
            yield
            return
        with self._capture.global_and_fixture_disabled():
            sys.stdout.write("\n")  # pytest's own line of dots stays whole
            yield
