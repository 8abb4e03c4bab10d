"""The report without a browser: which cases are drawn, what pages say, and that equal results give equal bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.site_results import CLICKS, STATIC, evaluate, known
from typer.testing import CliRunner

from promptseg.cli import main
from promptseg.errors import ResultsError
from promptseg.evaluation import metrics
from promptseg.leaderboard.case_views import CaseView, Step
from promptseg.leaderboard.site import content, pictures
from promptseg.leaderboard.site.build import Plan, build
from promptseg.registry.entries import Registry
from promptseg.results.masks import SavedMask
from promptseg.results.parquet import write_parquet
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.segmenter import Prediction
from promptseg.specs import Cell
from promptseg.verdicts import baselines
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.thresholds import Threshold

coco = pytest.importorskip("pycocotools.mask")
pytest.importorskip("jinja2")


def data_of(path: Path) -> Any:
    """Return what a script of the site holds."""
    return json.loads(path.read_text().removeprefix("promptseg.data = ").removesuffix(";\n"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Path]:
    """Return a registry and a results folder with two cells."""
    folder = tmp_path_factory.mktemp("report")
    found = known(folder, 0.2)
    evaluate(found, folder / "results", STATIC, CLICKS, limit=5)
    return found, folder / "results"


def planned(evaluated: tuple[Registry, Path], **more: Any) -> Plan:
    """Return a plan for these results."""
    return Plan(**{"registry": evaluated[0], "results": evaluated[1], "thresholds": {}, "cases": 24, **more})


def test_the_same_results_give_the_same_bytes(evaluated: tuple[Registry, Path], tmp_path: Path) -> None:
    """Two builds agree in every file, and a third that replaces the first agrees too."""
    plan = planned(evaluated, baseline=Baseline("before", evaluated[1]))
    for name in ("one", "two", "one"):
        build(plan, tmp_path / name)
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "two")
    )
    assert len(one) > 15
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_what_is_drawn_is_what_was_evaluated(evaluated: tuple[Registry, Path], tmp_path: Path) -> None:
    """The masks of a page, decoded by COCO's tools, have the IoU that the run found; prompts are those of the rows."""
    built = build(planned(evaluated), tmp_path / "site")
    assert (built.cells, built.pictures, built.problems) == (2, 10, {})
    assert built.size == sum(p.stat().st_size for p in (tmp_path / "site").rglob("*") if p.is_file())
    page = data_of(tmp_path / "site/cells/blob-phantom_ct-clicks_confident.js")
    assert len(page["pictures"]) == 5
    for picture in page["pictures"]:
        height, width = picture["shown"]
        assert (tmp_path / "site/images" / picture["image"]).is_file()
        assert [step["click"] for step in picture["steps"]] == list(range(1, 10))
        for step in picture["steps"]:
            masks = [{"size": [height, width], "counts": runs} for runs in (*step["masks"], picture["target"])]
            found = coco.iou(masks[:-1], masks[-1:], [0])[:, 0]
            assert found[step["layers"]["confident"]] == pytest.approx(step["iou"]["confident"], abs=1e-4)
            assert np.allclose(found[step["candidates"]], step["candidate_iou"], atol=1e-4)
            assert step["predicted_iou"] == [0.5, 0.9, 0.1]


def test_a_bounded_number_of_cases_is_drawn() -> None:
    """Half of them the worst, then the best, and some spread over all ranks and sizes; all where there are few."""
    values = {f"c{i:03}": i / 999 for i in range(1000)}
    sizes = {case: (7 * i) % 1000 for i, case in enumerate(values)}
    chosen = pictures.select(values, sizes, 24)
    assert len(chosen) == 24
    assert chosen[:12] == [f"c{i:03}" for i in range(12)]
    assert set(chosen) >= {"c999", "c998", "c997", "c996", "c333", "c666"}
    assert {sizes[case] for case in chosen} >= {0, 333, 666, 999}
    assert pictures.select(values, sizes, 0) == []
    assert pictures.select({"b": 0.1, "a": 0.2}, {"b": 1.0, "a": 2.0}, 24) == ["a", "b"]


def test_large_images_are_made_smaller() -> None:
    """A mask gets the size of its picture, and does not vanish there."""
    mask = np.zeros((1024, 2048), dtype=bool)
    mask[3, 5] = True
    saved = SavedMask(
        case_id="a",
        click=0,
        prompt=0,
        candidate=0,
        height=256,
        width=512,
        counts=pictures.runs(mask),
        predicted_iou=None,
    )
    assert np.argwhere(saved.mask()).tolist() == [[0, 1]]


def test_names_of_pages() -> None:
    """A cell's id where it is a plain name; anything else is made one that no other cell has."""
    assert content.page_name(CLICKS) == "blob-phantom_ct-clicks_confident"
    names = {content.page_name(Cell(model, "t", "m")) for model in ("../up", "__/up", "a" * 300, "A", "a", 'x"onload=')}
    assert len(names) == 6
    assert all(re.fullmatch(r"[a-z0-9_-]{1,120}", name) for name in names)


