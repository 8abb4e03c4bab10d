"""The private names of pytest that promptseg uses, all of them, since no public name does the same.

``Expression`` and ``KeywordMatcher`` decide what ``-k`` and ``-m`` match before any test is made; ``NOTSET`` is the
parameter of a test whose list of parameters is empty; ``determine_setup`` finds the root and the ini file of a command.
Read in pytest 8.3 to 9.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest

try:
    from _pytest.compat import NOTSET
    from _pytest.config.findpaths import determine_setup
    from _pytest.mark import KeywordMatcher
    from _pytest.mark.expression import Expression
except ImportError as error:
    raise ImportError(
        f"pytest {pytest.__version__} has changed inside, and promptseg cannot select cells in it ({error}). "
        "Install pytest 8.3 to 9, or a newer pytest-promptseg."
    ) from error

__all__ = ["NOTSET", "Expression", "KeywordMatcher", "root_and_ini"]


def root_and_ini(arguments: Sequence[str], rootdir: str | None, folder: Path) -> tuple[Path, Path | None]:
    """Return the root and the ini file that pytest takes for a command without ``-c``.

    Args:
        arguments: what pytest takes for paths of tests.
        rootdir: the value of ``--rootdir``.
        folder: in which pytest is started.

    Raises:
        pytest.UsageError: an ini file there cannot be used.
    """
    overrides = {"override_ini": None} if "override_ini" in inspect.signature(determine_setup).parameters else {}
    found = determine_setup(inifile=None, args=arguments, rootdir_cmd_arg=rootdir, invocation_dir=folder, **overrides)
    return found[0], found[1]  # and more, which differs between versions
