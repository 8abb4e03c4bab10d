"""The study's figures: what they show is computed by hand, drawn the same twice, and what is missing is said."""

from __future__ import annotations

import dataclasses
import io
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.project import Project
from typer.testing import CliRunner, Result

from promptseg.cli import main
from promptseg.evaluation import metrics
from promptseg.leaderboard.case_views import CaseView, Step
from promptseg.leaderboard.figures import cases, charts, numbers, pictures
from promptseg.leaderboard.figures.inputs import Drawn, FigureInputs, Missing
from promptseg.leaderboard.figures.numbers import STUDIED, Mark
from promptseg.leaderboard.paper import STATIC
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.segmenter import Prediction, Prompt
from promptseg.specs import Cell, MaskChoice

pytest.importorskip("matplotlib")

from promptseg.leaderboard.figures import style

TOML = ROOT / "leaderboard" / "paper.toml"
SAM, RITM, SIMPLECLICK, FOCALCLICK = STUDIED
CURVES = ("sam_first", "sam_oracle", "ritm", "simpleclick", "focalclick")


def row(case_id: str, first: float, confident: float, oracle: float, **more: Any) -> ResultRow:
    """Return a row with these IoUs, of an object of a tenth of its image."""
    ious = {"iou_first": first, "iou_confident": confident, "iou_oracle": oracle}
    return ResultRow(case_id=case_id, **{"area_fraction": 0.1, **ious, **more})


def result(cell: Cell, rows: Sequence[ResultRow], *, modality: str = "ct", sees_target: bool = False) -> CellResult:
    """Return a result with these rows."""
    about = {"dataset": {"name": cell.task, "modality": modality}, "model": {"sees_target": sees_target}}
    return CellResult(
        cell=cell, fingerprint="0", rows=tuple(rows), n_examined=len(rows), provenance=Provenance.from_json(about)
    )


def near(*numbers: float) -> Any:
    """Return what a tuple of these numbers equals, but for rounding."""
    return pytest.approx(numbers)


def curve(model: str, task: str, values: Sequence[float], select: str = "confident", case: str = "a") -> CellResult:
    """Return a result of a click mode with one case, whose masks all have the same IoU."""
    rows = [row(case, iou, iou, iou, click=click) for click, iou in enumerate(values, 1)]
    return result(Cell(model, task, f"clicks_{select}"), rows)


def toml() -> dict[str, Any]:
    """Return the published tasks, read without the code that the figures use."""
    tasks: dict[str, Any] = tomllib.loads(TOML.read_text(encoding="utf-8"))["tasks"]
    return tasks


# --- numbers ------------------------------------------------------------------------------------------------


def test_modes_are_means_over_scored_cases_by_the_mask_that_counts() -> None:
    """The confident mask of any model, candidate 0 of the study's; a failed case is in no mean."""
    rows = [row("a", 0.2, 0.4, 0.6), row("b", 0.4, 0.8, 1.0), ResultRow(case_id="c", error="unreadable")]
    found = numbers.by_cell(result(Cell(model, "us_kidney", "box_each"), rows) for model in ("mine", SAM))
    [mine] = numbers.modes(found, "mine")
    assert mine.n == {2}
    assert mine.published == {}
    assert mine.measured == {"box_each": near(0.6, 0.8)}
    [sams] = [r for r in numbers.modes(found, SAM) if r.measured]
    assert sams.measured == {"box_each": near(0.3, 0.8)}


def test_tasks_are_ranked_by_mode_4() -> None:
    """In descending order, a task without mode 4 last; equal ones by name."""
    ious = {"low": 0.1, "high": 0.9, "same_b": 0.5, "same_a": 0.5}
    found = [result(Cell("mine", task, "box_each"), [row("a", x, x, x)]) for task, x in ious.items()]
    found.append(result(Cell("mine", "pointed", "point_each"), [row("a", 1, 1, 1)]))
    ranked = [r.task for r in numbers.modes(numbers.by_cell(found), "mine")]
    assert ranked == ["high", "same_a", "same_b", "low", "pointed"]


