"""What stored results may hold, as far as JSON and single values go: types, ranges and names. No numpy is needed here.

`promptseg.results.checks` has the rest of the rule, for whole columns.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from promptseg.specs import SELECTS, Cell, PromptMode

_FINGERPRINT = re.compile(r"[0-9a-f]+")
_SHOWN = 60  # characters of a value in a message


class FaultError(ValueError):
    """A stored value cannot be true; the message says which, in words."""


def shown(value: object) -> str:
    """Return a value in a few words."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# --- what rows depend on ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """What else is known about the rows of a result; None where it is not.

    Attributes:
        steps: number of clicks of the prompt mode; 0 for a static one.
        grid: points a side of a mode that segments everything; 0 for others.
        needs: what the mode asks with; only one that asks by name (``text``) has rows without an object.
        metrics: names of the metrics beside IoU that rows may have values of.
        case_ids: of the data set.
    """

    steps: int | None = None
    grid: int | None = None
    needs: str | None = None
    metrics: Collection[str] | None = None
    case_ids: Collection[str] | None = None

    @classmethod
    def of_mode(cls, mode: PromptMode, case_ids: Collection[str] | None = None) -> RowRules:
        """Return what a prompt mode, and the ids of the data set, say."""
        return cls(steps=mode.steps, grid=mode.grid, needs=mode.needs, case_ids=case_ids)


NO_RULES = RowRules()


def loads(text: str | bytes) -> Any:
    """Return JSON without NaN and infinity. Raises `ValueError` or `RecursionError` for anything else."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise FaultError(f"it holds {name}, which is no number")


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0."""
    return type(value) is int and value >= 0


# --- JSON of journals ---------------------------------------------------------------------------------------

_NONE = type(None)
_INTEGER, _NUMBER, _TEXT = frozenset({int}), frozenset({int, float}), frozenset({str})
_CHOICES = frozenset({*SELECTS})
ROW_TYPES: Mapping[str, frozenset[type]] = {
    "repeat": _INTEGER,
    "case_id": _TEXT,
    "subject_id": _TEXT | {_NONE},
    "click": _INTEGER,
    "z": _INTEGER | {_NONE},
    "n_components": _INTEGER,
    "area_fraction": _NUMBER,
    "prompts": _TEXT,
    "iou_first": _NUMBER | {_NONE},
    "iou_confident": _NUMBER | {_NONE},
    "iou_oracle": _NUMBER | {_NONE},
    "predicted_iou": frozenset({list, _NONE}),
    "candidate_iou": frozenset({list, _NONE}),
    "coverage": _NUMBER | {_NONE},
    "seconds": _NUMBER,
    "error": _TEXT | {_NONE},
    "metrics": frozenset({dict}),
}
"""The types of JSON of each field of a row."""
MASK_TYPES: Mapping[str, frozenset[type]] = {
    "case_id": _TEXT,
    "click": _INTEGER,
    "prompt": _INTEGER,
    "candidate": _INTEGER,
    "height": _INTEGER,
    "width": _INTEGER,
    "counts": _TEXT,
    "predicted_iou": _NUMBER | {_NONE},
}
"""The types of JSON of each field of a mask."""


def check_json(item: object, types: Mapping[str, frozenset[type]]) -> None:
    """Raise `FaultError` unless JSON has the fields of a row or a mask, and each is of its type."""
    if not isinstance(item, dict) or item.keys() != types.keys():
        fields = item.keys() ^ types.keys() if isinstance(item, dict) else ()
        raise FaultError(f"it holds {shown(item)}, with other fields ({', '.join(map(shown, sorted(fields)))})")
    for name, allowed in types.items():
        value = item[name]
        if type(value) not in allowed:
            raise FaultError(f"field {name!r} holds {shown(value)}, of another type")
        if type(value) is list and not _NUMBER.issuperset(map(type, value)):
            raise FaultError(f"field {name!r} holds {shown(value)}, which are not numbers alone")
        if type(value) is dict and not all(map(_are_metric_values, value.values())):
            raise FaultError(f"field {name!r} holds {shown(value)}, with what is no value of a metric")


def _are_metric_values(values: object) -> bool:
    return (
        isinstance(values, dict)
        and values.keys() == _CHOICES
        and all(value is None or type(value) in _NUMBER for value in values.values())
    )


# --- metadata -----------------------------------------------------------------------------------------------


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_labels(value: object) -> bool:
    return isinstance(value, list) and all(type(label) is int and label > 0 for label in value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(part) in (int, float) and 0 <= part <= sys.float_info.max for part in value.values()
    )


_Kind = tuple[Callable[[object], bool], str]
_WHOLE: _Kind = (lambda value: type(value) is int, "a whole number")
_A_COUNT: _Kind = (is_count, "a whole number from 0")
_A_TEXT: _Kind = (_is_text, "a text")
_TEXTS: _Kind = (_is_texts, "a list of texts")
_TABLE: _Kind = (_is_table, "a JSON object")
_SUMS: _Kind = (_is_table_of_texts, "a JSON object of texts")
_FLAG: _Kind = (lambda value: isinstance(value, bool), "true or false")
_CHOICE: _Kind = (lambda value: value in SELECTS, f"one of {', '.join(SELECTS)}")
_PROTOCOL: _Kind = (
    lambda value: isinstance(value, list) and len(value) == 2 and _is_text(value[0]) and is_count(value[1]),
    "a name and a version",
)
_PROVENANCE: Mapping[str, Mapping[str, _Kind]] = {
    "": {
        "protocol": _PROTOCOL,
        "scoring": _TEXTS,
        "seed": _A_COUNT,
        "sample_seed": _A_COUNT,
        "device": _A_TEXT,
        "device_name": _A_TEXT,
        "dtype": _A_TEXT,
        "fast": _TEXTS,
        "n_images": _A_COUNT,
        "date": _A_TEXT,
        "git_commit": _A_TEXT,
        "versions": _SUMS,
        "precision": _TABLE,
        "engine": _TABLE,
        "seconds": (_is_seconds, "seconds from 0"),
        "model": _TABLE,
        "dataset": _TABLE,
        "task": _TABLE,
        "mode": _TABLE,
    },
    "model": {
        "name": _A_TEXT,
        "family": _A_TEXT,
        "load": _A_TEXT,
        "code": _A_TEXT,
        "options": _TABLE,
        "licence": _A_TEXT,
        "provider": _A_TEXT,
        "host": _A_TEXT,
        "repo": _A_TEXT,
        "revision": _A_TEXT,
        "sha256": _SUMS,
        "training_data": _TEXTS,
        "sees_target": _FLAG,
    },
    "dataset": {
        "name": _A_TEXT,
        "modality": _A_TEXT,
        "load": _A_TEXT,
        "code": _A_TEXT,
        "options": _TABLE,
        "licence": _A_TEXT,
        "host": _A_TEXT,
        "repo": _A_TEXT,
        "revision": _A_TEXT,
        "fingerprint": _A_TEXT,
        "study": _A_TEXT,
        "overlaps": _TEXTS,
        "prepared": _TABLE,
    },
    "task": {"labels": (_is_labels, "a list of label ids above 0"), "n_masks": _A_COUNT},
    "mode": {
        "name": _A_TEXT,
        "steps": _A_COUNT,
        "grid": _A_COUNT,
        "guide": _CHOICE,
        "select": _CHOICE,
        "needs": _A_TEXT,
    },
}
"""What a result may record in each part of its provenance; a fact may be missing or null, and others may be there."""


def check_document(document: Mapping[str, Any]) -> None:
    """Raise `FaultError` unless the metadata of a result's file are those of one: types, ranges and names.

    Raises:
        KeyError: a part is missing.
    """
    cell = document["cell"]
    if not isinstance(cell, dict) or {*cell} != {"model", "task", "mode"}:
        raise FaultError(f"'cell' is {shown(cell)}, not model, task and mode")
    for name, value in cell.items():
        if not isinstance(value, str) or not value:
            raise FaultError(f"'cell' has the {name} {shown(value)}, which is no name")
    fingerprint = document["fingerprint"]
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise FaultError(f"'fingerprint' is {shown(fingerprint)}, not digits of a checksum")
    if not is_count(document["n_examined"]):
        raise FaultError(f"'n_examined' is {shown(document['n_examined'])}, not a whole number from 0")
    _check_metrics(document["metrics"])
    _check_provenance(document["provenance"], Cell(**cell))
    n_images = document["provenance"].get("n_images")
    if n_images is not None and document["n_examined"] > n_images:
        raise FaultError(f"'n_examined' is {document['n_examined']}, more than the data set has images ({n_images})")


def _check_metrics(metrics: object) -> None:
    if not isinstance(metrics, dict) or "iou" not in metrics:
        raise FaultError(f"'metrics' is {shown(metrics)}, not a JSON object with iou")
    for name, identity in metrics.items():
        if not isinstance(identity, dict) or {*identity} != {"version", "options"}:
            raise FaultError(f"'metrics' has {name!r} with {shown(identity)}, not its version and options")
        if type(identity["version"]) is not int or not _is_table(identity["options"]):
            raise FaultError(f"'metrics' has {name!r} with {shown(identity)}, not its version and options")


def _check_provenance(provenance: object, cell: Cell) -> None:
    if not isinstance(provenance, dict):
        raise FaultError(f"'provenance' is {shown(provenance)}, no JSON object")
    for part, facts in _PROVENANCE.items():
        recorded = provenance.get(part) or {} if part else provenance
        for name, (is_one, words) in facts.items():
            value = recorded.get(name)
            if value is not None and not is_one(value):
                where = f"provenance.{part}.{name}" if part else f"provenance.{name}"
                raise FaultError(f"{where!r} is {shown(value)}, not {words}")
    for part, expected in (("model", cell.model), ("mode", cell.mode)):
        found = (provenance.get(part) or {}).get("name")
        if found is not None and found != expected:
            raise FaultError(f"'provenance.{part}.name' is {shown(found)}, and the cell's {part} {expected!r}")


def check_examined(n_cases: int, n_examined: int) -> None:
    """Raise `FaultError` if a result has more cases than images were looked at."""
    if n_cases > n_examined:
        raise FaultError(f"'n_examined' is {n_examined}, and there are {n_cases} cases")
