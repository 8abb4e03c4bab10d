"""The one rule for stored results: what their rows and masks may hold, wherever they are read.

Files, journals, versions, baselines and submissions are all checked here, before a number of theirs is used. A fault is
said in words: the field, what was found, and in which case. Nothing is mended, left out or averaged.
`promptseg.results.rules` has what needs no arrays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from promptseg.results.rules import NO_RULES, FaultError, RowRules, is_count, shown
from promptseg.specs import SELECTS, MaskChoice

if TYPE_CHECKING:
    import pyarrow as pa

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]

_ROUNDING = 1e-9
"""IoUs that differ by no more than this are equal but for rounding."""


class _Range(NamedTuple):
    """The numbers that a column may hold: finite, and within bounds that belong to them."""

    low: float
    high: float
    words: str
    nullable: bool = False

    def excludes(self, values: npt.NDArray[Any]) -> Flags:
        """Return which values are outside; NaN and infinity are."""
        inside: Flags = (values >= self.low) & (values <= self.high)
        return ~inside


_BIGGEST = np.finfo(np.float64).max
_COUNT = _Range(0, _BIGGEST, "whole numbers from 0")
_PART = _Range(0, 1, "numbers from 0 to 1")
_PART_OR_NONE = _PART._replace(nullable=True)
_FINITE = _Range(-_BIGGEST, _BIGGEST, "finite numbers", nullable=True)
_COLUMNS: Mapping[str, _Range] = {
    "repeat": _COUNT,
    "click": _COUNT,
    "z": _COUNT._replace(nullable=True),
    "n_components": _COUNT,
    "area_fraction": _PART,
    "seconds": _Range(0, _BIGGEST, "finite numbers from 0"),
    "iou_first": _PART_OR_NONE,
    "iou_confident": _PART_OR_NONE,
    "iou_oracle": _PART_OR_NONE,
    "coverage": _PART_OR_NONE,
}
_LISTS: Mapping[str, _Range] = {"predicted_iou": _FINITE, "candidate_iou": _PART_OR_NONE}


class _Lists(NamedTuple):
    """A column of lists: which rows have one, where each begins among the values, and how long it is."""

    there: Flags
    starts: npt.NDArray[np.intp]
    lengths: npt.NDArray[np.intp]
    values: Numbers


# --- rows ---------------------------------------------------------------------------------------------------


def check_rows(table: pa.Table, rules: RowRules = NO_RULES, apart: Sequence[int] | None = None) -> None:
    """Raise `FaultError` unless the rows of a table can be those of one result.

    Args:
        table: the columns of `promptseg.results.rows.ResultRow`; types are those of `promptseg.results.parquet.schema`.
        rules: what else is known about the rows.
        apart: a number for each row; the same case may be there once for each, as in lines of journals.
    """
    if table.num_rows:
        _Rows(table, rules, apart).check()


class _Rows:
    """The columns of a table as arrays, and the checks on them.

    Arrow's columns of one chunk, and NumPy's arrays, cost a fraction of what those of several chunks do for few rows.
    """

    def __init__(self, table: pa.Table, rules: RowRules, apart: Sequence[int] | None) -> None:
        self._n = table.num_rows
        self._columns = {name: _whole(column) for name, column in zip(table.column_names, table.columns, strict=True)}
        self._rules = rules
        self._apart = apart
        self._numbers = {name: _numbers(self._columns[name]) for name in _COLUMNS}
        self._lists = {name: _lists(name, self._columns[name]) for name in _LISTS}
        self._failed = self._has("error")

    def check(self) -> None:
        """Raise `FaultError` for the first fault."""
        self._check_texts()
        self._check_ranges()
        self._check_keys()
        self._check_values()
        self._check_choices()
        self._check_metrics()

    def _refuse(self, name: str, wrong: Flags, what: str) -> None:
        """Raise for the first row whose value in a column is wrong."""
        if wrong.any():
            row = int(np.argmax(wrong))
            value, case = (shown(self._columns[column][row].as_py()) for column in (name, "case_id"))
            raise FaultError(f"column {name!r} holds {what}: {value} in case {case}")

    def _has(self, name: str) -> Flags:
        return _is_valid(self._columns[name])

    def _check_texts(self) -> None:
        import pyarrow.compute as pc

        for name in ("case_id", "prompts", "metrics"):
            if self._columns[name].null_count:
                self._refuse(name, ~self._has(name), "None where there must be a value")
        for name in ("case_id", "error"):
            if (place := pc.index(self._columns[name], "").as_py()) >= 0:
                self._refuse(name, np.arange(self._n) == place, "an empty text")
        self._refuse("prompts", ~_hold_prompts(self._columns["prompts"]), "what is no JSON list of prompts")

    def _check_ranges(self) -> None:
        for name, allowed in _COLUMNS.items():
            n_null = self._columns[name].null_count
            if n_null == self._n and allowed.nullable:
                continue
            wrong = allowed.excludes(self._numbers[name])
            if n_null:
                there = self._has(name)
                if not allowed.nullable:
                    self._refuse(name, ~there, "None where there must be a value")
                wrong &= there
            self._refuse(name, wrong, f"values that are not {allowed.words}")
        for name, allowed in _LISTS.items():
            found = self._lists[name]
            self._refuse(name, found.there & (found.lengths == 0), "a list without a number")
            if not len(wrong_values := np.flatnonzero(allowed.excludes(found.values))):
                continue
            wrong = np.zeros(self._n, dtype=np.bool_)
            wrong[np.searchsorted(found.starts, wrong_values, side="right") - 1] = True
            self._refuse(name, wrong, f"values that are not {allowed.words}")

    def _check_keys(self) -> None:
        """Each case once in each repeat, slice and click; clicks as the mode has them; a case of one subject."""
        cases, subjects = (_codes(self._columns[name]) for name in ("case_id", "subject_id"))
        repeats, clicks = self._numbers["repeat"], self._numbers["click"]
        slices = np.where(self._has("z"), self._numbers["z"], -1)
        lines = np.zeros_like(cases) if self._apart is None else np.array(self._apart, dtype=np.intp)
        order = np.lexsort((clicks, slices, repeats, cases, lines))
        rows = _Sorted(order, same_case=_as_before(order, lines, cases), same_run=_as_before(order, repeats, slices))
        twice = rows.same & _as_before(order, clicks)
        if twice.any():
            raise FaultError(
                f"case {shown(self._columns['case_id'][int(order[np.argmax(twice)])].as_py())} is there twice"
            )
        other = rows.same_case & ~_as_before(order, subjects)
        self._refuse("subject_id", rows.unsorted(other), "another subject than the case has in its other rows")
        self._check_clicks(rows, clicks[order])
        known = self._rules.case_ids
        if known is not None:
            ids = self._columns["case_id"].to_pylist()
            unknown = np.array([case_id not in known for case_id in ids])
            self._refuse("case_id", unknown, "what is no case of the data set")

    def _check_clicks(self, rows: _Sorted, clicks: npt.NDArray[Any]) -> None:
        """Clicks are 0 alone, or 1 to n without a gap: those of the mode, where it is known.

        Args:
            rows: of the table, sorted.
            clicks: of the sorted rows.
        """
        starts = np.flatnonzero(~rows.same)
        counts = np.diff(np.append(starts, len(clicks)))
        first = clicks[starts]
        gaps = clicks != np.repeat(first - starts, counts) + np.arange(len(clicks))
        alone = (first == 0) & (counts == 1)
        steps = self._rules.steps
        if steps is None:
            fits, expected = alone | (first == 1), "0 alone, or 1, 2, ... without a gap"
        elif steps == 0:
            fits, expected = alone, "0, as of a static mode"
        else:
            fits, expected = (first == 1) & (counts == steps), f"1 to {steps}, as of its mode"
        fits = np.where(self._failed[rows.order[starts]], alone, fits)
        self._refuse("click", rows.unsorted(gaps | np.repeat(~fits, counts)), f"clicks that are not {expected}")

    def _check_values(self) -> None:
        """A row has all IoUs or says why it has none."""
        has = {select: self._has(f"iou_{select}") for select in SELECTS}
        some, every = (join.reduce(list(has.values())) for join in (np.logical_or, np.logical_and))
        has_coverage, has_candidates = self._has("coverage"), self._lists["candidate_iou"].there
        others = has_coverage | has_candidates | self._has_metrics()
        failed = self._failed & (some | others | self._lists["predicted_iou"].there)
        self._refuse("error", failed, "a reason for having no values, and there are some")
        for select, there in has.items():
            self._refuse(f"iou_{select}", some & ~there, "values that are not numbers from 0 to 1 beside some that are")
        empty = ~self._failed & ~some  # such a row says that the model was asked for what is not there
        asked_by_name = (self._numbers["n_components"] == 0) & (self._rules.needs in (None, "text"))
        self._refuse("iou_first", empty & ~asked_by_name, "None without an error")
        self._refuse("iou_first", empty & others, "None beside other values")
        if self._rules.grid is not None:
            expected = every & (self._rules.grid > 0)
            self._refuse("coverage", has_coverage & ~expected, "a value, which its mode does not have")
            self._refuse("coverage", expected & ~has_coverage, "None where there must be a value")

    def _check_choices(self) -> None:
        """First, confident and oracle mask are those that the candidates give."""
        iou = {select: self._numbers[f"iou_{select}"] for select in SELECTS}
        self._refuse("iou_first", iou["first"] > iou["oracle"] + _ROUNDING, "what is better than the best mask")
        candidates, predicted = self._lists["candidate_iou"], self._lists["predicted_iou"]
        both = candidates.there & predicted.there
        lengths = both & (candidates.lengths != predicted.lengths)
        self._refuse("predicted_iou", lengths, "another number of candidates than 'candidate_iou'")
        rows = np.flatnonzero(candidates.there)
        if not len(rows):
            return
        starts = candidates.starts[rows]
        expected: dict[MaskChoice, Numbers] = {
            "first": candidates.values[starts],
            "confident": candidates.values[starts + _most_confident(predicted, rows)],
            "oracle": np.maximum.reduceat(candidates.values, starts),
        }
        for select, values in expected.items():
            wrong = np.zeros(self._n, dtype=np.bool_)
            wrong[rows] = ~(np.abs(iou[select][rows] - values) <= _ROUNDING)
            if select == "confident":  # else another rule than the highest predicted IoU may have chosen
                wrong &= predicted.there
            self._refuse(f"iou_{select}", wrong, "values that are not those of the candidates, 'candidate_iou'")
        place = np.repeat(rows, candidates.lengths[rows])
        far = np.abs(candidates.values - iou["confident"][place])
        of_none = np.zeros(self._n, dtype=np.bool_)
        of_none[rows] = ~(np.minimum.reduceat(far, starts) <= _ROUNDING)
        self._refuse("iou_confident", of_none, "what is that of no candidate in 'candidate_iou'")

    def _has_metrics(self) -> Flags:
        """Return which rows have values of metrics beside IoU."""
        found: Flags = np.diff(self._columns["metrics"].offsets.to_numpy()) > 0
        return found

    def _check_metrics(self) -> None:
        metrics = self._columns["metrics"]
        if not len(metrics.items):
            return
        if metrics.items.null_count:
            raise FaultError("column 'metrics' holds None where there must be values")
        for field in metrics.items.flatten():
            values = field.drop_null().to_numpy(zero_copy_only=False)
            if (wrong := _FINITE.excludes(values)).any():
                raise FaultError(f"column 'metrics' holds values that are not finite numbers: {values[wrong][0]}")
        allowed = self._rules.metrics
        if allowed is not None and (unknown := sorted({*metrics.keys.unique().to_pylist()}.difference(allowed))):
            raise FaultError(f"column 'metrics' holds {unknown[0]!r}, whose version the metadata does not have")


class _Sorted(NamedTuple):
    """Rows sorted by key.

    Attributes:
        order: from the place among the sorted rows to the row of the table.
        same_case: whether a sorted row is of the same case as the one before it.
        same_run: whether it is of the same repeat and slice as the one before it.
    """

    order: npt.NDArray[np.intp]
    same_case: Flags
    same_run: Flags

    @property
    def same(self) -> Flags:
        """Whether a sorted row is of the same case, repeat and slice as the one before it."""
        return self.same_case & self.same_run

    def unsorted(self, flags: Flags) -> Flags:
        """Return flags of sorted rows in the order of the table."""
        found = np.empty_like(flags)
        found[self.order] = flags
        return found


def _as_before(order: npt.NDArray[np.intp], *columns: npt.NDArray[Any]) -> Flags:
    """Return for each sorted row whether it has the values of the one before it; False for the first."""
    same = np.ones(len(order), dtype=np.bool_)
    same[0] = False
    for column in columns:
        same[1:] &= column[order[1:]] == column[order[:-1]]
    return same


def _most_confident(predicted: _Lists, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return for some rows the place of the highest predicted IoU, 0 for a row without any."""
    best = np.zeros(len(rows), dtype=np.intp)
    lengths = predicted.lengths[rows]
    for length in np.unique(lengths[lengths > 0]):
        alike = np.flatnonzero(lengths == length)
        places = predicted.starts[rows[alike]][:, None] + np.arange(length)
        best[alike] = predicted.values[places].argmax(axis=1)
    return best


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece. Raises `pyarrow.ArrowInvalid` where its texts are too long for that."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_valid(column: pa.Array) -> Flags:
    """Return which rows are not None."""
    if column.null_count in (0, len(column)):
        return np.full(len(column), not column.null_count)
    found: Flags = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    """Return numbers, None as NaN."""
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    found: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return found


