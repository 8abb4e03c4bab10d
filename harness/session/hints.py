"""What a command was probably meant to be: a module given for a path, a name that no cell has."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from promptseg.registry import Registry
from promptseg.session.root import as_typed
from promptseg.text import did_you_mean, near

_BENCHMARK = "promptseg.benchmark"
_WORD = re.compile(r"[\w\-]+")
_OPERATORS = {"and", "or", "not"}


def refuse_module_as_path(config: pytest.Config) -> None:
    """Refuse a module of promptseg that pytest would look for as a file, and one that there is not.

    Raises:
        pytest.UsageError: with the command to paste.
    """
    arguments = [os.fspath(argument) for argument in config.invocation_params.args]
    for argument in config.args:
        name, colons, test = argument.partition("::")
        module = name.removesuffix(".py").strip("/").replace("/", ".")
        if module.partition(".")[0] != "promptseg" or Path(name).exists():
            continue
        is_there = module != "promptseg" and _is_module(module)
        if is_there and config.option.pyargs:
            continue
        meant = f"{module if is_there else _BENCHMARK}{colons}{test}"
        others = [meant if one == argument else one for one in arguments if one != "--pyargs"]
        what = "is a module, not a file" if is_there else "is neither a file nor a module with tests"
        raise pytest.UsageError(f"{argument} {what}. Run:\n{as_typed(['--pyargs', *others])}")


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # what should be the package of it is none
        return False


def on_keyword(expression: str, registry: Registry) -> Iterator[str]:
    """Yield a sentence for each word of ``-k`` that no registered name holds, but that one nearly is."""
    names = [*registry.models, *registry.tasks, *registry.modes]
    for word in dict.fromkeys(_WORD.findall(expression.lower())):
        close = _close(word, names)
        if close and word not in _OPERATORS:
            yield f"-k: no model, task or prompt mode is called {word!r}.{did_you_mean(close)}"


def _close(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that a word nearly is; none where it is a part of one. A ``-`` is meant as ``_``."""
    known = [*names]
    if any(word in name for name in known):
        return []
    return near(word.replace("-", "_"), known, mistyped=True)
