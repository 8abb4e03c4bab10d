"""Hints to commands that were probably meant otherwise."""

from __future__ import annotations

import pytest

from promptseg.registry import build
from promptseg.session import hints


@pytest.fixture(autouse=True)
def _typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/pytest"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("promptseg.benchmark", "-q"),
            "promptseg.benchmark is a module, not a file. Run:\npytest --pyargs promptseg.",
        ),
        (("-k", "a b", "promptseg/benchmark.py"), "\npytest --pyargs -k 'a b' promptseg.benchmark "),
        (("promptseg.benchmark::test_iou[a-b-c]",), "\npytest --pyargs 'promptseg.benchmark::test_iou[a-b-c]' "),
        (
            ("promptseg",),
            "promptseg is neither a file nor a module with tests. Run:\npytest --pyargs promptseg.benchmark ",
        ),
        (("promptseg.benchmark.test_iou",), "\npytest --pyargs promptseg.benchmark "),
        (("--pyargs", "promptseg.benchmarks"), "\npytest --pyargs promptseg.benchmark "),
    ],
)
def test_a_module_given_for_a_path(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    """The error has the command to paste."""
    config = pytester.parseconfig(*arguments)
    with pytest.raises(pytest.UsageError) as caught:
        hints.refuse_module_as_path(config)
    assert message in f"{caught.value} "


@pytest.mark.parametrize(
    "arguments", [("--pyargs", "promptseg.benchmark"), ("promptseg",), ("promptseg_tests",), ("gone.benchmark",), ()]
)
def test_what_is_there_is_no_mistake(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    """A folder called like the package, a module that is named as one, and what pytest itself reports."""
    pytester.mkdir("promptseg")
    hints.refuse_module_as_path(pytester.parseconfig(*arguments))


def test_it_is_an_error_of_usage(pytester: pytest.Pytester) -> None:
    """In the place of a file that is not found."""
    result = pytester.runpytest_inprocess("promptseg.benchmark", "-q")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: promptseg.benchmark is a module, not a file. Run:", "pytest --pyargs *"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("us_kidny", ["-k: no model, task or prompt mode is called 'us_kidny'. Did you mean 'us_kidney'"]),
        (
            "sam-vit-b and not box_eech",
            ["'sam-vit-b'. Did you mean 'sam_vit_b'", "'box_eech'. Did you mean 'box_each'"],
        ),
        ("sam and us_kidney", []),
        ("test_parser or not slow", []),
        ("", []),
    ],
)
def test_words_that_are_nearly_a_name(expression: str, expected: list[str]) -> None:
    """A part of a name is none of them, and neither is a word that is about something else."""
    found = [*hints.on_keyword(expression, build())]
    assert len(found) == len(expected)
    assert all(text in hint for hint, text in zip(found, expected, strict=True))


def test_a_run_that_selects_nothing_has_the_hint(pytester: pytest.Pytester) -> None:
    """Only such a run, and only where the word is near to a name."""
    pytester.makepyfile("def test_own():\n    pass\n")
    result = pytester.runpytest_inprocess("-k", "us_kidny")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["-k: no model, task or prompt mode is called 'us_kidny'. Did you mean 'us_kidney'*"])
    pytester.runpytest_inprocess("-k", "own or us_kidny").stdout.no_fnmatch_line("-k: *")
    pytester.runpytest_inprocess("-k", "something_else").stdout.no_fnmatch_line("-k: *")
