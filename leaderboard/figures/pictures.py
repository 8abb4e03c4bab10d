"""Draw cases: Figures 3, 7 and 9. A grid of panels, each an image with contours of masks and with prompts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from promptseg.leaderboard.figures.style import BLACK, CHOICES, FILLS, GREY, SKY, VERMILLION, YELLOW, plain
from promptseg.prompts import tight_box_xyxy
from promptseg.segmenter import Image, Mask, Prompt
from promptseg.specs import MaskChoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from promptseg.leaderboard.case_views import CaseView, Step

CANDIDATES = 3  # largest number that Figure 7 shows of a model
_PANEL = 1.75  # inches
_MARGIN = 0.25  # of a zoom's side, on each side
_SMALLEST = 24  # pixels; shortest side of a zoom
_ORDINALS = ("1st", "2nd", "3rd")
_TARGET, _PREDICTION, _PROMPT = SKY, VERMILLION, YELLOW


class Window(NamedTuple):
    """A part of an image: inclusive pixel indices."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """An image and what is drawn on it.

    Attributes:
        title: above it.
        image: (H, W, 3) uint8.
        target, prediction: (H, W) masks to outline.
        prompts: points and boxes.
        masks: (H, W) masks to fill, each in a colour of its own.
        window: the part to show, None for the whole image.
        frame: a part to frame.
    """

    title: str
    image: Image
    target: Mask | None = None
    prediction: Mask | None = None
    prompts: Sequence[Prompt] = ()
    masks: Sequence[Mask] = ()
    window: Window | None = None
    frame: Window | None = None


class PanelRow(NamedTuple):
    """A row of panels with the text at its left; None leaves a place empty."""

    label: str
    panels: Sequence[Panel | None]


def window(*masks: Mask) -> Window:
    """Return the part of an image around some (H, W) masks: a square that holds them with a margin, within the image.

    Where the image is too low or too narrow for the square, the part has its whole height or width.
    """
    union = np.logical_or.reduce(masks)
    x0, y0, x1, y1 = map(int, tight_box_xyxy(union))
    side = max(round((1 + 2 * _MARGIN) * max(x1 - x0 + 1, y1 - y0 + 1)), _SMALLEST)
    (left, right), (top, bottom) = _span(x0, x1, side, union.shape[1]), _span(y0, y1, side, union.shape[0])
    return Window(left, top, right, bottom)


def _span(first: int, last: int, length: int, size: int) -> tuple[int, int]:
    """Return the ends of ``length`` pixels with ``first`` to ``last`` in their middle, moved or cut to ``size``."""
    length = min(length, size)
    start = min(max((first + last + 1 - length) // 2, 0), size - length)
    return start, start + length - 1


# --- what the figures show ----------------------------------------------------------------------------------


class PercentileCase(NamedTuple):
    """A case of Fig. 3: its percentile of IoU, and mode -> the case in that mode, with image and masks."""

    percentile: int
    views: Mapping[str, CaseView]


def percentiles(model: str, task: str, n: str, select: MaskChoice, cases: Sequence[PercentileCase]) -> Figure:
    """Draw Fig. 3 of one task: image, zoom and predictions for cases at some percentiles of IoU among ``n``."""
    rows = [_percentile_row(case, select) for case in cases]
    mode = next(iter(cases[0].views))
    title = f"{plain(model)} ({CHOICES[select]}) on {plain(task)}: percentiles of IoU by {mode}, n = {n}"
    return _grid(title, rows)


def _percentile_row(case: PercentileCase, select: MaskChoice) -> PanelRow:
    first = next(iter(case.views.values()))
    image, target = _pixels(first)
    zoom = window(target)
    panels = [
        Panel(title="image", image=image, target=target, frame=zoom),
        Panel(title="zoom", image=image, window=zoom),
    ]
    for mode, view in reversed(list(case.views.items())):
        step = view.steps[0]
        panels.append(_answer(f"{mode}: IoU {_iou(step, select):.3f}", image, target, step, _chosen(step, select)))
    return PanelRow(f"{case.percentile}th percentile\n{plain(first.case_id)}", panels)


def _answer(title: str, image: Image, target: Mask, step: Step, mask: Mask) -> Panel:
    """Return a panel of one mask, cut to what the target and the mask take."""
    return Panel(
        title=title, image=image, target=target, prediction=mask, prompts=step.prompts, window=window(target, mask)
    )


def _pixels(view: CaseView) -> tuple[Image, Mask]:
    if view.image is None or view.target is None:
        raise ValueError(f"case {view.case_id}: only cases with image and target can be drawn")
    return view.image, view.target


def _chosen(step: Step, select: MaskChoice) -> Mask:
    if step.choice is None:
        raise ValueError(f"case {step.row.case_id}: only cases with masks can be drawn")
    return step.choice.masks[select]


def _iou(step: Step, select: MaskChoice) -> float:
    return float(getattr(step.row, f"iou_{select}"))


def candidates(model: str, cases: Mapping[str, CaseView]) -> Figure:
    """Draw Fig. 7: the candidates of each case (by task) in the order of the model's confidence."""
    rows = [_candidate_row(task, view) for task, view in cases.items()]
    return _grid(f"{plain(model)}: candidates by confidence, of one point", rows)