def _lists(name: str, column: pa.Array) -> _Lists:
    flat = column.flatten()  # without what None may hide
    if flat.null_count:
        raise FaultError(f"column {name!r} holds a list with None")
    there = _is_valid(column)
    lengths = np.where(there, np.diff(column.offsets.to_numpy()), 0).astype(np.intp)
    return _Lists(there, np.cumsum(lengths) - lengths, lengths, flat.to_numpy())


def _codes(column: pa.Array) -> npt.NDArray[np.intp]:
    """Return a number for each different text, -1 for None."""
    if column.null_count == len(column):
        return np.full(len(column), -1, dtype=np.intp)
    codes = column.dictionary_encode().indices
    if codes.null_count:
        codes = codes.fill_null(-1)
    found: npt.NDArray[np.intp] = codes.to_numpy(zero_copy_only=False).astype(np.intp)
    return found


# --- prompts ------------------------------------------------------------------------------------------------


_NUMBER_TEXT = r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,2})?"
_POINT_TEXT = rf"\[{_NUMBER_TEXT}, {_NUMBER_TEXT}\]"
_BOX_TEXT = rf"\[{_NUMBER_TEXT}, {_NUMBER_TEXT}, {_NUMBER_TEXT}, {_NUMBER_TEXT}\]"
_PROMPT_TEXT = (
    rf'\{{"points_xy": \[({_POINT_TEXT}(, {_POINT_TEXT})*)?\], "labels": \[([0-9](, [0-9])*)?\], '
    rf'"box_xyxy": (null|{_BOX_TEXT})\}}'
)
_USUAL_TEXT = rf"^\[({_PROMPT_TEXT}(, {_PROMPT_TEXT})*)?\]$"
_FEW = 64  # texts that are read as JSON in less time than Arrow takes to compile the expression above


