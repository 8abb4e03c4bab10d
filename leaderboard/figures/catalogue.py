"""The list of figures, and drawing those that the results at hand allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from promptseg.leaderboard.figures import cases, charts, numbers
from promptseg.leaderboard.figures.inputs import Drawn, FigureInputs, Missing
from promptseg.leaderboard.figures.numbers import SIZED_MODES, STUDIED
from promptseg.leaderboard.paper import GUIDES, STATIC


@dataclass(frozen=True)
class Kind:
    """One of the study's figures.

    Attributes:
        title: what it shows.
        needs: the results that it needs, for the message where there are none.
        draw: yields the figures that can be drawn from some inputs, and why others cannot.
    """

    title: str
    needs: str
    draw: Callable[[FigureInputs], Iterator[Drawn | Missing]]


def _modes(inputs: FigureInputs) -> Iterator[Drawn]:
    for model in inputs.models:
        rows = numbers.modes(inputs.results, model)
        if rows:
            yield Drawn(f"fig2_{model}", charts.modes(model, rows))


def _differences(inputs: FigureInputs) -> Iterator[Drawn]:
    model, *rivals = inputs.models if inputs.asked else STUDIED
    rows = numbers.differences(inputs.results, model, rivals)
    if rows:
        yield Drawn("fig4", charts.differences(model, rivals, rows))


def _clicks(inputs: FigureInputs) -> Iterator[Drawn]:
    series = numbers.series(inputs.results, inputs.models)
    if series:
        yield Drawn("fig5", charts.clicks(inputs.models, series))


def _sizes(inputs: FigureInputs) -> Iterator[Drawn]:
    for model in inputs.models:
        tasks = numbers.sized_tasks(inputs.results, model)
        if tasks:
            yield Drawn(f"fig8_{model}", charts.sizes(model, tasks))


KINDS: Mapping[str, Kind] = {
    "fig2": Kind("tasks in the five static modes", f"results in {', '.join(STATIC)}", _modes),
    "fig3": Kind(
        "cases at the 25th, 50th and 75th percentile", f"results in {' or '.join(SIZED_MODES)}", cases.percentiles
    ),
    "fig4": Kind(
        "a model against its rivals, by one point",
        f"results in {' or '.join(GUIDES)} of the first model and of another one, on the same cases",
        _differences,
    ),
    "fig5": Kind("IoU after each click", f"results in {' or '.join(GUIDES)}", _clicks),
    "fig7": Kind(
        "candidates by confidence",
        f"results in {cases.AMBIGUOUS_MODE} of a model with several candidates",
        cases.candidates,
    ),
    "fig8": Kind("size of the objects and IoU", f"results in {' or '.join(SIZED_MODES)}", _sizes),
    "fig9": Kind("everything in an image", f"results in {' or '.join(cases.GRIDS)}", cases.everything),
}


def draw(inputs: FigureInputs, names: Iterable[str]) -> Iterator[Drawn | Missing]:
    """Yield the named figures, and why those that cannot be drawn are missing; call it within `style.settings`."""
    for name in names:
        nothing = True
        for outcome in KINDS[name].draw(inputs):
            nothing = False
            yield outcome
        if nothing:
            asked = f" (models asked for: {', '.join(inputs.asked)})" if inputs.asked else ""
            yield Missing(name, f"there are no {KINDS[name].needs}{asked}")
