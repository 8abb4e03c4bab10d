"""The IoU that each cell must reach, read from TOML: ``[MODEL.TASK.MODE]`` tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError
from promptseg.specs import SELECTS, Cell, Select

_KEYS = {"value", "select", "tolerance", "source"}
_OPTIONAL = {"n"}
_ROUNDING = 1e-9  # of sums and differences of numbers with few digits


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a cell must reach: mean IoU of ``select`` of at least ``value - tolerance``.

    With ``n`` it speaks of a score over exactly so many cases, and of no other.
    """

    value: float
    select: Select
    tolerance: float
    source: str
    n: int | None = None

    @property
    def floor(self) -> float:
        """The lowest mean IoU that passes."""
        return self.value - self.tolerance

    def is_reached_by(self, mean_iou: float) -> bool:
        """Whether a mean IoU passes."""
        return mean_iou >= self.floor - _ROUNDING


def read(path: Path) -> dict[Cell, Threshold]:
    """Return the thresholds in a file.

    Raises:
        ConfigError: the file or a table in it cannot be used; the message names both.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"thresholds file {path} cannot be read: {error}") from error
    return {
        Cell(model, task, mode): _threshold(f"{path} [{model}.{task}.{mode}]", table)
        for model, tasks in tables.items()
        for task, modes in _table(f"{path} [{model}]", tasks).items()
        for mode, table in _table(f"{path} [{model}.{task}]", modes).items()
    }


def _table(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table; thresholds are written as [MODEL.TASK.MODE].")
    return value


def _threshold(where: str, value: object) -> Threshold:
    table = _table(where, value)
    if set(table) - _OPTIONAL != _KEYS:
        needed = ", ".join(sorted(_KEYS))
        raise ConfigError(f"{where} needs the keys {needed}, and may have n; found {', '.join(table)}.")
    if table["select"] not in SELECTS:
        raise ConfigError(f"{where}: select must be one of {', '.join(SELECTS)}, not {table['select']!r}.")
    for key in ("value", "tolerance"):
        number = table[key]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise ConfigError(f"{where}: {key} must be a number from 0 to 1, not {number!r}.")
    if not isinstance(table["source"], str):
        raise ConfigError(f"{where}: source must be a string, not {table['source']!r}.")
    n = table.get("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"{where}: n must be a whole number of cases, not {n!r}.")
    return Threshold(**table)


def shipped() -> dict[Cell, Threshold]:
    """Return the thresholds that come with promptseg."""
    import promptseg.leaderboard

    return read(Path(promptseg.leaderboard.__path__[0]) / "thresholds.toml")
