"""Baselines: results of an earlier run, kept under a name, and whether two results can be compared at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError, ResultsError
from promptseg.files.atomic import atomic_folder
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult
from promptseg.results.store import OldResultsError, ResultStore, read_all, result_files, results_in
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
        return ResultStore(self.root).latest(cell)

    def results(self) -> Iterator[CellResult]:
        """Yield all results, sorted. Raises `ResultsError` where there is none, or for the first that is unusable."""
        result_files(self.root)
        for _, result in read_all(self.root):
            yield result


def locate(reference: str, folder: Path, *bases: Path) -> Baseline:
    """Return the baseline of a name in ``folder``, or else the results folder, or submission, of a path from a base.

    Raises:
        ConfigError: there is neither, or no result in it.
    """
    folders = [path for path in (folder / reference, *(base / reference for base in bases)) if path.is_dir()]
    if not folders:
        known = ", ".join(names(folder)) or "none"
        raise ConfigError(
            f"There is no baseline {reference!r}: neither a name in {folder} (there: {known}) nor a results folder. "
            f"`promptseg baseline save NAME` keeps the results that are there now."
        )
    try:
        result_files(folders[0])
    except OldResultsError as error:
        raise ConfigError(
            f"Baseline {reference!r}: {folders[0].absolute()} was written by promptseg before 0.2.0, which this "
            "version does not read; nothing in it was changed. Run again what it holds, and keep that as a baseline."
        ) from error
    except ResultsError as error:
        raise ConfigError(f"Baseline {reference!r}: {error}") from error
    return Baseline(reference, results_in(folders[0]))


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
    result_files(results)
    try:
        with atomic_folder(target) as whole:
            for path, _ in read_all(results):
                copy = whole / path.relative_to(results_in(results))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise ResultsError(f"The baseline {target} cannot be written: {error}.") from error
    return Baseline(name, target)


# --- what can be compared -----------------------------------------------------------------------------------


# A difference in one of these moves scores whatever the model does.
_CONDITIONS: Mapping[str, Callable[[Provenance], Any]] = {
    "protocol": lambda made: made.protocol,
    "seed": lambda made: made.seed,
    "dtype": lambda made: made.dtype,
    "fast paths": lambda made: made.fast,
    "kind of device": lambda made: made.device,
    "data set": lambda made: made.dataset.name,
    "data set's fingerprint": lambda made: made.dataset.fingerprint,
    "data set's options": lambda made: made.dataset.options,
    "task's labels": lambda made: made.task.labels,
    "mode's number of clicks": lambda made: made.mode.steps,
    "mode's guide": lambda made: made.mode.guide,
    "mode's grid": lambda made: made.mode.grid,
}
# These may differ: they are what a gate is there to judge. Whoever reads of a drop wants to know of them.
_CHANGES: Mapping[str, Callable[[Provenance], Any]] = {
    "weights": lambda made: made.model.sha256,
    "model's revision": lambda made: made.model.revision,
    "model's code": lambda made: made.model.code,
    "model's options": lambda made: made.model.options,
    "scoring code": lambda made: made.scoring,
    "data set's code": lambda made: made.dataset.code,
    "versions": lambda made: made.versions,
    "device": lambda made: made.device_name,
    "git commit": lambda made: made.git_commit,
}


def objections(before: CellResult, after: CellResult) -> list[str]:
    """Return why two results of a cell cannot be compared, in words; empty where they can."""
    was, now = before.provenance, after.provenance
    differing = [
        f"{name} {shown(value(now))}, in the baseline {shown(value(was))}"
        for name, value in _CONDITIONS.items()
        if value(was) != value(now)
    ]
    return differing or _other_prompts(before, after)


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
    return [name for name, value in {**_CONDITIONS, **_CHANGES}.items() if value(a.provenance) != value(b.provenance)]


def differences(before: CellResult, after: CellResult) -> Iterator[str]:
    """Yield what is not the same in two results that can be compared, in words."""
    for name, value in _CHANGES.items():
        was, now = value(before.provenance), value(after.provenance)
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
    text = " ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
