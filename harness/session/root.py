"""The root of a run: where it is, and the commands that would move it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from promptseg.registry.config import FILE_NAME
from promptseg.session._pytest_compat import root_and_ini

_ADDOPTS = "PYTEST_ADDOPTS"


def project_root(config: pytest.Config) -> Path:
    """Return the user's project: pytest's root, if promptseg.toml is there, else the nearest folder that has one.

    Without an ini file pytest takes the common ancestor of all arguments that are existing paths for its root, values
    of other plugins' options among them: ``--html /data/report.html`` can make it ``/``. So without a promptseg.toml
    the root counts only where an ini file made it; else it is the folder in which pytest was started.
    """
    here = config.invocation_params.dir
    for folder in (config.rootpath, here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    return config.rootpath if config.inipath is not None else here


def remarks(config: pytest.Config, root: Path) -> list[str]:
    """Return that promptseg.toml was found in a folder above, where nobody may expect it; nothing where it was not."""
    above = root not in (config.rootpath, config.invocation_params.dir) and (root / FILE_NAME).is_file()
    return [f"the promptseg.toml of a folder above is used: {root / FILE_NAME}"] if above else []


class _Value(NamedTuple):
    """A value that stands after its option and a blank.

    Attributes:
        place: position among the arguments.
        option, text: as they were written.
    """

    place: int
    option: str
    text: str


def refuse_moved(
    config: pytest.Config, parser: pytest.Parser, options: Container[str], is_path: Callable[[str, str], bool]
) -> None:
    """Refuse a command in which the value of an option changes pytest's root or ini file.

    pytest looks for both before it knows the options of plugins. So what stands after ``--seg-results`` and a blank
    counts as a path of tests, as soon as it exists: the second run of a command may read another ini file, or none,
    and with it other thresholds. What a run is going to write is judged as if it were there already. A value after
    an equals sign moves nothing, and neither does any value where ``-c`` names the ini file.

    Args:
        config: of which no more is read than how pytest was started.
        parser: with the options of all plugins.
        options: those to look at, as ``--seg-results``.
        is_path: says of an option and its value whether the value is a path that the run reads or writes.

    Raises:
        pytest.UsageError: with the command to paste.
    """
    given = shlex.split(os.environ.get(_ADDOPTS, ""))
    arguments = [*_expanded(given), *_expanded(map(os.fspath, config.invocation_params.args))]
    after_blanks = _after_blanks(arguments, options)
    values = [v for v in after_blanks if is_path(v.option, v.text) or _exists(_as_path(v.text))]
    if not values:
        return
    known = parser.parse_known_args(_joined(arguments, values))
    if getattr(known, "inifilename", None):
        return
    tests, rootdir = known.file_or_dir, getattr(known, "rootdir", None) or None

    def found(moving: Sequence[_Value]) -> Iterator[tuple[Path, Path | None] | str]:
        standing = [str(_standing(v.text)) for v in moving]
        for paths_of_tests in ([*tests, *standing], [*standing, *tests]):  # pytest looks at them one after the other
            try:
                yield root_and_ini(paths_of_tests, rootdir, config.invocation_params.dir)
            except (pytest.UsageError, pytest.fail.Exception) as error:
                yield str(error)

    kept = next(found(()))
    if isinstance(kept, str):  # pytest itself stops there
        return
    for moving in (*([value] for value in values), values):  # not all of them come to exist at the same time
        moved = next((setup for setup in found(moving) if setup != kept), None)
        if moved is not None:
            raise pytest.UsageError(_refusal(moving, kept, moved, _command(arguments, values, len(_expanded(given)))))


def as_typed(arguments: Iterable[str]) -> str:
    """Return the command of these arguments as a person types it: ``pytest``, or ``python -m pytest`` as here."""
    program = "python -m pytest" if Path(sys.argv[0]).name == "__main__.py" else "pytest"
    return f"{program} {shlex.join(arguments)}"


def _expanded(arguments: Iterable[str]) -> list[str]:
    """Return the arguments, those in files (``@file``) in their places, as pytest reads them: one a line."""
    expanded: list[str] = []
    for argument in arguments:
        if argument.startswith("@") and _exists(Path(argument[1:])):
            expanded += _expanded(Path(argument[1:]).read_text(encoding="utf-8").splitlines())
        else:
            expanded.append(argument)
    return expanded


def _after_blanks(arguments: Sequence[str], options: Container[str]) -> list[_Value]:
    """Return the values that stand after one of the options and a blank; after ``--`` there are no options."""
    last = arguments.index("--") if "--" in arguments else len(arguments)
    pairs = zip(range(1, last), arguments, arguments[1:last], strict=False)
    return [_Value(*pair) for pair in pairs if pair[1] in options and not pair[2].startswith("-")]


def _joined(arguments: Sequence[str], values: Sequence[_Value], first: int = 0, end: int | None = None) -> list[str]:
    """Return the arguments from ``first`` to ``end``, with an equals sign between these values and their options."""
    texts = {value.place: value for value in values}
    joined: list[str] = []
    for place, argument in list(enumerate(arguments))[first:end]:
        if place in texts:
            joined[-1:] = [f"{texts[place].option}={argument}"]
        else:
            joined.append(argument)
    return joined


def _as_path(text: str) -> Path:
    """Return what pytest takes for a path in an argument: what is before the name of a test."""
    return Path(text.partition("::")[0]).absolute()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _standing(text: str) -> Path:
    """Return the path, or the nearest folder that there is: pytest finds there whatever it would find from the path."""
    path = Path(os.path.normpath(_as_path(text)))
    return next((folder for folder in (path, *path.parents) if _exists(folder)), path)


def _command(arguments: Sequence[str], values: Sequence[_Value], n_given: int) -> str:
    """Return the command with equals signs; the first ``n_given`` arguments are those of PYTEST_ADDOPTS."""
    command = as_typed(_joined(arguments, values, n_given))
    if any(value.place < n_given for value in values):
        return f"{_ADDOPTS}={shlex.quote(shlex.join(_joined(arguments, values, 0, n_given)))} {command}"
    return command


def _refusal(
    values: Sequence[_Value], kept: tuple[Path, Path | None], moved: tuple[Path, Path | None] | str, command: str
) -> str:
    written = " and ".join(f"{value.option} {value.text}" for value in values)
    if isinstance(moved, str):
        change = f"It would look for its ini file there, and stop: {moved}"
    else:
        changes = [
            f"its {what} would be {to or 'none'}, not {of or 'none'}"
            for what, of, to in zip(("root", "ini file"), kept, moved, strict=True)
            if of != to
        ]
        change = f"Then {', and '.join(changes)}: other settings, other thresholds."
    return (
        f"{written}: what follows a blank pytest takes for a path of tests, too, as soon as it exists. {change} Write "
        f"an equals sign instead of the blank:\n{command}"
    )