def test_differences_are_over_the_cases_that_both_have() -> None:
    """After one click: a case that only one of two models has does not count, nor do later clicks."""
    ours = [row("a", 0, 0.5, 0.9, click=1), row("a", 0, 1, 1, click=2), row("b", 0, 0.7, 0.7, click=1)]
    theirs = [row("a", 0, 0.2, 0.3, click=1), row("c", 0, 0.9, 0.9, click=1)]
    cells = Cell("mine", "task", "clicks_confident"), Cell("other", "task", "clicks_oracle")
    found = numbers.by_cell([result(cells[0], ours), result(cells[1], theirs)])
    [only] = numbers.differences(found, "mine", ["other", "absent"])
    assert only.n == {1}
    assert only.measured == {"other": near(0.5 - 0.2, 0.9 - 0.2)}


def test_series_that_are_equal_are_shown_once() -> None:
    """A model with one mask has one curve, whatever guides the clicks."""
    found = [curve("mine", "task", (0.1, 0.3), select) for select in ("first", "confident")]
    found.append(curve("mine", "task", (0.2, 0.6), "oracle"))
    series = numbers.series(numbers.by_cell(found), ["mine"])
    assert [(s.select, s.curves["task"], s.n) for s in series] == [
        ("first", (0.1, 0.3), {"task": 1}),
        ("oracle", (0.2, 0.6), {"task": 1}),
    ]


def test_means_are_over_tasks_that_all_models_have() -> None:
    """Each task counts the same; a published curve is shown only where the study has all of these tasks."""
    found = [
        curve("mine", "us_kidney", (0.2, 0.4)),
        curve("mine", "ct_liver", (0.4, 0.8)),
        curve("mine", "own", (0, 0)),
        curve("other", "us_kidney", (0.1, 0.1)),
        curve("other", "ct_liver", (0.3, 0.5)),
    ]
    series = numbers.series(numbers.by_cell(found), ["mine", "other", RITM])
    shared = numbers.shared_tasks(series)
    assert shared == ["ct_liver", "us_kidney"]
    means = {s.model: s.mean(shared) for s in series}
    assert means["mine"] == pytest.approx((0.3, 0.6))
    assert means["other"] == pytest.approx((0.2, 0.3))
    published = [toml()[task]["ritm"] for task in shared]
    assert means[RITM] == pytest.approx([(a + b) / 2 for a, b in zip(*published, strict=True)])
    own = numbers.series(numbers.by_cell(found[2:3]), ["mine", RITM])
    assert [s.mean(numbers.shared_tasks(own)) for s in own] == [(0, 0), ()]


def test_sizes_are_of_every_case_once() -> None:
    """A case that both modes have counts once; the smallest median first."""
    small = [row("a", 0, 0.5, 1, area_fraction=0.01), row("b", 0, 0.7, 1, area_fraction=0.03)]
    large = [row("a", 0, 0.9, 1, area_fraction=0.5)]
    found = [result(Cell("mine", "small", mode), small) for mode in numbers.SIZED_MODES]
    found.append(result(Cell("mine", "large", "box_each"), large, modality="mri"))
    tasks = numbers.sized_tasks(numbers.by_cell(found), "mine")
    assert [(t.task, t.modality, t.sizes) for t in tasks] == [("small", "ct", (0.01, 0.03)), ("large", "mri", (0.5,))]
    assert tasks[0].mean_size == pytest.approx(0.02)
    assert tasks[0].measured == {"point_each": pytest.approx(0.6), "box_each": pytest.approx(0.6)}
    assert tasks[1].measured == {"box_each": pytest.approx(0.9)}


