"""Text for people: counts, sizes, and what comes from outside made harmless for a terminal or for Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Characters that Markdown, HTML or mathematics on GitHub give a meaning; as entities they are text everywhere.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$!#]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def counted(count: int, noun: str) -> str:
    """Return a number of things in words, as in ``1 cell`` or ``2 cells``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names for a message with commas between, the first ``most`` of many: ``a, b and 3 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def printable(text: str) -> str:
    """Return text from plugins without the characters that steer a terminal; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def escape(text: str) -> str:
    """Return ``text`` so that it is shown as it is, on one line, in a Markdown table cell or paragraph."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(printable.split()))


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
