"""What a result is: a row for each case, or for each click on it, and what all rows of a cell share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from promptseg.results.provenance import Provenance
from promptseg.specs import Cell

SCHEMA_VERSION = 2
"""Of the columns and metadata of a result's file. Version 1 was written by promptseg before 0.2.0."""


class MetricValues(NamedTuple):
    """The value of a metric for each choice of mask; None where there is no value."""

    first: float | None = None
    confident: float | None = None
    oracle: float | None = None


@dataclass(frozen=True, kw_only=True)
class MetricIdentity:
    """What the values of one metric depend on beside the masks.

    Attributes:
        version: of the metric's definition.
        options: it was computed with.
    """

    version: int
    options: Mapping[str, Any] = field(default_factory=dict)


IOU = MetricIdentity(version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """The outcome of one case, or of one click on it.

    Attributes:
        repeat: which drawing of the prompts, 0 for the first.
        case_id: the image's id.
        subject_id: the patient, None where not known.
        click: 1, 2, ... for iterative modes, 0 for static ones.
        z: slice of a volume, None for an image and for a whole volume.
        n_components: number of 8-connected components of the target.
        area_fraction: target pixels / image pixels.
        prompts: JSON, a list of ``{"points_xy": [[x, y], ...], "labels": [...], "box_xyxy": [...] or null}``; of a grid
            ``[{"grid": POINTS A SIDE}]``.
        iou_first, iou_confident, iou_oracle: IoU of each choice of mask; None where the case failed.
        predicted_iou: the model's estimate for each candidate, None where it makes none.
        candidate_iou: IoU of each candidate; None where candidates of several prompts were united, or none was asked
            for this target.
        coverage: part of the target that any of the masks covers, for modes that segment everything; else None.
        seconds: decoding time of the case's prompts, encoding not counted.
        error: why the case could not be scored, None where it was.
        metrics: from the name of a metric other than IoU to its values ``{"first", "confident", "oracle"}``.
    """

    repeat: int = 0
    case_id: str
    subject_id: str | None = None
    click: int = 0
    z: int | None = None
    n_components: int = 0
    area_fraction: float = 0.0
    prompts: str = "[]"
    iou_first: float | None = None
    iou_confident: float | None = None
    iou_oracle: float | None = None
    predicted_iou: Sequence[float] | None = None
    candidate_iou: Sequence[float] | None = None
    coverage: float | None = None
    seconds: float = 0.0
    error: str | None = None
    metrics: Mapping[str, MetricValues] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What no two rows of a result share, and by which they are sorted: case, repeat, click, slice."""
        return self.case_id, self.repeat, self.click, -1 if self.z is None else self.z

    def as_dict(self) -> dict[str, Any]:
        """Return plain names and values; not copied one by one as `dataclasses.asdict` does, which takes longer."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"metrics": {name: found._asdict() for name, found in self.metrics.items()}}

    @classmethod
    def from_dict(cls, *, metrics: Mapping[str, Mapping[str, float | None]], **values: Any) -> ResultRow:
        """Return the row of `as_dict`. Raises `TypeError` for names that are not those of a row."""
        return cls(**values, metrics={name: MetricValues(**found) for name, found in metrics.items()})

    @classmethod
    def from_columns(cls, n_rows: int, columns: Mapping[str, Iterable[Any]]) -> tuple[ResultRow, ...]:
        """Return rows whose fields are given one by one, each for all rows.

        To fill one field of all rows takes a sixth of the time that making one row after the other does.

        Args:
            n_rows: number of rows.
            columns: from each field of a row to its values.
        """
        rows = tuple([object.__new__(cls) for _ in range(n_rows)])
        for name in cls.__slots__:
            deque(map(getattr(cls, name).__set__, rows, columns[name]), maxlen=0)
        return rows


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one cell.

    Attributes:
        cell: model, task and prompt mode.
        fingerprint: of all that the rows depend on (`promptseg.results.fingerprints`), metrics other than IoU excepted.
        rows: sorted by their `ResultRow.key`.
        n_examined: number of images of the data set, in the seeded order, that were looked at to find the rows' cases.
        provenance: where the rows come from.
        metrics: of which the rows have values, each with its identity: a change of one leaves the others valid.
    """

    cell: Cell
    fingerprint: str
    rows: tuple[ResultRow, ...]
    n_examined: int
    provenance: Provenance = field(default_factory=Provenance)
    metrics: Mapping[str, MetricIdentity] = field(default_factory=lambda: {"iou": IOU})

    @property
    def n_images(self) -> int | None:
        """Number of images in the data set, None where it was not recorded."""
        return self.provenance.n_images

    @property
    def is_sample(self) -> bool:
        """Whether images of the data set were left out."""
        return self.n_images is not None and self.n_examined < self.n_images


def merged(stored: CellResult | None, result: CellResult) -> CellResult:
    """Return ``result`` with what only ``stored`` has, a result of the same fingerprint.

    These are its other cases, its cases that failed now and had not then, and its values of other metrics.
    """
    if stored is None:
        return result
    stored = _without(
        stored, [n for n, identity in result.metrics.items() if stored.metrics.get(n, identity) != identity]
    )
    failed = {row.case_id for row in result.rows if row.error}
    failed -= {row.case_id for row in stored.rows if row.error}
    failed &= {row.case_id for row in stored.rows}
    ours = [row for row in result.rows if row.case_id not in failed]
    known = {row.case_id for row in ours}
    others = [row for row in stored.rows if row.case_id not in known]
    return replace(
        result,
        rows=tuple(sorted([*_with_metrics(ours, stored), *others], key=lambda row: row.key)),
        n_examined=max(result.n_examined, stored.n_examined),
        metrics={**stored.metrics, **result.metrics},
    )


def _without(result: CellResult, names: Sequence[str]) -> CellResult:
    """Return a result without the values of some metrics, which are those of another version or other options."""
    if not names:
        return result
    rows = tuple(
        replace(row, metrics={name: found for name, found in row.metrics.items() if name not in names})
        for row in result.rows
    )
    metrics = {name: identity for name, identity in result.metrics.items() if name not in names}
    return replace(result, rows=rows, metrics=metrics)


def _with_metrics(rows: Sequence[ResultRow], stored: CellResult) -> Sequence[ResultRow]:
    """Return rows with the values of metrics that only the stored rows of the same key have."""
    known = {row.key: row.metrics for row in stored.rows if row.metrics}
    if not known:
        return rows
    return [
        replace(row, metrics={**known[row.key], **row.metrics}) if row.key in known and not row.error else row
        for row in rows
    ]