def test_fit_is_a_line_over_the_logarithm_of_size() -> None:
    """By hand where all points lie on it; as scipy has it where they do not."""
    exact = numbers.fit([0.001, 0.01, 0.1], [0.2, 0.4, 0.6])
    assert exact == pytest.approx((0.2, 0.8, 1.0, 1.0, 3))
    stats = pytest.importorskip("scipy.stats")
    sizes, ious = [0.002, 0.3, 0.04, 0.04, 0.11], [0.3, 0.9, 0.2, 0.8, 0.5]
    found, line = numbers.fit(sizes, ious), stats.linregress(np.log10(sizes), ious)
    assert found is not None
    assert found[:3] == pytest.approx((line.slope, line.intercept, line.rvalue))
    assert found.spearman == pytest.approx(stats.spearmanr(sizes, ious).statistic)


def test_the_line_is_written_in_the_unit_of_its_axis() -> None:
    """IoU 0.2, 0.4, 0.6 of objects of 0.1, 1 and 10 %: at 1 %, where the logarithm is 0, the line is at 0.4."""
    sizes = {"a": (0.001, 0.2), "b": (0.01, 0.4), "c": (0.1, 0.6)}
    found = [
        result(Cell("mine", t, "box_each"), [row("1", 0, iou, 1, area_fraction=s)]) for t, (s, iou) in sizes.items()
    ]
    with style.settings():
        figure = charts.sizes("mine", numbers.sized_tasks(numbers.by_cell(found), "mine"))
    [panel] = [axes for axes in figure.get_axes() if axes.get_title().startswith("box_each")]
    assert "measured: IoU = 0.20 log10(size in %) + 0.40\n" in panel.get_title()
    line = next(line for line in panel.get_lines() if line.get_linestyle() == "-")
    assert np.allclose(line.get_xydata(), [[0.1, 0.2], [10, 0.6]])


@pytest.mark.parametrize("sizes", [[], [0.1, 0.2], [0.1, 0.1, 0.1]])
def test_no_line_through_too_few_points(sizes: list[float]) -> None:
    """Two points always lie on one, equal sizes on none."""
    assert numbers.fit(sizes, [0.5 + size for size in sizes]) is None


def test_percentile_cases_are_by_nearest_rank() -> None:
    """Of four cases the first, second and third, as 0.25 * 4 = 1; of one case that one, three times."""
    assert numbers.percentile_cases({"d": 0.9, "b": 0.4, "c": 0.6, "a": 0.1}, (25, 50, 75, 100)) == ["a", "b", "c", "d"]
    assert numbers.percentile_cases({"b": 0.5, "a": 0.5}, (50,)) == ["a"]
    assert numbers.percentile_cases({"d": 0.9}, (25, 50, 75)) == ["d"] * 3
    assert numbers.percentile_cases({}, (25, 50, 75)) == []


def test_most_ambiguous_case_has_the_widest_span() -> None:
    """Of the IoUs of its candidates; a case with one candidate, or without confidences, has none."""
    several = {"predicted_iou": [0.9, 0.8, 0.7]}
    rows = [
        row("narrow", 0, 0, 0, candidate_iou=[0.4, 0.5, 0.45], **several),
        row("wide", 0, 0, 0, candidate_iou=[0.2, 0.9, 0.5], **several),
        row("alone", 0, 0, 0, candidate_iou=[0.9], predicted_iou=[0.9]),
        row("unsure", 0, 0, 0, candidate_iou=[0.0, 1.0]),
    ]
    cell = Cell("mine", "task", "point_largest")
    widest = numbers.most_ambiguous(result(cell, rows))
    assert widest is not None
    assert widest[0] == "wide"
    assert widest[1] == pytest.approx(0.7)
    assert numbers.most_ambiguous(result(cell, rows[2:])) is None


def test_models_that_are_shown_the_target_have_no_place() -> None:
    """As on the board."""
    assert numbers.by_cell([result(Cell("perfect", "task", "box_each"), [], sees_target=True)]) == {}


# --- published ----------------------------------------------------------------------------------------------


def test_published_modes_are_those_of_the_file() -> None:
    """All 28 tasks, five modes, by candidate 0 and by oracle; no other model has them."""
    rows = {r.task: r.published for r in numbers.modes({}, SAM)}
    assert rows == {
        task: dict(zip(STATIC, map(Mark, entry["modes_first"], entry["modes_oracle"]), strict=True))
        for task, entry in toml().items()
    }
    assert numbers.modes({}, RITM) == ()


