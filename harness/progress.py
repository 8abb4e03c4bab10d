"""Progress of long work on a person's terminal; nothing in logs, pipes and xdist workers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

Advance = Callable[[int], None]
OpenBar = Callable[[str, int], AbstractContextManager[Advance]]  # of a title and a total


@contextmanager
def hidden(_title: str, _total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _: None


@contextmanager
def shown(title: str, total: int) -> Iterator[Advance]:
    """Show a bar with rate and time left; yield a function to be called with the number of items finished."""
    with _bar() as bar:
        task = bar.add_task(title, total=total, rate="")
        began = time.monotonic()

        def advance(count: int) -> None:
            done = bar.tasks[0].completed + count
            bar.update(task, advance=count, rate=f"{done / (time.monotonic() - began):.2f} a second")

        yield advance


def _bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(file=sys.stdout),
        transient=True,
    )
