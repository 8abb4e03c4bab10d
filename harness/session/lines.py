"""A line of the terminal with its emphasis, and text broken to the width of the terminal: pure, without pytest."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

_COMMAND = re.compile(r"`[^`]*`")
_GLUE = "\N{NO-BREAK SPACE}"


class Line(NamedTuple):
    """A line of the terminal. Its emphasis is lost without harm where the terminal shows none.

    Attributes:
        text: without line end.
        is_warning: whether the whole line is shown as a warning.
        is_dim: whether the whole line stands back behind others.
        bold: parts of the text that stand out, as (begin, end) in ascending order.
    """

    text: str
    is_warning: bool = False
    is_dim: bool = False
    bold: tuple[tuple[int, int], ...] = ()

    def parts(self) -> Iterator[tuple[str, bool]]:
        """Yield the text in parts, each with whether it stands out."""
        done = 0
        for begin, end in self.bold:
            yield self.text[done:begin], False
            yield self.text[begin:end], True
            done = end
        yield self.text[done:], False


def wrapped(text: str, width: int, *, indent: int = 0, hang: int = 0) -> list[str]:
    """Return ``text`` in lines of at most ``width`` columns, all indented, and those after the first by ``hang`` more.

    Names, addresses and commands in backticks are not broken, so that they can be copied.
    """
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _GLUE), text)
    lines = textwrap.wrap(
        whole,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]