def _candidate_row(task: str, view: CaseView) -> PanelRow:
    image, target = _pixels(view)
    step = view.steps[0]
    predicted, ious = step.row.predicted_iou or (), step.row.candidate_iou or ()
    order = sorted(range(len(ious)), key=lambda i: -predicted[i])[:CANDIDATES]
    panels = [Panel(title="image", image=image, target=target, prompts=step.prompts)]
    for place, i in zip(_ORDINALS, order, strict=False):
        title = f"{place}: predicted {predicted[i]:.2f}, IoU {ious[i]:.2f}"
        panels.append(_answer(title, image, target, step, step.candidates[i]))
    return PanelRow(f"{plain(task)}\n{plain(view.case_id)}", panels)


def everything(model: str, cases: Mapping[str, Mapping[str, CaseView]]) -> Figure:
    """Draw Fig. 9: all masks of an image for each grid of points; ``cases`` is task -> mode -> the case."""
    grids = sorted({mode for views in cases.values() for mode in views}, key=lambda mode: (len(mode), mode))
    rows = [_everything_row(task, views, grids) for task, views in cases.items()]
    return _grid(f"{plain(model)}: everything in an image, by the number of points", rows)


def _everything_row(task: str, views: Mapping[str, CaseView], grids: Sequence[str]) -> PanelRow:
    first = next(iter(views.values()))
    image, target = _pixels(first)
    panels: list[Panel | None] = [Panel(title="image", image=image, target=target)]
    panels += [_everything_panel(views[mode]) if mode in views else None for mode in grids]
    return PanelRow(f"{plain(task)}\n{plain(first.case_id)}", panels)


def _everything_panel(view: CaseView) -> Panel:
    image, _ = _pixels(view)
    step = view.steps[0]
    masks = sorted((mask for mask in step.candidates if mask.any()), key=lambda mask: -int(mask.sum()))
    points = " ".join(f"{given['grid']} x {given['grid']} points:" for given in json.loads(step.row.prompts))
    title = f"{points} {len(masks)} masks\nbest IoU {_iou(step, 'oracle'):.2f}, coverage {step.row.coverage or 0:.2f}"
    return Panel(title=title, image=image, masks=masks)


# --- drawing ------------------------------------------------------------------------------------------------