def _hold_prompts(texts: pa.Array) -> Flags:
    """Return which texts are JSON lists of prompts.

    Texts in the form that evaluations write are looked at all at once, a tenth of the time that it takes to read JSON;
    the others, and a few, are read.
    """
    import pyarrow.compute as pc

    if len(texts) <= _FEW:
        return np.array([_are_prompts(text) for text in texts.to_pylist()])
    matches = pc.match_substring_regex(texts, _USUAL_TEXT)
    usual: Flags = matches.to_numpy(zero_copy_only=False)
    found = np.zeros(len(texts), dtype=np.bool_)
    if usual.any():
        found[usual] = _have_a_label_for_each_point(texts if usual.all() else texts.filter(matches))
    for row in np.flatnonzero(~found):
        found[row] = _are_prompts(texts[int(row)].as_py())
    return found


def _have_a_label_for_each_point(texts: pa.Array) -> Flags:
    """Return which texts, all in the usual form, have as many labels as points in each prompt.

    By commas and brackets, which are counted in the bytes of all texts at once. A prompt has two commas between its
    fields and a bracket for the points and one for the labels. Each point has a comma and a bracket, each label
    neither; between n of them there are n - 1 commas. A box has three commas and a bracket. So the commas less three
    times the brackets, less one for each empty list, are the labels less the points, less six.
    """
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(texts.buffers()[2], np.uint8)[: offsets[-1]]
    text = text[offsets[0] :]
    begins, ends, commas, brackets = (np.flatnonzero(text == ord(sign)) for sign in "{},[")
    empty = brackets[text[brackets + 1] == ord("]")]
    n_commas, n_brackets, n_empty = (
        np.searchsorted(signs, ends) - np.searchsorted(signs, begins) for signs in (commas, brackets, empty)
    )
    differ = begins[n_commas - 3 * n_brackets - n_empty != -6]
    found = np.ones(len(texts), dtype=np.bool_)
    found[np.searchsorted(offsets[1:] - offsets[0], differ, side="right")] = False
    return found


