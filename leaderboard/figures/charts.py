"""Draw numbers: Figures 2, 4, 5 and 8. A filled mark is measured, a hollow one published, a triangle the oracle."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptseg import text
from promptseg.leaderboard import paper
from promptseg.leaderboard.figures.numbers import (
    SIZED_MODES,
    Mark,
    Series,
    SizedTask,
    TaskMarks,
    counted,
    fit,
    shared_tasks,
)
from promptseg.leaderboard.figures.style import (
    BAND,
    BLACK,
    CHOICES,
    GREY,
    LINES,
    MARKERS,
    MODE_COLOURS,
    colour_of,
    plain,
)
from promptseg.leaderboard.paper import STATIC

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_WIDTH = 7.5  # inches, a page of A4 between its margins
_LOG_TICKS = ((50.0, (1.0, 2.0, 5.0)), (2000.0, (1.0, 3.0)), (math.inf, (1.0,)))  # largest ratio of the ends, ticks
_PANEL_TITLE = 20  # characters
_COLUMNS = 5  # panels beside one another in the lower part of Figure 5


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _two_parts(figure: Figure, top: float, bottom: float) -> tuple[SubFigure, SubFigure]:
    """Return an upper and a lower part, whose heights have the ratio of the two numbers."""
    parts: Any = figure.subfigures(2, 1, height_ratios=(top, bottom))
    return parts[0], parts[1]


def _marks(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, *, published: bool, marker: str = "o"
) -> None:
    face = "white" if published else colour
    axes.plot(x, y, marker, color=colour, markerfacecolor=face, markeredgewidth=0.8, zorder=3)


def _handle(label: str, colour: str, **more: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=label, **{"linestyle": "none", "marker": "o", **more})


def _meaning(rows: Sequence[TaskMarks]) -> list[Any]:
    """Return the part of a legend that explains measured, published and oracle marks, as far as they occur."""
    kinds = {"measured": [r.measured for r in rows], "published": [r.published for r in rows]}
    handles = []
    for kind, marks in kinds.items():
        face = GREY if kind == "measured" else "white"
        if any(marks):
            handles.append(_handle(kind, GREY, markerfacecolor=face))
        if any(mark.oracle is not None for lanes in marks for mark in lanes.values()):
            handles.append(_handle(f"{kind}, oracle", GREY, markerfacecolor=face, marker="v"))
    return handles


def _cases(row: TaskMarks) -> str:
    """Return the numbers of cases, measured and then published in brackets."""
    parts = []
    if row.n:
        parts.append(_range(row.n))
    if row.published:
        parts.append(f"[{paper.tasks()[row.task].cases.replace('at most ', '≤')}]")
    return " ".join(parts)


def _range(numbers: Collection[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _lanes(axes: Axes, rows: Sequence[TaskMarks], lanes: Mapping[str, str], start: float | None = None) -> None:
    """Draw a band for each task with a lane for each key of ``lanes`` (name -> colour).

    A line joins a mark with its oracle's, and with ``start`` if that is given.
    """
    for position in range(0, len(rows), 2):
        axes.axhspan(position - 0.5, position + 0.5, color=BAND, zorder=0)
    for i, (lane, colour) in enumerate(lanes.items(), 1):
        offset = i / (len(lanes) + 1) - 0.5
        for published in (False, True):
            marks = [(row.published if published else row.measured).get(lane) for row in rows]
            marked = [(position + offset, mark) for position, mark in enumerate(marks) if mark is not None]
            _lane(axes, marked, colour, start, published=published)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [f"{plain(row.task)}{' (sample)' if row.sample else ''}" for row in rows])
    axes.tick_params(axis="y", length=0)
    _right_labels(axes, [_cases(row) for row in rows], "n [published n]" if any(r.published for r in rows) else "n")


def _lane(
    axes: Axes, marked: Sequence[tuple[float, Mark]], colour: str, start: float | None, *, published: bool
) -> None:
    """Draw the marks of one lane at their heights."""
    ends = [[x for x in (start, mark.value, mark.oracle) if x is not None] for _, mark in marked]
    heights = [y for y, _ in marked]
    axes.hlines(heights, [min(e) for e in ends], [max(e) for e in ends], color=colour, linewidth=0.6, zorder=2)
    best = [(mark.oracle, y) for y, mark in marked if mark.oracle is not None]
    _marks(axes, [x for x, _ in best], [y for _, y in best], colour, published=published, marker=MARKERS["oracle"])
    _marks(axes, [mark.value for _, mark in marked], heights, colour, published=published)


def _right_labels(axes: Axes, labels: Sequence[str], title: str) -> None:
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks(range(len(labels)), labels)
    right.tick_params(axis="y", length=0, labelcolor=GREY, labelsize=6)
    right.set_title(title, fontsize=6, color=GREY, loc="right")


# --- Figure 2 -----------------------------------------------------------------------------------------------


def modes(model: str, rows: Sequence[TaskMarks]) -> Figure:
    """Draw Fig. 2: the tasks in the five static modes, and a box plot of the modes over tasks beside them."""
    figure = _figure(1.6 + max(0.3 * len(rows), 1.8))
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    _lanes(left, rows, MODE_COLOURS)
    left.set_xlim(0, 1)
    left.set_xlabel("mean IoU over the cases of a task")
    left.set_title(f"{plain(model)}: tasks by mode 4", loc="left")
    _mode_boxes(right, rows)
    handles = [_handle(f"{i} {mode}", colour, marker="s") for i, (mode, colour) in enumerate(MODE_COLOURS.items(), 1)]
    mean = _handle("mean over tasks", BLACK, marker="D", markerfacecolor="white")
    note = _handle(f"mask that counts: {CHOICES[counted(model)]}", GREY, marker="")
    figure.legend(handles=[*handles, *_meaning(rows), mean, note], loc="outside lower center", ncols=4)
    return figure


def _mode_boxes(axes: Axes, rows: Sequence[TaskMarks]) -> None:
    """Draw a box over tasks for each mode: quartiles, whiskers to 1.5 interquartile ranges, measured on top."""
    ticks = []
    for position, (mode, colour) in enumerate(MODE_COLOURS.items()):
        measured = [row.measured[mode].value for row in rows if mode in row.measured]
        published = [row.published[mode].value for row in rows if mode in row.published]
        both = bool(measured) and bool(published)
        for values, is_published in ((measured, False), (published, True)):
            if values:
                shift = (0.2 if is_published else -0.2) if both else 0.0
                _box(axes, values, position + shift, 0.3 if both else 0.5, colour, published=is_published)
        n = [str(len(measured))] * bool(measured) + [f"[{len(published)}]"] * bool(published)
        ticks.append(f"{position + 1}\nn={' '.join(n) or 0}")
    axes.set_ylim(len(MODE_COLOURS) - 0.5, -0.5)
    axes.set_yticks(range(len(MODE_COLOURS)), ticks)
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean IoU of a task")
    axes.set_title("modes over tasks")


def _box(axes: Axes, values: Sequence[float], y: float, width: float, colour: str, *, published: bool) -> None:
    line = {"color": colour if published else BLACK, "linewidth": 0.8}
    axes.boxplot(
        [list(values)],
        positions=[y],
        widths=width,
        orientation="horizontal",
        patch_artist=True,
        manage_ticks=False,
        showmeans=True,
        meanprops={"marker": "D", "markersize": 3.5, "markeredgecolor": BLACK, "markerfacecolor": "white"},
        boxprops={"facecolor": "white" if published else colour, "edgecolor": line["color"], "linewidth": 0.8},
        medianprops={"color": BLACK, "linewidth": 1.2},
        whiskerprops=line,
        capprops=line,
        flierprops={"marker": "o", "markersize": 2.5, "markeredgecolor": line["color"], "markerfacecolor": "white"},
    )


# --- Figure 4 -----------------------------------------------------------------------------------------------


def differences(model: str, rivals: Sequence[str], rows: Sequence[TaskMarks]) -> Figure:
    """Draw Fig. 4: a model's IoU less that of each rival, by one point."""
    lanes = {rival: LINES[i % len(LINES)] for i, rival in enumerate(rivals)}
    figure = _figure(1.6 + max(max(0.2, 0.06 * len(lanes)) * len(rows), 1.2))
    axes = figure.subplots()
    _lanes(axes, rows, lanes, start=0.0)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_xlabel(f"mean IoU of {plain(model)} ({CHOICES[counted(model)]}) less that of the other, after one point")
    axes.set_title(f"{plain(model)} against others: to the right it is better", loc="left")
    handles = [_handle(f"less {plain(rival)}", colour, marker="s") for rival, colour in lanes.items()]
    figure.legend(handles=[*handles, *_meaning(rows)], loc="outside lower center", ncols=3)
    return figure


