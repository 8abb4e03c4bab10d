"""Baselines: results of an earlier run, kept under a name, and whether two results can be compared at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError, ResultsError
from promptseg.results.store import CellResult, atomic_folder, read_parquet, result_files, results_in
from promptseg.specs import Cell

FOLDER = Path("leaderboard/baselines")
MAX_DROP = 0.01
"""Of mean IoU; what a gate tolerates where nothing else is said."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Baseline:
    """Stored results of an earlier run: ``reference`` is how the user named it, ``root`` its folder."""

    reference: str
    root: Path

    def result(self, cell: Cell) -> CellResult | None:
        """Return the result of a cell, None where there is none. Raises `ResultsError` for one that cannot be used."""
        path = self.root / cell.model / cell.task / f"{cell.mode}.parquet"
        return _read(path, self.root) if path.is_file() else None

    def results(self) -> Iterator[CellResult]:
        """Yield all results, sorted. Raises `ResultsError` for the first that cannot be used."""
        for path in result_files(self.root):
            yield _read(path, self.root)


def _read(path: Path, root: Path) -> CellResult:
    result = read_parquet(path)
    cell = result.cell
    if path != root / cell.model / cell.task / f"{cell.mode}.parquet":
        raise ResultsError(f"{path} holds the result of {cell.id}; move it away.")
    return result


def locate(reference: str, folder: Path, *bases: Path) -> Baseline:
    """Return the baseline of a name in ``folder``, or else the results folder, or submission, of a path from a base.

    Raises:
        ConfigError: there is neither, or no result in it.
    """
    found = [path for path in (folder / reference, *(base / reference for base in bases)) if path.is_dir()]
    if not found:
        known = ", ".join(names(folder)) or "none"
        raise ConfigError(
            f"There is no baseline {reference!r}: neither a name in {folder} (there: {known}) nor a results folder. "
            f"`promptseg baseline save NAME` keeps the results that are there now."
        )
    try:
        result_files(found[0])
    except ResultsError as error:
        raise ConfigError(f"Baseline {reference!r}: {error}") from error
    return Baseline(reference, results_in(found[0]))


def names(folder: Path) -> list[str]:
    """Return the names of the baselines in a folder, sorted."""
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and _NAME.fullmatch(path.name))


def save(name: str, results: Path, folder: Path) -> Baseline:
    """Keep the latest results of a results folder as a baseline: whole or not at all.

    Raises:
        ConfigError: the name cannot be used, or is taken.
        ResultsError: there are no results, one cannot be read, or the copy cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"A baseline's name is letters, digits, '.', '_' and '-', not {name!r}.")
    target = folder / name
    if target.exists():
        raise ConfigError(f"There is a baseline {name!r} already: {target}. Take another name, or remove the folder.")
    files, root = result_files(results), results_in(results)
    try:
        with atomic_folder(target) as whole:
            for path in files:
                _copy(path, whole / path.relative_to(root), root)
    except OSError as error:
        raise ResultsError(f"The baseline {target} cannot be written: {error}.") from error
    return Baseline(name, target)


def _copy(source: Path, target: Path, root: Path) -> None:
    _read(source, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


# --- what can be compared -----------------------------------------------------------------------------------


def _fact(*keys: str) -> Callable[[CellResult], Any]:
    def value(result: CellResult) -> Any:
        found: Any = result.provenance
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return json.loads(json.dumps(found))  # as a file gives it back: of a result of this run tuples are lists then

    return value


# A difference in one of these moves scores whatever the model does.
_CONDITIONS = {
    "protocol": _fact("protocol"),
    "seed": _fact("seed"),
    "dtype": _fact("dtype"),
    "fast paths": _fact("fast"),
    "kind of device": _fact("device"),
    "data set": _fact("dataset", "name"),
    "data set's fingerprint": _fact("dataset", "fingerprint"),
    "data set's options": _fact("dataset", "options"),
    "task's labels": _fact("task", "labels"),
    "mode's number of clicks": _fact("mode", "steps"),
    "mode's guide": _fact("mode", "guide"),
    "mode's grid": _fact("mode", "grid"),
}
# These may differ: they are what a gate is there to judge. Who reads of a drop wants to know of them.
_CHANGES = {
    "weights": _fact("model", "sha256"),
    "model's revision": _fact("model", "revision"),
    "model's code": _fact("model", "code"),
    "model's options": _fact("model", "options"),
    "scoring code": _fact("scoring"),
    "data set's code": _fact("dataset", "code"),
    "versions": _fact("versions"),
    "device": _fact("device_name"),
    "git commit": _fact("git_commit"),
}


def objections(before: CellResult, after: CellResult) -> list[str]:
    """Return why two results of a cell cannot be compared, in words; empty where they can."""
    found = [
        f"{name} {shown(value(after))}, in the baseline {shown(value(before))}"
        for name, value in _CONDITIONS.items()
        if value(before) != value(after)
    ]
    return found or _other_prompts(before, after)


def _other_prompts(before: CellResult, after: CellResult) -> list[str]:
    """Compare the prompts of common cases; of clicks the first, as later ones depend on the model's masks."""
    known = {row.case_id: row.prompts for row in before.rows if row.click <= 1 and not row.error}
    others = [
        row.case_id
        for row in after.rows
        if row.click <= 1 and not row.error and row.prompts != known.get(row.case_id, row.prompts)
    ]
    return [f"other prompts for {len(others)} cases, such as {others[0]!r}"] if others else []


def unlike(a: CellResult, b: CellResult) -> list[str]:
    """Return the names of what is not the same in two results."""
    return [name for name, value in {**_CONDITIONS, **_CHANGES}.items() if value(a) != value(b)]


def differences(before: CellResult, after: CellResult) -> Iterator[str]:
    """Yield what is not the same in two results that can be compared, in words."""
    for name, value in _CHANGES.items():
        was, now = value(before), value(after)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
            yield f"{name} ({', '.join(f'{key} {shown(was.get(key))} to {shown(now.get(key))}' for key in changed)})"
        elif isinstance(was, str) and isinstance(now, str):
            yield f"{name} ({shown(was)} to {shown(now)})"
        else:
            yield name


def shown(value: Any) -> str:
    """Return a value in words; checksums and commits are cut to what tells them apart."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40,64}\+?", value):
        return value[:12]
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
