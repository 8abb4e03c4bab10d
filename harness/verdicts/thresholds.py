"""The IoU that each cell must reach, read from TOML: ``[MODEL.TASK.MODE]`` tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError
from promptseg.specs import SELECTS, Cell, MaskChoice
from promptseg.stats.means import ROUNDING

_KEYS = {"value", "select", "tolerance", "source"}
_OPTIONAL = {"n", "at_most"}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a cell must reach: mean IoU of ``select`` of at least ``value - tolerance``.

    With ``n`` it applies to scores over exactly that number of cases only, with ``at_most`` to scores over a whole data
    set that has no more cases than that.
    """

    value: float
    select: MaskChoice
    tolerance: float
    source: str
    n: int | None = None
    at_most: int | None = None

    @property
    def floor(self) -> float:
        """The lowest mean IoU that passes."""
        return self.value - self.tolerance

    @property
    def lowest(self) -> float:
        """The floor less a slack for rounding, which sums of rounded numbers are compared with."""
        return self.floor - ROUNDING

    def applies_to(self, n: int, *, whole: bool) -> bool:
        """Whether the threshold applies to a score over ``n`` cases, of the whole data set or of a sample."""
        if self.at_most is not None:
            return whole and n <= self.at_most
        return self.n in (None, n)

    @property
    def depends_on_n(self) -> bool:
        """Whether it applies only to some numbers of cases."""
        return self.n is not None or self.at_most is not None

    @property
    def cases(self) -> str:
        """The number of cases that it applies to, in words."""
        if self.at_most is not None:
            return f"whole data sets of at most {self.at_most}"
        return "any number" if self.n is None else str(self.n)

    def is_reached_by(self, mean_iou: float) -> bool:
        """Whether a mean IoU passes."""
        return mean_iou >= self.lowest


def read(path: Path) -> dict[Cell, Threshold]:
    """Return the thresholds in a file.

    Raises:
        ConfigError: the file or a table in it cannot be used; the message names both.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:  # TOML's own errors are ValueErrors
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
        raise ConfigError(f"{where} needs the keys {needed}, and may have n or at_most; found {', '.join(table)}.")
    if set(table) >= _OPTIONAL:
        raise ConfigError(f"{where}: n and at_most exclude each other.")
    if table["select"] not in SELECTS:
        raise ConfigError(f"{where}: select must be one of {', '.join(SELECTS)}, not {table['select']!r}.")
    for key in ("value", "tolerance"):
        number = table[key]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise ConfigError(f"{where}: {key} must be a number from 0 to 1, not {number!r}.")
    if not isinstance(table["source"], str):
        raise ConfigError(f"{where}: source must be a string, not {table['source']!r}.")
    for key in _OPTIONAL & set(table):
        n = table[key]
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"{where}: {key} must be a whole number of cases, not {n!r}.")
    return Threshold(**table)