# --- Figure 5 -----------------------------------------------------------------------------------------------


def clicks(models: Sequence[str], series: Sequence[Series]) -> Figure:
    """Draw Fig. 5: IoU after each click, the mean over tasks on top and each task below."""
    tasks = sorted({task for one in series for task in one.curves})
    rows = math.ceil(len(tasks) / _COLUMNS)
    figure = _figure(3.8 + 1.05 * rows)
    top, bottom = _two_parts(figure, 3.2, 1.05 * rows + 0.2)
    _mean_panel(top, models, series)
    panels = list(bottom.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    for panel, task in zip(panels, tasks, strict=False):
        _task_panel(panel, task, models, series)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    bottom.supxlabel("clicks", fontsize=8)
    bottom.supylabel("mean IoU", fontsize=8)
    return figure


def _mean_panel(figure: SubFigure, models: Sequence[str], series: Sequence[Series]) -> None:
    axes, tasks = figure.subplots(), shared_tasks(series)
    for one in series:
        _curve(axes, one, one.mean(tasks), models)
    axes.set_xlabel("clicks")
    axes.set_ylabel("mean IoU over tasks")
    axes.set_ylim(0, 1)
    which = "all models have" if all(one.published for one in series) else "all evaluated models have"
    axes.set_title(f"mean over the n = {len(tasks)} tasks that {which}" if tasks else f"no task that {which}")
    axes.legend(handles=[_series_handle(one, models) for one in series], loc="center left", bbox_to_anchor=(1, 0.5))


def _series_handle(one: Series, models: Sequence[str]) -> Any:
    kind = "published" if one.published else "measured"
    return _handle(f"{plain(one.model)}, {CHOICES[one.select]} ({kind})", **_look(one, models))


def _look(one: Series, models: Sequence[str]) -> dict[str, Any]:
    colour = colour_of(one.model, models)
    return {
        "colour": colour,
        "marker": MARKERS[one.select],
        "linestyle": "--" if one.published else "-",
        "markerfacecolor": "white" if one.published else colour,
    }


def _curve(axes: Axes, one: Series, values: Sequence[float], models: Sequence[str], size: float = 3.5) -> None:
    if values:
        look = _look(one, models)
        axes.plot(range(1, len(values) + 1), values, color=look.pop("colour"), markersize=size, **look)


def _task_panel(axes: Axes, task: str, models: Sequence[str], series: Sequence[Series]) -> None:
    for one in series:
        _curve(axes, one, one.curves.get(task, ()), models, size=2)
    n = {one.n[task] for one in series if task in one.n}
    sample = any(task in one.samples for one in series)
    cases = f" (n={_range(n)}{', sample' if sample else ''})" if n else ""
    axes.set_title(plain(task, _PANEL_TITLE) + cases, fontsize=6, pad=2)
    axes.set_ylim(0, 1)
    axes.set_xticks((1, 5, 9))
    axes.set_yticks((0, 0.5, 1))


# --- Figure 8 -----------------------------------------------------------------------------------------------


def sizes(model: str, tasks: Sequence[SizedTask]) -> Figure:
    """Draw Fig. 8: the relative size of the objects of each task, and mean size against IoU in modes 2 and 4."""
    figure = _figure(1.6 + max(0.2 * len(tasks), 0.8) + 3.0)
    modalities = sorted({task.modality for task in tasks})
    top, bottom = _two_parts(figure, max(0.2 * len(tasks), 0.8) + 0.8, 3.2)
    _size_boxes(top.subplots(), tasks, modalities)
    panels = bottom.subplots(1, len(SIZED_MODES), sharey=True)
    for panel, mode in zip(panels, SIZED_MODES, strict=True):
        _size_panel(panel, mode, tasks, modalities)
    panels[0].set_ylabel("mean IoU over the cases of a task")
    handles = [_handle(plain(modality), **_modality(modality, modalities)) for modality in modalities]
    if any(task.published for task in tasks):
        handles.append(_handle("IoU published, size measured here", GREY, markerfacecolor="white"))
    note = _handle(f"{plain(model)}, {CHOICES[counted(model)]}", GREY, marker="")
    bottom.legend(handles=[*handles, note], loc="outside lower center", ncols=4)
    return figure


def _modality(modality: str, modalities: Sequence[str]) -> dict[str, Any]:
    position = modalities.index(modality)
    return {"colour": LINES[position % len(LINES)], "marker": "osD^Pp*"[position % 7]}


def _size_boxes(axes: Axes, tasks: Sequence[SizedTask], modalities: Sequence[str]) -> None:
    """Draw a box for each task: quartiles, whiskers to the 5th and 95th percentile."""
    boxes = axes.boxplot(
        [[100 * size for size in task.sizes] for task in tasks],
        positions=range(len(tasks)),
        widths=0.6,
        whis=(5, 95),
        orientation="horizontal",
        patch_artist=True,
        manage_ticks=False,
        medianprops={"color": BLACK},
        flierprops={"marker": ".", "markersize": 2, "markeredgecolor": GREY},
    )
    for box, task in zip(boxes["boxes"], tasks, strict=True):
        box.set_facecolor(_modality(task.modality, modalities)["colour"])
    labels = [f"{plain(t.task)} (n={len(t.sizes)}{', sample' if t.sample else ''})" for t in tasks]
    axes.set_yticks(range(len(tasks)), labels)
    axes.set_ylim(-0.7, len(tasks) - 0.3)
    _percent_axis(axes)
    axes.set_title("size of the objects")


def _percent_axis(axes: Axes) -> None:
    """Make a logarithmic axis with plain numbers: mathematical powers would need texts that matplotlib parses."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = next(subs for most, subs in _LOG_TICKS if high / low < most)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("object pixels / image pixels (%)")


def _size_panel(axes: Axes, mode: str, tasks: Sequence[SizedTask], modalities: Sequence[str]) -> None:
    lines = []
    for name, published in (("measured", False), ("published", True)):
        values = [(t, (t.published if published else t.measured).get(mode)) for t in tasks]
        points = [(task, iou) for task, iou in values if iou is not None]
        for task, iou in points:
            look = _modality(task.modality, modalities)
            _marks(axes, [100 * task.mean_size], [iou], look["colour"], published=published, marker=look["marker"])
        text = _fit_line(axes, [100 * t.mean_size for t, _ in points], [iou for _, iou in points], published=published)
        lines += [f"{name}: {text}"] if points else []
    axes.set_title(f"{mode} (mode {STATIC.index(mode) + 1})\n" + "\n".join(lines), fontsize=7.5)
    if not lines:
        axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_ylim(0, 1)
    _percent_axis(axes)
    axes.set_xlabel("mean of object pixels / image pixels (%)")


def _fit_line(axes: Axes, percents: Sequence[float], ious: Sequence[float], *, published: bool) -> str:
    """Draw the straight line over log size; return its equation in the unit of the axis, and the correlations."""
    line = fit(percents, ious)
    if line is None:
        return f"n = {text.counted(len(percents), 'task')}, too few for a line"
    ends = [min(percents), max(percents)]
    heights = [line.slope * math.log10(size) + line.intercept for size in ends]
    axes.plot(ends, heights, "--" if published else "-", color=GREY, zorder=1)
    correlations = f"r = {line.pearson:.2f}, \N{GREEK SMALL LETTER RHO} = {line.spearman:.2f}, n = {line.n} tasks"
    equation = f"IoU = {line.slope:.2f} log10(size in %) {'-' if line.intercept < 0 else '+'} {abs(line.intercept):.2f}"
    return f"{equation}\n{correlations}".replace("-", "\N{MINUS SIGN}")