def test_published_curves_are_those_of_the_file() -> None:
    """SAM by two guides and each rival, all tasks."""
    keys: dict[tuple[str, MaskChoice], str] = {(SAM, "first"): "sam_first", (SAM, "oracle"): "sam_oracle"}
    keys |= {(RITM, "first"): "ritm", (SIMPLECLICK, "first"): "simpleclick", (FOCALCLICK, "first"): "focalclick"}
    found = {(s.model, s.select): s for s in numbers.series({}, STUDIED)}
    assert found.keys() == keys.keys()
    for name, key in keys.items():
        assert found[name].curves == {task: tuple(entry[key]) for task, entry in toml().items()}


def test_published_curves_belong_to_the_models_as_the_study_ran_them() -> None:
    """Not to the same methods as their authors run them."""
    authors = RITM.removesuffix("_paper2023")
    assert numbers.series({}, [authors]) == ()
    assert numbers.differences({}, SAM, [authors]) == ()


def test_published_differences_say_what_the_study_says() -> None:
    """SAM is better than all others on 24 of 28 tasks, by oracle on 26 (section 3.2)."""
    rows = numbers.differences({}, SAM, STUDIED[1:])
    assert len(rows) == 28
    assert sum(all(mark.value > 0 for mark in r.published.values()) for r in rows) == 24
    assert sum(all((mark.oracle or 0) > 0 for mark in r.published.values()) for r in rows) == 26
    largest = [max(mark.value for mark in r.published.values()) for r in rows]
    assert largest == sorted(largest, reverse=True)


def drawn_values(figure: Any) -> set[float]:
    """Return all x and y of marks and lines in a figure, to six digits."""
    lines = [line for axes in figure.get_axes() for line in axes.get_lines()]
    return {round(float(v), 6) for line in lines for v in np.ravel(line.get_xydata()) if np.isfinite(v)}


def test_published_values_are_drawn() -> None:
    """Figures 2 and 5 hold every published number that belongs into them."""
    with style.settings():
        modes = drawn_values(charts.modes(SAM, numbers.modes({}, SAM)))
        clicks = drawn_values(charts.clicks(STUDIED, numbers.series({}, STUDIED)))
    entries = toml()
    assert entries
    for entry in entries.values():
        assert modes.issuperset([*entry["modes_first"], *entry["modes_oracle"]])
        assert clicks.issuperset(v for key, values in entry.items() if key in CURVES for v in values)


def test_samples_are_marked() -> None:
    """A part of a data set's images is no full score, in any figure that shows a mean."""
    ious = [row("a", 0.3, 0.5, 0.7)]
    found = [result(Cell("mine", "own", mode), ious) for mode in STATIC]
    found += [curve("mine", "own", (0.2, 0.5)), curve("other", "own", (0.1, 0.3))]
    for n_images, marked in ((1, False), (3, True)):
        whole = [
            dataclasses.replace(r, provenance=Provenance.from_json({**r.provenance.json, "n_images": n_images}))
            for r in found
        ]
        cells = numbers.by_cell(whole)
        drawn = [
            charts.modes("mine", numbers.modes(cells, "mine")),
            charts.differences("mine", ["other"], numbers.differences(cells, "mine", ["other"])),
            charts.clicks(["mine", "other"], numbers.series(cells, ["mine", "other"])),
            charts.sizes("mine", numbers.sized_tasks(cells, "mine")),
        ]
        for figure in drawn:
            words = [text.get_text() for axes in figure.get_axes() for text in _texts(axes)]
            assert any("sample" in word for word in words) == marked, words


# --- drawing ------------------------------------------------------------------------------------------------


