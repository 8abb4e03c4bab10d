"""The private names of pytest do what promptseg needs; where one is missing, pytest's version is named."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, cast

import _pytest.mark
import pytest

from promptseg.session import _pytest_compat
from promptseg.session._pytest_compat import NOTSET, Expression, KeywordMatcher

VERSION = f"pytest {pytest.__version__}"


def test_expressions_are_decided_by_the_names_in_them() -> None:
    """As ``-k`` and ``-m`` give them: a function decides each word, keyword arguments of marks included."""
    words = ("sam", "box")
    compiled = Expression.compile("sam and not click and box(size=1)")
    assert compiled.evaluate(lambda word, /, **_: word in words), VERSION
    assert not Expression.compile("click").evaluate(lambda word, /, **_: word in words), VERSION
    with pytest.raises(SyntaxError):
        Expression.compile("and and")


def test_keywords_of_an_item_are_its_names_and_marks(pytester: pytest.Pytester) -> None:
    """The file, the function and the marks, by any part of them."""
    item = pytester.getitem("import pytest\n@pytest.mark.xfail\ndef test_of_a_name(): ...", "test_of_a_name")
    matches = KeywordMatcher.from_item(item)
    assert matches("of_a_na"), VERSION
    assert matches("xfail"), VERSION
    assert not matches("another_name"), VERSION


def test_an_empty_list_of_parameters_gives_notset(pytester: pytest.Pytester) -> None:
    """A test without parameters is collected once, to be skipped."""
    path = pytester.makepyfile("import pytest\n@pytest.mark.parametrize('value', [])\ndef test_it(value): ...")
    items, _ = pytester.inline_genitems(path)
    assert [cast("Any", item).callspec.params["value"] for item in items] == [NOTSET], VERSION


def test_a_pytest_without_them_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a traceback from the middle of the plugin: what is missing, and what to install."""
    monkeypatch.delattr(_pytest.mark, "KeywordMatcher")
    path = Path(str(_pytest_compat.__file__))
    spec = importlib.util.spec_from_file_location("changed_inside", path)
    assert spec is not None
    assert spec.loader is not None
    expected = rf"^pytest {re.escape(pytest.__version__)} has changed inside.*KeywordMatcher.*Install pytest"
    with pytest.raises(ImportError, match=expected):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_no_other_module_uses_private_names_of_pytest() -> None:
    """One place to look at when pytest changes."""
    package = Path(str(_pytest_compat.__file__)).parents[1]
    users = [
        path for path in package.rglob("*.py") if re.search(r"^\s*(from|import) _pytest\b", path.read_text(), re.M)
    ]
    assert [path.name for path in users] == ["_pytest_compat.py"]