def test_names_in_headings_break_behind_underscores_and_are_escaped(tmp_path: Path) -> None:
    """As text: what a name holds of markup stays text."""
    cell = Cell("a_b<wbr>", "t_u", "m")
    write_parquet(tmp_path / "results" / cell.model / "t_u" / "m.parquet", result(scored([0.4, 0.6]), cell))
    build(Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site")
    page = (tmp_path / f"site/cells/{content.page_name(cell)}.html").read_text()
    assert '<h1>a_<wbr>b&lt;wbr&gt; <span class="on">on</span> t_<wbr>u<' in page


def result(rows: list[ResultRow], cell: Cell = STATIC, n_images: int = 0) -> CellResult:
    """Return a result of these rows on the whole of a data set that nobody knows."""
    about = {"n_images": n_images or len(rows), "dataset": {"name": "nobody_knows", "modality": "ct"}, "seed": 0}
    return CellResult(
        cell=cell, fingerprint="f" * 64, rows=tuple(rows), n_examined=len(rows), provenance=Provenance.from_json(about)
    )


def scored(values: list[float]) -> list[ResultRow]:
    """Return rows with these IoUs, the oracle's a tenth higher."""
    return [
        ResultRow(
            case_id=f"c{i}",
            iou_first=v,
            iou_confident=v,
            iou_oracle=v + 0.1,
            area_fraction=0.01 * (i + 1),
            n_components=1,
        )
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("value", "select", "n", "outcome", "words"),
    [
        (0.5, "confident", None, "reached", "confident mask 0.500, at least 0.500 (a test)"),
        (0.51, "confident", None, "missed", "confident mask 0.500, below 0.510 (a test)"),
        (0.6, "oracle", None, "reached", "oracle mask 0.600, at least 0.600 (a test)"),
        (0.5, "confident", 3, "none", "scored 0.500 on 2 cases, the threshold (a test) speaks of 3"),
    ],
)
def test_the_board_has_the_verdict_of_the_test(
    tmp_path: Path, value: float, select: Any, n: int | None, outcome: str, words: str
) -> None:
    """As pytest would say it: under the mask that the threshold speaks of, and of the number of cases it speaks of."""
    write_parquet(tmp_path / "results/blob/phantom_ct/box_each.parquet", result(scored([0.4, 0.6])))
    threshold = Threshold(value=value, select=select, tolerance=0.0, source="a test", n=n)
    plan = Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={STATIC: threshold}, cases=24)
    build(plan, tmp_path / "site")
    board = data_of(tmp_path / "site/board.js")
    assert (board["verdict"], board["why"]) == ([outcome], [words])
    assert (board["iou"], board["n"], board["modality"]) == ([0.5], [2], ["ct"])
    assert board["floor"] == [False]


def test_cases_of_a_page(tmp_path: Path) -> None:
    """Sorted by id, sizes in percent; a failed case has an error and no numbers; empty columns are left out."""
    rows = [*scored([0.25, 0.75]), dataclasses.replace(ResultRow(case_id="c9"), error="out of patience")]
    assert content.case_columns(rows, "confident") == {
        "id": ["c0", "c1", "c9"],
        "size": [1.0, 2.0, None],
        "parts": [1, 1, None],
        "confident": [0.25, 0.75, None],
        "oracle": [0.35, 0.85, None],
        "error": [None, None, "out of patience"],
    }


def test_sizes_of_tiny_objects() -> None:
    """Four digits of whatever size: one pixel of 4096 x 4096 is not 0 %."""
    assert (content.percent(1 / 4096**2), content.percent(0.123456), content.percent(0)) == (5.96e-06, 12.35, 0)


def test_distributions() -> None:
    """IoUs count from 0 to 1; differences to both sides of a bin in whose middle nothing changed."""
    ious = content.of_ious([0.0, 0.04, 0.05, 1.0])
    assert (ious.counts[:2], ious.counts[-1], ious.cumulated[1], ious.cumulated[-1]) == ([2, 1], 1, 0.75, 1.0)
    changes = content.of_differences([0.0, 0.0, -0.15])
    assert (changes.low, changes.high, changes.counts[10], sum(changes.counts[:10])) == (-0.2, 0.2, 2, 1)
    assert content.of_differences([]).high == 0.05


def test_what_cannot_be_drawn_is_reported(tmp_path: Path) -> None:
    """Without the data set and without masks there is a page all the same, and the reasons are on it."""
    write_parquet(tmp_path / "results/blob/phantom_ct/box_each.parquet", result(scored([0.4, 0.6])))
    (tmp_path / "results/blob/phantom_ct/noise.parquet").write_bytes(b"noise")
    built = build(
        Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site"
    )
    assert (built.cells, built.pictures, len(built.problems)) == (1, 0, 2)
    page = (tmp_path / "site/cells/blob-phantom_ct-box_each.html").read_text()
    assert "The data set nobody_knows is not registered on this machine." in page
    assert "--seg-save-masks" in page
    assert "noise.parquet is no readable result" in (tmp_path / "site/index.html").read_text()