def a_case(case_id: str = "case") -> CaseView:
    """Return a case of 40 x 60 pixels: a point in a box, two candidates, and a target that the second one meets.

    It serves as a case of a grid too, which the row says.
    """
    target = np.zeros((40, 60), np.bool_)
    target[10:20, 30:45] = True
    masks = np.stack([np.ones_like(target), target])
    ious = {"predicted_iou": [0.5, 0.9], "candidate_iou": [0.0625, 1.0], "coverage": 1.0}
    step = Step(
        row=row(case_id, 0.1, 1, 1, prompts='[{"grid": 32}]', **ious),
        prompts=(Prompt(np.array([[35, 15]], np.float32), np.array([1]), np.array([30, 10, 44, 19], np.float32)),),
        predictions=(Prediction(masks, np.array([0.5, 0.9], np.float32)),),
    )
    step = dataclasses.replace(step, choice=metrics.choose(step.predictions, target))
    image = np.repeat(np.arange(40 * 60, dtype=np.uint16).reshape(40, 60, 1) % 255, 3, axis=2).astype(np.uint8)
    return CaseView(case_id=case_id, image=image, target=target, steps=(step,))


def test_windows_are_squares_around_masks() -> None:
    """Of half as much again as the longer side; moved into the image at its edges, and cut where it is smaller."""
    mask = np.zeros((200, 300), np.bool_)
    mask[80:100, 140:180] = True  # 20 x 40, hence 60 x 60
    assert pictures.window(mask) == (130, 60, 189, 119)
    edge = np.zeros((200, 300), np.bool_)
    edge[0, 0] = True  # at least 24 x 24
    assert pictures.window(edge) == (0, 0, 23, 23)
    assert pictures.window(mask, edge) == (0, 0, 269, 199)


def every_figure(task: str = "own", model: str = "mine", case_id: str = "case") -> dict[str, Any]:
    """Return each figure of small made-up results, by name."""
    ious = [row(case_id, 0.3, 0.5, 0.7, candidate_iou=[0.3, 0.5], predicted_iou=[0.1, 0.9])]
    found = [result(Cell(model, task, mode), ious, modality=task) for mode in STATIC]
    found += [curve(model, task, (0.2, 0.5, 0.7)), curve("other", task, (0.1, 0.3, 0.2))]
    cells, models = numbers.by_cell(found), [model, "other", *STUDIED]
    case = a_case(case_id)
    views = {"box_each": case, "point_each": case}
    return {
        "fig2": charts.modes(model, numbers.modes(cells, model)),
        "fig3": pictures.percentiles(model, task, "1 case", "confident", [pictures.PercentileCase(50, views)]),
        "fig4": charts.differences(model, ["other"], numbers.differences(cells, model, ["other"])),
        "fig5": charts.clicks(models, numbers.series(cells, [model, "other"])),
        "fig7": pictures.candidates(model, {task: case}),
        "fig8": charts.sizes(model, numbers.sized_tasks(cells, model)),
        "fig9": pictures.everything(model, {task: {"everything": case, "everything_64": case}}),
    }


def test_equal_numbers_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of file of every figure, whatever settings of matplotlib's the user has."""
    import matplotlib

    monkeypatch.setattr(style, "_PNG_DPI", 40)  # the pixels of a smaller picture are as telling
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "savefig.transparent": True}):
        for folder in ("one", "two"):
            with style.settings():
                for name, figure in every_figure().items():
                    style.save(figure, tmp_path / folder, name)
            matplotlib.rcParams["font.size"] = 5
        assert matplotlib.rcParams["font.size"] == 5  # settings leave the user's alone
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert len(files) == 14
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert not any(b"Date" in content or b"date>" in content for content in files.values())


def test_titles_stay_inside_the_figure() -> None:
    """However long the names of model and task are, which have no spaces to break at."""
    figure = every_figure(model="m" * 40, task="sample_of_a_data_set_with_a_long_name")["fig3"]
    figure.draw_without_rendering()
    [title] = [text for text in figure.texts if "percentiles" in text.get_text()]
    extent = title.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width


