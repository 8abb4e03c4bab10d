"""The private names of pytest that promptseg uses, all of them, since no public name does the same.

``Expression`` and ``KeywordMatcher`` decide what ``-k`` and ``-m`` match before any test is made; ``NOTSET`` is the
parameter of a test whose list of parameters is empty. Read in pytest 8.3 to 9.
"""

from __future__ import annotations

import pytest

try:
    from _pytest.compat import NOTSET
    from _pytest.mark import KeywordMatcher
    from _pytest.mark.expression import Expression
except ImportError as error:
    raise ImportError(
        f"pytest {pytest.__version__} has changed inside, and promptseg cannot select cells in it ({error}). "
        "Install pytest 8.3 to 9, or a newer pytest-promptseg."
    ) from error

__all__ = ["NOTSET", "Expression", "KeywordMatcher"]