def _are_prompts(text: str) -> bool:
    """Whether a text is a JSON list of prompts, or of the number of points of a grid."""
    try:
        given = json.loads(text)
        return type(given) is list and all(map(_is_prompt, given))
    except (KeyError, RecursionError, TypeError, ValueError):
        return False


def _is_prompt(given: dict[str, Any]) -> bool:
    """Whether JSON is one prompt; raises `KeyError` or `TypeError` where it is something else."""
    if "grid" in given:
        return is_count(given["grid"])
    points, labels, box = given["points_xy"], given["labels"], given["box_xyxy"]
    numbers = [value for point in points for value in point]
    if box is not None:
        numbers += box
    n_box = 0 if box is None else 4
    return (
        len(points) == len(labels)
        and all(len(point) == 2 for point in points)
        and len(numbers) == 2 * len(points) + n_box
        and {*map(type, numbers)} <= {float, int}
        and {*map(type, labels)} <= {int}
        and math.isfinite(math.fsum(numbers))
    )


# --- masks --------------------------------------------------------------------------------------------------

_MASK_COLUMNS: Mapping[str, int] = {"click": 0, "prompt": 0, "candidate": 0, "height": 1, "width": 1}
"""The smallest number that each column may hold."""


def check_masks(table: pa.Table, names: Iterable[str], apart: Sequence[int] | None = None) -> None:
    """Raise `FaultError` unless the rows of a table can be candidate masks of one result.

    Their runs are checked where a mask is decoded.

    Args:
        table: some columns of `promptseg.results.masks.SavedMask`, of their types.
        names: of the columns that the table has.
        apart: a number for each row; the same mask may be there once for each, as in lines of journals.
    """
    import pyarrow.compute as pc

    columns = {*names}
    for name in sorted(columns - {"predicted_iou"}):
        if table[name].null_count:
            raise FaultError(f"column {name!r} holds None")
    if pc.any(pc.equal(table["case_id"], "")).as_py():
        raise FaultError("column 'case_id' holds an empty text")
    for name, low in _MASK_COLUMNS.items():
        if name in columns and (found := pc.min(table[name]).as_py()) is not None and found < low:
            raise FaultError(f"column {name!r} holds {found}, not whole numbers from {low}")
    if "predicted_iou" in columns:
        values = table["predicted_iou"].drop_null().to_numpy()
        if (wrong := _FINITE.excludes(values)).any():
            raise FaultError(f"column 'predicted_iou' holds values that are not finite numbers: {values[wrong][0]}")
    key = ("click", "prompt", "candidate")
    if columns >= {*key} and table.num_rows:
        lines = np.zeros(table.num_rows, dtype=np.intp) if apart is None else np.asarray(apart, dtype=np.intp)
        keys = np.stack([lines, _codes(_whole(table["case_id"])), *(table[name].to_numpy() for name in key)], axis=1)
        if len(np.unique(keys, axis=0)) < len(keys):
            raise FaultError("a candidate of a case is there twice")
