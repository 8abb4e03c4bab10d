"""The Markdown of the leaderboard: readable, stable, and safe from what it shows."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.board_results import result as made
from support.paths import GOLDEN

from promptseg.errors import ResultsError
from promptseg.leaderboard import aggregate
from promptseg.leaderboard.board import read_board, write_leaderboard
from promptseg.leaderboard.render import render
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.specs import Cell
from promptseg.text import escape

BOARD = GOLDEN / "leaderboard.md"
HOSTILE = "a|b `c` <img src=x onerror=alert(1)> [x](javascript:y)\n# *d* ~~e~~ $f$ _g_ \\| &amp; ![i](j)"
_DATA = {
    "us_kidney": {"name": "us_kidney", "modality": "ultrasound", "licence": "GPL-2.0", "repo": "org/kidneys"},
    "ct_spleen": {"name": "ct_spleen", "modality": "ct", "licence": "CC-BY-SA-4.0"},
}
_MODELS: dict[str, dict[str, Any]] = {
    "box_fill": {"family": "floor", "licence": "Apache-2.0", "training_data": []},
    "sam_vit_b": {
        "family": "sam",
        "licence": "Apache-2.0",
        "repo": "org/sam",
        "revision": "0123456789" * 4,
        "sha256": {"checkpoint": "ec2d" * 16},
        "training_data": ["sa_1b"],
    },
    "my_sam": {"family": "sam", "licence": "MIT", "training_data": ["us_kidney", "sa_med2d_20m"]},
    "their_sam": {"family": "sam", "licence": "MIT", "training_data": None},
}


def _rows(ious: list[tuple[float, float, float]], clicks: int) -> tuple[ResultRow, ...]:
    """Return two cases of each patient; each further click adds 0.01."""
    return tuple(
        ResultRow(
            case_id=f"case_{i}",
            subject_id=f"patient_{i // 2}",
            click=click,
            iou_first=first + 0.01 * click,
            iou_confident=confident + 0.01 * click,
            iou_oracle=oracle + 0.01 * click,
        )
        for i, (first, confident, oracle) in enumerate(ious)
        for click in (range(1, clicks + 1) if clicks else [0])
    )


def _result(cell: Cell, rows: tuple[ResultRow, ...], n_images: int = 20, **about: Any) -> CellResult:
    provenance = {
        "protocol": ["paper", 1],
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "device_name": "x86_64",
        "date": "2026-01-31",
        "git_commit": "89abcdef01" * 4,
        "versions": {"python": "3.11.7", "torch": "2.9.0"},
        "n_images": n_images,
        "model": {"provider": "pytest-promptseg 0.1.0", **_MODELS[cell.model]},
        "dataset": {"fingerprint": "5eed" * 16, **_DATA[cell.task]},
        "mode": {"guide": "first" if cell.mode == "clicks_first" else None},
    }
    examined = len({row.case_id for row in rows})
    return CellResult(
        cell=cell,
        fingerprint="0",
        rows=rows,
        n_examined=examined,
        provenance=Provenance.from_json({**provenance, **about}),
    )


def _results() -> list[CellResult]:
    """A small board with everything that can be on one: a sample, failures, another seed, floors, clicks, seen data."""
    floor = [(v, v, v) for v in (0.4, 0.5, 0.55, 0.6)] * 5
    model = [(0.3, 0.5, 0.6), (0.5, 0.7, 0.8), (0.6, 0.6, 0.7), (0.7, 0.8, 0.9)] * 5
    worse = [(first, confident - 0.05 + 0.02 * (i % 3), oracle) for i, (first, confident, oracle) in enumerate(model)]
    other = [(first, confident + 0.04 * (-1) ** (i // 3), oracle) for i, (first, confident, oracle) in enumerate(model)]
    failed = (*_rows(model, 0)[:19], ResultRow(case_id="case_19", error="the mask is empty"))
    return [
        _result(Cell("box_fill", "us_kidney", "box_all"), _rows(floor, 0)),
        _result(Cell("box_fill", "ct_spleen", "box_all"), _rows(floor, 0)),
        _result(Cell("sam_vit_b", "us_kidney", "box_all"), _rows(model, 0)),
        _result(Cell("sam_vit_b", "ct_spleen", "box_all"), failed),
        _result(Cell("sam_vit_b", "us_kidney", "point_largest"), _rows(model[:2], 0), seed=7),
        _result(Cell("sam_vit_b", "us_kidney", "clicks_first"), _rows(model, 9)),
        _result(Cell("my_sam", "us_kidney", "box_all"), _rows(worse, 0)),
        _result(Cell("my_sam", "ct_spleen", "box_all"), _rows(worse, 0)),
        _result(Cell("their_sam", "us_kidney", "box_all"), _rows(other, 0)),
    ]


def _stored(root: Path, results: list[CellResult]) -> Path:
    for result in results:
        ResultStore(root).save(result)
    return root


def test_golden(tmp_path: Path) -> None:
    """The same results give the same bytes. After a wanted change, run this file, with tests/ on PYTHONPATH."""
    target = tmp_path / "new folder" / "LEADERBOARD.md"
    assert len(write_leaderboard([_stored(tmp_path / "results", _results())], target).entries) == 9
    assert target.read_bytes() == BOARD.read_bytes()


def test_the_order_of_results_does_not_matter() -> None:
    """The board is a function of what the results are, not of how they are listed."""
    assert render(aggregate.build(reversed(_results()))) == BOARD.read_text(encoding="utf-8")


def test_no_results_says_how_to_get_some(tmp_path: Path) -> None:
    """An empty or missing results folder gives a board that says so."""
    target = tmp_path / "LEADERBOARD.md"
    assert write_leaderboard([tmp_path / "missing"], target).entries == ()
    assert "No results yet" in target.read_text(encoding="utf-8")


def test_unreadable_and_copied_files_are_named(tmp_path: Path) -> None:
    """A corrupt file and a copy under another name are listed as left out; the rest is shown."""
    root = _stored(tmp_path, _results()[:1])
    good = root / "box_fill" / "us_kidney" / "box_all.parquet"
    good.with_name("box_each.parquet").write_bytes(good.read_bytes())
    good.with_name("cut.parquet").write_bytes(good.read_bytes()[:200])
    board = read_board([root])
    assert len(board.entries) == 1
    text = render(board)
    assert "box_fill/us_kidney/cut.parquet is no readable result" in text
    assert "box_fill/us_kidney/box_each.parquet holds the result of box_fill-us_kidney-box_all" in text
    good.unlink()
    assert "No results yet" in (alone := render(read_board([root])))
    assert "cut.parquet" in alone


def test_no_table_is_empty() -> None:
    """Many tasks are shown in tables by modality; where nobody has a row, neither table nor title is there."""
    ious = {f"p{i}": 0.1 * i for i in range(9)}
    tasks = [(f"ct_{i}", "ct") for i in range(4)] + [(f"mri_{i}", "mri") for i in range(4)]
    found = [
        made(f"box_fill-{task}-box_all", ious, model={"family": "floor"}, dataset={"name": task, "modality": modality})
        for task, modality in tasks
    ]
    found += [made(f"mine-{task}-box_all", ious, dataset={"name": task, "modality": "ct"}) for task, _ in tasks[:4]]
    text = render(aggregate.build(found))
    assert text.count("**ct**") == 3
    assert text.count("**mri**") == 2  # scores and choices of mask, but no ranks of a floor alone
    assert re.findall(r"\|[-:|]+\|\n(?!\|)", text) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the file, says that results are safe, and how to write elsewhere."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file/LEADERBOARD.md cannot be written.*--output PATH"):
        write_leaderboard([tmp_path / "results"], tmp_path / "file" / "LEADERBOARD.md")


def test_many_tasks_are_split_by_modality_and_then_evenly() -> None:
    """No table has more than five tasks; small modalities share one, large ones are cut into nearly equal parts."""
    modality = ["ct"] * 11 + ["mri"] * 2 + ["pet"] + ["xray"] * 5
    text = render(aggregate.build([_renamed(f"task_{i:02d}", name) for i, name in enumerate(modality)]))
    section = text.split("### box_all by task")[1]
    headers = [line for line in section.splitlines() if line.startswith("| model") and "task" in line]
    assert [header.count("task_") for header in headers] == [4, 3, 4, 3, 5]
    titles = re.findall(r"^\*\*(.*)\*\*$", section, re.MULTILINE)
    assert titles == ["ct (1 of 3)", "ct (2 of 3)", "ct (3 of 3)", "mri, pet", "xray"]


def _renamed(task: str, modality: str) -> CellResult:
    result = _result(Cell("box_fill", "ct_spleen", "box_all"), _rows([(0.5, 0.5, 0.5)], 0))
    about = {**result.provenance.json, "dataset": {**_DATA["ct_spleen"], "modality": modality}}
    return dataclasses.replace(result, cell=Cell("box_fill", task, "box_all"), provenance=Provenance.from_json(about))


def test_many_modes_are_split_into_static_and_clicks() -> None:
    """A summary of more than six modes has a table for the static ones and one for the clicks."""
    modes = ["point_largest", "point_each", "box_largest", "box_each", "box_all"]
    static = [_result(Cell("box_fill", "us_kidney", mode), _rows([(0.5, 0.5, 0.5)], 0)) for mode in modes]
    clicks = [
        _result(Cell("box_fill", "us_kidney", mode), _rows([(0.5, 0.5, 0.5)], 2))
        for mode in ("clicks_first", "clicks_oracle")
    ]
    summary = render(aggregate.build([*static, *clicks])).split("## Summary")[1].split("\n## ")[0]
    headers = [line for line in summary.splitlines() if line.startswith("| model")]
    assert [len(re.findall(r"\w+", header)) - 1 for header in headers] == [5, 2]


def test_noc_is_shown_with_its_failures() -> None:
    """Mean clicks over the cases that reach each IoU, and how many do not; a mode of nine clicks has no such table."""
    rises = _rows([(0.5, 0.65, 0.7), (0.5, 0.75, 0.8)], 20)  # by 0.01 a click: to 0.85 and to 0.95
    board = aggregate.build([_result(Cell("sam_vit_b", "us_kidney", "noc"), rises), _results()[5]])
    text = render(board)
    table = text.split("### noc: mean clicks to IoU 0.80 / 0.85 / 0.90")[1].split("\n\n")[1]
    assert "| 10.0 / 15.0 / 15.0 (0 / 0 / 1 failed) |" in table
    assert text.count("mean clicks to IoU") == 1


def test_everything_is_shown_by_its_best_mask_and_by_coverage() -> None:
    """The oracle counts; the surest mask of an image means nothing for a target, and is not shown."""
    rows = tuple(
        dataclasses.replace(row, coverage=coverage)
        for row, coverage in zip(_rows([(0.0, 0.0, 0.6), (0.0, 0.0, 0.8)], 0), (0.5, 1.0), strict=True)
    )
    result = _result(Cell("sam_vit_b", "us_kidney", "everything"), rows, mode={"guide": None, "select": "oracle"})
    section = render(aggregate.build([result])).split("## everything", 1)[1].split("\n## ")[0]
    assert "Of all masks of an image the one that fits a target best counts" in section
    assert "| sam_vit_b |       0.700 |" in section
    assert "### everything: part of the target that any mask covers" in section
    assert "| sam_vit_b |       0.750 |" in section
    assert "choice of mask" not in section


def test_warnings_stand_before_any_number() -> None:
    """How many cells are out of date, which models could not be checked, and what is in conflict."""
    results = _results()
    changes = {results[0].cell: ("scoring code",), results[7].cell: None}
    text = render(aggregate.build(results, changes, conflicts={results[2].cell: ["m: other | scores"]}))
    introduction = text.split("## Summary")[0]
    assert "**1 of 9 cells out of date**" in introduction
    assert "**1 cell in conflict**: see [Conflicts](#conflicts)." in introduction
    assert "] out of date: another scoring code now" in text
    assert "] in conflict: another result of the same evaluation has other scores" in text
    assert "## Conflicts" in text
    assert "- m: other &#124; scores" in text
    assert "cannot be told here: my_sam." in text


def test_cells_without_a_number_say_why() -> None:
    """A cell whose cases all failed says how many, one without cases says so."""
    failed = tuple(ResultRow(case_id=f"case_{i}", error="unreadable") for i in range(3))
    text = render(
        aggregate.build(
            [
                _result(Cell("box_fill", "us_kidney", "box_all"), failed),
                _result(Cell("box_fill", "ct_spleen", "box_all"), ()),
            ]
        )
    )
    assert "3 failed" in text
    assert "no cases" in text


def test_text_from_plugins_cannot_break_out() -> None:
    """A hostile name or licence is shown as it is: no markup, no HTML, no further columns or rows."""
    result = _results()[2]
    about = {**result.provenance.json, "device_name": HOSTILE, "seed": HOSTILE}
    about["model"] = {**about["model"], "licence": HOSTILE, "family": HOSTILE}
    about["dataset"] = {**about["dataset"], "modality": HOSTILE}
    hostile = CellResult(
        cell=Cell(HOSTILE, HOSTILE, HOSTILE),
        fingerprint="0",
        rows=result.rows,
        n_examined=4,
        provenance=Provenance.from_json(about),
    )
    text = render(aggregate.build([*_results(), hostile]))
    assert "<img" not in text
    assert "](" not in text
    assert "alert(1)" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1


@given(st.text())
@example(HOSTILE)
@example("snake_case _em_ __strong__ 1_000")
def test_escape_keeps_the_text_and_nothing_else(text: str) -> None:
    """No character with a meaning is left, and reading the entities back gives the text on one line."""
    escaped = escape(text)
    assert not re.search(r"[\\`*\[\]<>|~$!\n\r]", escaped)
    assert not re.search(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", escaped)
    assert not re.search(r"&(?!#\d+;)", escaped)
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), escaped) == plain
    assert html.unescape(escaped) == plain or not escaped.isascii()


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789"), st.text(alphabet="abcxyz019", min_size=1))
def test_escape_leaves_names_alone(first: str, second: str) -> None:
    """Names of tasks and models stay readable in the source."""
    name = f"a{first}_{second}"
    assert escape(name) == name


if __name__ == "__main__":
    BOARD.write_text(render(aggregate.build(_results())), encoding="utf-8")