def test_long_titles_are_broken_evenly() -> None:
    """No word stands alone on the last line; a word that is too long for its place is cut."""
    assert pictures.wrapped("percentiles of IoU by box_each, n = 20 cases", 3, 9) == (
        "percentiles of IoU by\nbox_each, n = 20 cases"
    )
    assert pictures.wrapped("one line", 3, 9) == "one line"
    assert pictures.wrapped("x" * 50, 3, 9) == f"{'x' * 40}\n{'x' * 10}"


def test_a_panel_without_results_says_so() -> None:
    """Figure 8 of a model that was evaluated in mode 4 alone."""
    found = [result(Cell("mine", "t", "box_each"), [row("a", 0, 0.5, 0)])]
    figure = charts.sizes("mine", numbers.sized_tasks(numbers.by_cell(found), "mine"))
    texts = {axes.get_title().split(" ")[0]: [t.get_text() for t in axes.texts] for axes in figure.axes}
    assert texts["point_each"] == ["no results"]
    assert "no results" not in texts["box_each"]


@pytest.mark.parametrize(
    "names",
    [
        ("$\\frac{1$", "<script>alert(1)</script>&", "a\nb\x1b[31m\x00"),
        ("x" * 300, "\N{CJK UNIFIED IDEOGRAPH-809D} \N{ANATOMICAL HEART}", "$x$"),
        ("_nolegend_", "&amp;", ""),
    ],
)
def test_hostile_names_are_text(names: tuple[str, str, str]) -> None:
    """No mathematics, no markup, no control characters; the SVG stays well-formed and nothing warns."""
    with style.settings():
        figures = every_figure(*names)
        assert len(figures) == 7
        for figure in figures.values():
            written = io.BytesIO()
            figure.savefig(written, format="svg")
            tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(written.getvalue()).iter()}  # noqa: S314 - our own file
            assert "svg" in tags
            assert "script" not in tags


def test_names_are_cut_to_one_short_line() -> None:
    """What is too long loses its middle: the beginnings of names are often the same."""
    assert style.plain(" a\n\tb\x07 $c$ ") == "a b $c$"
    assert style.plain("x" * 40) == "x" * 40
    assert style.plain("abcdefgh", 6) == "ab…fgh"


def test_labels_of_28_tasks_do_not_overlap() -> None:
    """In the figures that name all tasks, no label of an axis and no title touches another."""
    with style.settings():
        figures = [
            charts.modes(SAM, numbers.modes({}, SAM)),
            charts.differences(SAM, STUDIED[1:], numbers.differences({}, SAM, STUDIED[1:])),
            charts.clicks(STUDIED, numbers.series({}, STUDIED)),
        ]
        for figure in figures:
            figure.draw_without_rendering()
            texts = [text for axes in figure.get_axes() if axes.get_visible() for text in _texts(axes)]
            boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
            assert len(boxes) > 28
            touching = [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])]
            assert touching == []


def _texts(axes: Any) -> list[Any]:
    from matplotlib.text import Text

    ticks = [text for axis in (axes.xaxis, axes.yaxis) if axis.get_visible() for text in axis.get_ticklabels()]
    titles = [text for text in axes.get_children() if isinstance(text, Text) and text not in axes.texts]
    return [text for text in (*ticks, *titles, axes.xaxis.label, axes.yaxis.label) if text.get_visible()]


# --- chosen cases -------------------------------------------------------------------------------------------