def _grid(title: str, rows: Sequence[PanelRow]) -> Figure:
    from matplotlib.figure import Figure

    columns = max(len(row.panels) for row in rows)
    size = (_PANEL * columns + 0.5, (_PANEL + 0.25) * len(rows) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(wrapped(title, size[0], 9), fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, places in zip(rows, axes, strict=True):
        places[0].set_ylabel(wrapped(row.label, _PANEL, 6), fontsize=6)
        for place, panel in zip(places, [*row.panels, *[None] * (columns - len(row.panels))], strict=True):
            if panel is None:
                place.set_axis_off()
            else:
                _panel(place, panel)
    figure.legend(
        handles=_handles([p for row in rows for p in row.panels if p is not None]), loc="outside lower center", ncols=5
    )
    return figure


def wrapped(text: str, inches: float, points: float) -> str:
    """Break lines that are too long for their place: a letter is about 0.6 of its font's size wide."""
    fitting = int(inches * 72 / (0.6 * points))
    return "\n".join(part for line in text.splitlines() for part in _evenly(line, fitting))


def _evenly(line: str, fitting: int) -> list[str]:
    """Break a line into as few parts as fit, as equal in length as its words allow."""
    parts = textwrap.wrap(line, fitting)
    for width in range(max(map(len, line.split()), default=1), fitting):
        narrower = textwrap.wrap(line, width)
        if len(narrower) == len(parts):
            return narrower
    return parts


def _panel(axes: Axes, panel: Panel) -> None:
    axes.imshow(panel.image)
    axes.set_anchor("N")  # images of one row begin at one height, whatever their shape
    axes.set_title(panel.title, fontsize=6.5, pad=3)
    axes.set_xticks(())
    axes.set_yticks(())
    for spine in axes.spines.values():
        spine.set_visible(False)
    for mask, colour in zip(panel.masks, cycle(FILLS)):
        _fill(axes, mask, colour)
        _outline(axes, mask, colour, "solid", width=0.5)
    if panel.target is not None:
        _outline(axes, panel.target, _TARGET, "solid", edge=True)
    if panel.prediction is not None:
        _outline(axes, panel.prediction, _PREDICTION, "dashed", edge=True)
    for prompt in panel.prompts:
        _prompt(axes, prompt)
    if panel.frame is not None:
        _rectangle(axes, panel.frame, "white", "dashed")
    x0, y0, x1, y1 = panel.window or Window(0, 0, panel.image.shape[1] - 1, panel.image.shape[0] - 1)
    axes.set_xlim(x0 - 0.5, x1 + 0.5)
    axes.set_ylim(y1 + 0.5, y0 - 0.5)


def _outline(axes: Axes, mask: Mask, colour: str, style: str, width: float = 1.0, *, edge: bool = False) -> None:
    """Draw the contour of a mask; where it meets the image's edge it runs along the edge.

    A dark ``edge`` makes it visible on an image of its own colour. The edge of a dashed line has the same gaps.
    """
    from matplotlib.patheffects import withStroke

    if mask.any():
        padded = np.pad(mask, 1).astype(np.float32)
        x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        lines = axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width, linestyles=style)
        if edge:
            lines.set_path_effects([withStroke(linewidth=width + 0.6, foreground=BLACK)])


def _fill(axes: Axes, mask: Mask, colour: str) -> None:
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4), dtype=np.float32)
    layer[mask] = to_rgba(colour, 0.4)
    axes.imshow(layer)


def _prompt(axes: Axes, prompt: Prompt) -> None:
    """Draw a prompt: stars for foreground points, crosses for background points, a box with its outermost pixels."""
    for x, y, label in zip(*prompt.points_xy.T, prompt.labels, strict=True):
        axes.plot(
            [x], [y], "*" if label else "X", color=_PROMPT, markeredgecolor=BLACK, markeredgewidth=0.4, markersize=7
        )
    if prompt.box_xyxy is not None:
        _rectangle(axes, prompt.box_xyxy, _PROMPT, "solid")


def _rectangle(axes: Axes, box_xyxy: Sequence[float] | np.ndarray, colour: str, style: str) -> None:
    """Draw the edges of the outermost pixels, on black, so that they are visible on bright and on dark images."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = map(float, box_xyxy)
    for edge, linestyle, width in ((BLACK, "solid", 1.2), (colour, style, 0.8)):
        look: dict[str, Any] = {"fill": False, "edgecolor": edge, "linestyle": linestyle, "linewidth": width}
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, **look))


def _handles(panels: Sequence[Panel]) -> list[object]:
    """Return the handles of a legend for what occurs in some panels."""
    from matplotlib.lines import Line2D

    star = {"linestyle": "none", "marker": "*", "markersize": 7, "markeredgecolor": BLACK, "markeredgewidth": 0.4}
    looks: dict[str, tuple[bool, dict[str, Any]]] = {
        "target": (any(p.target is not None for p in panels), {"color": _TARGET}),
        "prediction": (any(p.prediction is not None for p in panels), {"color": _PREDICTION, "linestyle": "--"}),
        "point": (any(len(q.points_xy) for p in panels for q in p.prompts), {"color": _PROMPT, **star}),
        "box": (any(q.box_xyxy is not None for p in panels for q in p.prompts), {"color": _PROMPT}),
        "zoom": (any(p.frame is not None for p in panels), {"color": GREY, "linestyle": "--", "linewidth": 0.8}),
    }
    return [Line2D([], [], label=label, **look) for label, (occurs, look) in looks.items() if occurs]
