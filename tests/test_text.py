"""Text for people: names that were meant, and what comes from outside made harmless."""

from __future__ import annotations

import pytest

from promptseg.errors import remedy_for
from promptseg.text import did_you_mean, near, one_line, printable


@pytest.mark.parametrize(
    ("word", "mistyped", "close"),
    [
        ("abdomen_livr", False, ["abdomen_liver", "abdomen_live"]),
        ("abdomen", False, ["abdomen_live", "abdomen_liver"]),
        ("abdomen", True, []),
        ("abdomen_livre", True, ["abdomen_live", "abdomen_liver"]),
        ("spine", False, []),
    ],
)
def test_names_that_a_word_resembles(word: str, mistyped: bool, close: list[str]) -> None:
    """A word that may be right as it is resembles only what differs by a letter or two."""
    assert near(word, ["abdomen_liver", "abdomen_live", "knee"], mistyped=mistyped) == close


def test_the_question_what_was_meant() -> None:
    """Names are quoted: those of files may hold blanks."""
    assert did_you_mean([]) == ""
    assert did_you_mean(["a b", "c"]) == " Did you mean 'a b' or 'c'?"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red \x1b[31m and \x07\u202e bell\nnext", "red  [31m and    bell\nnext"),
        ("lost\n::error title=x::y", "lost\n| ::error title=x::y"),
        ("lost\n\n \t::set-output name=x::y\n", "lost\n\n|   ::set-output name=x::y\n"),
        ("##[error]y\n##vso[task.complete]", "| ##[error]y\n| ##vso[task.complete]"),
        ("std::vector\n## heading", "std::vector\n## heading"),
    ],
)
def test_neither_terminals_nor_runners_obey_text_from_outside(text: str, shown: str) -> None:
    """Escapes and commands are shown; line ends, and what only looks alike, stay."""
    assert printable(text) == shown


def test_text_on_one_line() -> None:
    """As in a list of cases."""
    assert one_line("a\r\n\n  ::error::b\x1b[2J") == "a | ::error::b [2J"


def test_a_remedy_takes_the_name() -> None:
    """As a word of its own, and as it is."""
    assert remedy_for(r"m\1", "run `promptseg pull NAME` on HOSTNAME") == r"run `promptseg pull m\1` on HOSTNAME"