class Views:
    """Stored cases that are all there, or all lack the same thing; keeps which were asked for."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.asked: list[tuple[str, list[str]]] = []

    def inputs(self, results: Sequence[CellResult]) -> FigureInputs:
        """Return what figures are made of."""
        opened: Any = self._open
        return FigureInputs(results=numbers.by_cell(results), views=opened, asked=["mine"])

    def _open(self, result: CellResult) -> Any:
        views, cell = self, result.cell

        class OfCell:
            def views(self, case_ids: list[str]) -> list[CaseView]:
                views.asked.append((cell.id, list(case_ids)))
                problems = (views.problem,) if views.problem else ()
                return [dataclasses.replace(a_case(case), problems=problems) for case in case_ids]

        return OfCell()


def test_percentiles_are_of_cases_in_both_modes() -> None:
    """Ranked by mode 4 among the cases that mode 2 has too."""
    boxes = [row(case, 0, iou, 0) for case, iou in (("a", 0.9), ("b", 0.8), ("c", 0.3), ("d", 0.1))]
    points = [row(case, 0, 0.5, 0) for case in "abc"]
    found = [result(Cell("mine", "t", "box_each"), boxes), result(Cell("mine", "t", "point_each"), points)]
    views = Views()
    [drawn] = cases.percentiles(views.inputs(found))
    assert isinstance(drawn, Drawn)
    assert drawn.name == "fig3_mine_t"
    assert drawn.figure.get_suptitle().endswith("percentiles of IoU by box_each, n = 3 cases")
    assert views.asked == [("mine-t-box_each", ["c", "b", "a"]), ("mine-t-point_each", ["c", "b", "a"])]


def test_most_ambiguous_cases_come_first() -> None:
    """At most five tasks on a page."""
    scores = {"predicted_iou": [0.9, 0.1]}
    rows = {f"t{i}": row("case", 0, 0, 0, candidate_iou=[0.1 * i, 0.0], **scores) for i in range(7)}
    views = Views()
    found = [result(Cell("mine", task, cases.AMBIGUOUS_MODE), [one]) for task, one in rows.items()]
    [drawn] = cases.candidates(views.inputs(found))
    assert isinstance(drawn, Drawn)
    assert [cell for cell, _ in views.asked] == [f"mine-t{i}-point_largest" for i in (6, 5, 4, 3, 2)]


def test_everything_is_shown_once_for_a_data_set() -> None:
    """The case in the middle, with each grid that it was evaluated with."""
    rows = [row(case, 0, 0, iou) for case, iou in (("a", 0.9), ("b", 0.2), ("c", 0.5))]
    found = [result(Cell("mine", task, "everything"), rows) for task in ("one", "two")]
    found = [dataclasses.replace(r, provenance=Provenance.from_json({"dataset": {"name": "shared"}})) for r in found]
    found += [
        result(Cell("mine", "one", "everything_64"), rows),
        result(Cell("mine", "one", "everything_128"), rows[:1]),
    ]
    views = Views()
    [drawn] = cases.everything(views.inputs(found))
    assert isinstance(drawn, Drawn)
    assert views.asked == [("mine-one-everything", ["c"]), ("mine-one-everything_64", ["c"])]
    titles = [axes.get_title() for axes in drawn.figure.get_axes()]
    assert titles[:2] == ["image", "32 x 32 points: 2 masks\nbest IoU 1.00, coverage 1.00"]


def test_candidates_are_in_the_order_of_confidence() -> None:
    """The second one, of which the model is surer, comes first, with its own IoU."""
    with style.settings():
        figure = pictures.candidates("mine", {"task": a_case()})
    titles = [axes.get_title() for axes in figure.get_axes()]
    assert titles == ["image", "1st: predicted 0.90, IoU 1.00", "2nd: predicted 0.50, IoU 0.06"]


def test_masks_are_seen_on_images_of_their_colour() -> None:
    """Target and prediction have a dark edge; of two images of one row, whatever their shapes, the tops are level."""
    with style.settings():
        figure = charts_of_a_case()
        figure.draw_without_rendering()
    panels = figure.get_axes()
    assert [sum(bool(c.get_path_effects()) for c in axes.collections) for axes in panels] == [1, 0, 2, 2]
    assert len({round(axes.get_window_extent().y1, 3) for axes in panels}) == 1
    assert panels[0].get_window_extent().height < panels[1].get_window_extent().height


def charts_of_a_case() -> Any:
    """Return Figure 3 of one case of 40 x 60 pixels."""
    views = {"box_each": a_case(), "point_each": a_case()}
    return pictures.percentiles("mine", "task", "1 case", "confident", [pictures.PercentileCase(50, views)])


def test_what_is_in_the_way_is_told_once() -> None:
    """With the first cells that it concerns, and how many more."""
    found = [result(Cell("mine", f"t{i}", "box_each"), [row("a", 0, 0, 0)]) for i in range(5)]
    told = list(cases.percentiles(Views("No masks.").inputs(found)))
    assert told == [Missing("fig3", "No masks (mine-t0-box_each, mine-t1-box_each, mine-t2-box_each and 2 more)")]


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run the command in, and an empty results folder in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "results").mkdir()
    return tmp_path


def run(*words: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main.app, ["figures", *words], catch_exceptions=False)


def test_without_results_the_published_values_are_drawn(folder: Path) -> None:
    """Figures 2, 4 and 5; the others say what they need, and that is no error."""
    done = run("results")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("fig2_sam_vit_h", "fig4", "fig5") for kind in ("svg", "png")}
    assert "fig8: not drawn: there are no results in point_each or box_each." in done.output
    for name in ("fig3", "fig7", "fig9"):
        assert f"{name}: not drawn: there are no results in" in done.output


def test_nothing_to_draw_is_exit_code_1(folder: Path) -> None:
    """With the reason."""
    done = run("results", "--only", "fig8")
    assert done.exit_code == 1
    assert "fig8: not drawn: there are no results in" in done.output
    assert not (folder / "figures").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("results", "--only", "fig6"), 2, "Unknown figure 'fig6'. Did you mean"),
        (("results", "--models", "sam_vit_g"), 2, "Unknown model 'sam_vit_g'. Did you mean 'sam_vit_h'?"),
        (("results", "--only", ","), 2, "--only: must be a comma-separated list of names"),
        (("nowhere",), 1, "There is no folder"),
    ],
)
def test_wrong_usage_is_told(folder: Path, words: tuple[str, ...], code: int, message: str) -> None:
    """Unknown names with suggestions."""
    done = run(*words)
    assert done.exit_code == code
    assert message in " ".join(done.output.replace("│", " ").split())


def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    """With the way out."""
    (folder / "taken").write_text("a file")
    done = run("results", "--only", "fig4", "--output", "taken")
    assert done.exit_code == 1
    assert "Name another --output" in done.output


def test_matplotlib_is_asked_for_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message is the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = run("results")
    assert done.exit_code == 1
    assert "pip install 'pytest-promptseg[figures]'" in done.output


def test_models_are_compared_as_asked(folder: Path) -> None:
    """Figure 4 takes the first of --models against the others, and the published values of others are left out."""
    store = ResultStore(folder / "results")
    for name, values in {"mine": (0.5, 0.6), "other": (0.2, 0.9)}.items():
        store.save(curve(name, "own", values))
    done = run("results", "--only", "fig2,fig4,fig5", "--models", "mine,other")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (folder / "figures").glob("*.svg")) == ["fig4.svg", "fig5.svg"]
    assert "fig2: not drawn: there are no results in point_largest, " in done.output
    assert run("results", "--only", "fig4", "--models", "mine").exit_code == 1


RUN = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "point_largest,point_each,box_each")


def test_cases_are_drawn_from_what_a_run_left(project: Project) -> None:
    """Percentiles and candidates, with the images and the masks that were saved."""
    pytest.importorskip("pycocotools")
    project.run(*RUN, "--seg-save-masks")
    done = run("--only", "fig3,fig7")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (project.pytester.path / "figures").glob("*.svg")}
    assert names == {"fig3_bright_squares.svg", "fig7_bright.svg"}


def test_masks_that_were_not_saved_are_told_once(project: Project) -> None:
    """With the option that saves them, and the cells that lack them."""
    project.run(*RUN)
    done = run("--only", "fig3,fig7")
    assert done.exit_code == 1
    assert "fig3: not drawn: Its masks were not saved: run pytest again with --seg-save-masks (" in done.output
    assert "fig7: not drawn: Its masks were not saved" in done.output
    assert done.output.count("fig3") == 1
