"""Whether two results of a cell can be compared, and what else differs between them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promptseg.results.store import CellResult

_SHOWN = 60  # characters of a value in a message


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
