"""Whether two results of a cell can be compared, and what else is not the same in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult

_SHOWN = 60  # characters of a value in a message


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
