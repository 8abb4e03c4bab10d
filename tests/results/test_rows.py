"""What two results of one fingerprint make together."""

from __future__ import annotations

import dataclasses

from support.stored_results import result, rows

from promptseg.results.rows import CellResult, MetricIdentity, MetricValues, ResultRow, merged

ONE = MetricIdentity(version=1)


def with_metric(found: CellResult, name: str, value: float, identity: MetricIdentity = ONE) -> CellResult:
    """Return a result whose rows have one more metric."""
    values = MetricValues(value, value, value)
    measured = tuple(dataclasses.replace(row, metrics={**row.metrics, name: values}) for row in found.rows)
    return dataclasses.replace(found, rows=measured, metrics={**found.metrics, name: identity})


def firsts(row: ResultRow) -> dict[str, float | None]:
    """Return the values of metrics for the first mask."""
    return {name: values.first for name, values in row.metrics.items()}


def test_rows_are_sorted_by_case_repeat_click_and_slice() -> None:
    """Whatever order they come in."""
    places = [("a", 0, 0, None), ("a", 0, 1, None), ("a", 0, 1, 0), ("a", 1, 0, None), ("b", 0, 0, None)]
    made = [ResultRow(case_id=c, repeat=r, click=k, z=z) for c, r, k, z in places]
    stored = dataclasses.replace(result(), rows=tuple(made[:4]))
    assert merged(stored, dataclasses.replace(result(), rows=(made[4],))).rows == tuple(made)
    assert sorted([made[i] for i in (3, 4, 0, 2, 1)], key=lambda row: row.key) == made


def test_a_result_with_fewer_metrics_takes_none_away() -> None:
    """A later run that asks for other metrics, or evaluates some cases again, leaves the values that are there."""
    stored = with_metric(with_metric(result("a" * 64, "c1", "c2"), "dice", 0.7), "hd95", 3.0)
    both = merged(stored, with_metric(result("a" * 64, "c2", "c3"), "dice", 0.8))
    assert [firsts(row) for row in both.rows] == [
        {"dice": 0.7, "hd95": 3.0},
        {"dice": 0.8, "hd95": 3.0},
        {"dice": 0.8},
    ]
    assert set(both.metrics) == {"iou", "dice", "hd95"}


def test_values_of_another_version_of_a_metric_are_not_mixed() -> None:
    """Those of the older identity go, those of other metrics stay."""
    stored = with_metric(with_metric(result("a" * 64, "c1", "c2"), "nsd", 0.1), "dice", 0.7)
    now = MetricIdentity(version=1, options={"tolerance_mm": 1.0})
    both = merged(stored, with_metric(result("a" * 64, "c2"), "nsd", 0.9, now))
    assert [firsts(row) for row in both.rows] == [{"dice": 0.7}, {"dice": 0.7, "nsd": 0.9}]
    assert both.metrics["nsd"] == now


def test_a_row_comes_back_from_its_names_and_values() -> None:
    """As a journal and a file hold them."""
    row = dataclasses.replace(rows("c")[0], metrics={"dice": MetricValues(0.5, None, 1.0)})
    assert row.as_dict()["metrics"] == {"dice": {"first": 0.5, "confident": None, "oracle": 1.0}}
    assert ResultRow.from_dict(**row.as_dict()) == row