@pytest.mark.parametrize("rows", [[], [ResultRow(case_id="a", error="out of patience")]], ids=["none", "failed"])
def test_a_cell_without_a_score_has_a_page(tmp_path: Path, rows: list[ResultRow]) -> None:
    """No case belongs to the task, or all of them failed: the board and the page say so."""
    write_parquet(tmp_path / "results/blob/phantom_ct/box_each.parquet", result(rows))
    build(Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site")
    assert "No case was scored." in (tmp_path / "site/cells/blob-phantom_ct-box_each.html").read_text()
    board = data_of(tmp_path / "site/board.js")
    assert (board["iou"], board["failed"], board["why"]) == ([None], [len(rows)], ["no case was scored"])


def test_masks_of_a_baseline_are_those_its_run_left(tmp_path: Path) -> None:
    """A baseline keeps no masks; both runs are drawn all the same while they lie in the results folder."""
    evaluate(known(tmp_path, 0.05), tmp_path / "results", STATIC, limit=2)
    baseline = baselines.save("main", tmp_path / "results", tmp_path / "baselines")
    found = known(tmp_path, 0.2)
    evaluate(found, tmp_path / "results", STATIC, limit=2)
    built = build(planned((found, tmp_path / "results"), baseline=baseline), tmp_path / "site")
    page = data_of(tmp_path / "site/compare/blob-phantom_ct-box_each.js")
    assert built.problems == {}
    assert [sorted(picture["steps"][0]["layers"]) for picture in page["pictures"]] == [["after", "before"]] * 2
    assert all(len(picture["steps"][0]["masks"]) >= 2 for picture in page["pictures"])


def test_of_many_candidates_only_the_mask_that_counts_is_drawn(tmp_path: Path) -> None:
    """Modes that segment everything find hundreds; their number is shown."""
    masks = np.zeros((12, 8, 9), dtype=bool)
    for i, mask in enumerate(masks):
        mask[i % 8, 1:5] = True
    target, prediction = masks[3], Prediction(masks)
    choice = metrics.choose((prediction,), target)
    step = Step(row=ResultRow(case_id="a", iou_oracle=1.0), prompts=(), predictions=(prediction,), choice=choice)
    view = CaseView(case_id="a", image=None, target=target, steps=(step,))
    layers = [[layer for layer in pictures.choices(step) if layer.name == "oracle"]]
    drawing = pictures.draw(view, layers, pictures.Gallery(tmp_path), "none", ())
    assert drawing is not None
    (drawn,) = drawing["steps"]
    assert (drawn["of"], drawn["candidates"], drawn["layers"], drawn["iou"]) == (12, [], {"oracle": 0}, {"oracle": 1.0})
    assert drawn["masks"] == [drawing["target"]]
    assert drawing["box"] == [round(1 / 9, 4), 0.375, round(5 / 9, 4), 0.5]


# --- the command --------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    """Run the command; return exit code and what it said."""
    done = CliRunner().invoke(main.app, ["report", *words])
    return done.exit_code, done.output


def test_the_command_says_what_it_wrote(evaluated: tuple[Registry, Path], tmp_path: Path) -> None:
    """Where, how large, how much of it is drawn, and what to mind."""
    code, said = run(str(evaluated[1]), "--output", str(tmp_path / "site"), "--cases", "2")
    assert code == 0, said
    assert re.search(r"report \(2 cells, 4 cases drawn, [0-9.]+ kB\): .*site/index\.html\n", said)
    assert "mind their licences" in said


def test_typical_mistakes(evaluated: tuple[Registry, Path], tmp_path: Path) -> None:
    """No results, a folder that is not ours, an unknown baseline: each is named, and nothing is lost."""
    code, said = run(str(tmp_path / "nowhere"))
    assert (code, "There is no folder" in said) == (1, True)
    (tmp_path / "empty").mkdir()
    code, said = run(str(tmp_path / "empty"), "--output", str(tmp_path / "site"))
    assert (code, "holds no results that can be shown" in said) == (1, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    code, said = run(str(evaluated[1]), "--output", str(tmp_path / "mine"))
    assert (code, "is not a report, so it stays as it is" in said) == (1, True)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    code, said = run(str(evaluated[1]), "--output", str(tmp_path / "site"), "--baseline", "mian")
    assert (code, "There is no baseline 'mian'" in said) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_without_its_packages_the_command_says_which_to_install(
    evaluated: tuple[Registry, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named, and nothing is written."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, said = run(str(evaluated[1]), "--output", str(tmp_path / "site"))
    assert (code, "needs the package jinja2: pip install 'pytest-promptseg[report]'" in said) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_report(evaluated: tuple[Registry, Path], tmp_path: Path) -> None:
    """What was there stays until all of the new one is written."""
    build(planned(evaluated), tmp_path / "site")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError):
        build(planned(evaluated, results=tmp_path / "empty"), tmp_path / "site")
    assert (tmp_path / "site/index.html").is_file()
