"""Text for people: counts, sizes, and what comes from outside made harmless for a terminal or for Markdown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# Characters that Markdown, HTML or mathematics on GitHub give a meaning; as entities they are text everywhere.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$!#]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
# What a runner obeys at the beginning of a line: GitHub's commands, old and new, and those of Azure.
_COMMAND = re.compile(r"^(?= *(?:::|##(?:vso)?\[))", re.MULTILINE)
_ALIKE, _MISTYPED = 0.5, 0.8  # of difflib: "us_nerve" for "us_kidny"; a letter or two, as in "ultrasuond"


def counted(count: int, noun: str) -> str:
    """Return a number of things in words, as in ``1 cell`` or ``2 cells``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names for a message with commas between, the first ``most`` of many: ``a, b and 3 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def near(word: str, names: Iterable[str], *, mistyped: bool = False) -> list[str]:
    """Return the names that a word resembles, at most three, the most alike first.

    Args:
        word: that is not among the names.
        names: to choose from.
        mistyped: only those that differ by a letter or two, where the word may be right as it is.
    """
    return difflib.get_close_matches(word, [*names], n=3, cutoff=_MISTYPED if mistyped else _ALIKE)


def did_you_mean(close: Sequence[str]) -> str:
    """Return the question whether one of some names was meant, after a blank; nothing where there is none."""
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def printable(text: str) -> str:
    """Return text from plugins without what steers a terminal, or the runner of a CI service; line ends stay."""
    shown = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return _COMMAND.sub("| ", shown)


def one_line(text: str) -> str:
    """Return text from plugins, as `printable`, on one line."""
    return " ".join(printable(text).split())


def escape(text: str) -> str:
    """Return ``text`` so that it is shown as it is, on one line, in a Markdown table cell or paragraph."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", one_line(text))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table: the first column to the left, the others to the right if they are numbers."""
    from tabulate import tabulate

    alignment = ["left", *(["right" if numbers else "left"] * (len(header) - 1))]
    lines = tabulate(rows, headers=header, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    return f"{lines}\n"


def human_size(size: int | None) -> str:
    """Return a number of bytes as in 42.1 MB."""
    if size is None:
        return "unknown"
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
