"""Measured against published: the Markdown that `promptseg paper` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.paths import GOLDEN
from typer.testing import CliRunner

from promptseg.cli.main import app
from promptseg.errors import ResultsError
from promptseg.leaderboard import aggregate, paper, paper_report
from promptseg.leaderboard.board import paper_comparison, write_paper_comparison
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.specs import Cell

REPORT = GOLDEN / "paper.md"


def _result(
    cell: Cell, ious: list[tuple[float, float]], *, clicks: int = 0, n_images: int = 2, **about: Any
) -> CellResult:
    """Return a result of (first, oracle) for each case; each further click adds 0.01."""
    rows = tuple(
        ResultRow(
            case_id=f"case_{i}",
            click=click,
            iou_first=first + 0.01 * click,
            iou_confident=first + 0.01 * click,
            iou_oracle=oracle + 0.01 * click,
        )
        for i, (first, oracle) in enumerate(ious)
        for click in (range(1, clicks + 1) if clicks else [0])
    )
    provenance = {
        "protocol": ["paper", 1],
        "seed": 0,
        "dtype": "float32",
        "device": "cuda",
        "device_name": "a GPU",
        "date": "2026-01-31",
        "git_commit": "89abcdef01" * 4,
        "versions": {"python": "3.11.7"},
        "n_images": n_images,
        "model": {"family": "sam"},
        "dataset": {"name": cell.task, "modality": "ct"},
        "mode": {"guide": paper.GUIDES.get(cell.mode)},
        **about,
    }
    return CellResult(
        cell=cell, fingerprint="0", rows=rows, n_examined=len(ious), provenance=Provenance.from_json(provenance)
    )


def _results() -> list[CellResult]:
    """One of everything: modes, both guides, a sample, another seed, a failure, both names of a method, and floors."""
    two = [(0.5, 0.6), (0.7, 0.8)]
    failed = _result(Cell("sam_vit_h", "us_nerve", "point_largest"), two, n_images=3)
    rows = (*failed.rows, ResultRow(case_id="case_9", error="the mask is empty"))
    return [
        CellResult(cell=failed.cell, fingerprint="0", rows=rows, n_examined=3, provenance=failed.provenance),
        _result(Cell("sam_vit_h", "us_kidney", "point_largest"), two),
        _result(Cell("sam_vit_h", "ct_spleen", "point_largest"), two, n_images=41),
        _result(Cell("sam_vit_h", "us_kidney", "box_each"), two, seed=7),
        _result(Cell("sam_vit_h", "mri_breast_whole", "clicks_oracle"), two, clicks=9),
        _result(Cell("sam_vit_h", "ct_organ_bone", "clicks_first"), two, clicks=9),
        _result(Cell("ritm_hrnet32", "us_kidney", "clicks_first"), [(0.5, 0.5)], clicks=9, n_images=1),
        _result(Cell("ritm_hrnet32_paper2023", "us_kidney", "clicks_first"), [(0.4, 0.4)], clicks=9, n_images=1),
        _result(Cell("sam_vit_h", "us_kidney", "clicks_confident"), two, clicks=9),
        _result(Cell("box_fill", "us_kidney", "box_each"), two),
    ]


def _stored(root: Path) -> Path:
    for result in _results():
        ResultStore(root).save(result)
    return root


def _section(text: str, heading: str) -> str:
    return text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]


def test_golden(tmp_path: Path) -> None:
    """The same results give the same text. After a wanted change, run this file, with tests/ on PYTHONPATH."""
    assert paper_comparison(_stored(tmp_path)) == REPORT.read_text(encoding="utf-8")


def test_a_row_by_hand() -> None:
    """Means of 0.6 and 0.7 against the published 0.553 and 0.684, of 4586 cases; D15 bears on US-Kidney."""
    section = _section(paper_report.render(aggregate.build(_results())), "### point_largest (mode 1)")
    [row] = [line for line in section.splitlines() if line.startswith("| us_kidney")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["us_kidney", "2", "4586", "0.600", "0.553", "+0.047", "0.700", "0.684", "+0.016", "D15"]


def test_only_cells_with_a_published_number_are_shown() -> None:
    """Other models, and the guide that the study has no table of, are left out, with their conditions."""
    others = [r for r in _results() if r.cell.model == "box_fill" or r.cell.mode == "clicks_confident"]
    assert [paper_report.is_comparable(r.cell) for r in others] == [False, False]
    text = paper_report.render(aggregate.build(others))
    assert "No result here has a published number" in text
    assert "a GPU" not in text
    assert "- sam_vit_h, point_largest, point_each, box_largest, box_each, box_all, clicks_first" in text


def test_what_is_missing_is_listed_shortly() -> None:
    """By model, modes that lack the same tasks together; what is there is named where that is shorter."""
    cells = [Cell("sam_vit_h", task, mode) for task in paper.tasks() for mode in ("box_all", "box_each")]
    few = [*cells[:4], Cell("sam_vit_h", "us_kidney", "point_each")]
    many = [cell for cell in cells if cell.task not in ("us_nerve", "us_muscle")]
    for chosen, line in (
        (few, "- sam_vit_h, box_each, box_all: all but mri_spine_gm, mri_spine_cord"),
        (few, "- sam_vit_h, point_each: all but us_kidney"),
        (few, "- ritm_hrnet32, clicks_first, clicks_confident, clicks_oracle: all tasks"),
        (many, "- sam_vit_h, box_each, box_all: us_muscle, us_nerve"),
        (cells, "- sam_vit_h, point_largest, point_each, box_largest, clicks_first, clicks_oracle: all tasks"),
    ):
        text = paper_report.render(aggregate.build([_result(cell, [(0.5, 0.5)]) for cell in chosen]))
        assert line in _section(text, "## Not evaluated").splitlines()


def test_a_cell_that_could_not_be_scored_has_no_difference() -> None:
    """It is shown without a number and does not enter the mean of tasks."""
    cell = Cell("sam_vit_h", "us_nerve", "box_all")
    failed = CellResult(
        cell=cell,
        fingerprint="0",
        rows=(ResultRow(case_id="a", error="unreadable"),),
        n_examined=1,
        provenance=_result(cell, [(0.5, 0.5)]).provenance,
    )
    good = [
        _result(Cell("sam_vit_h", task, "box_all"), [(0.5, 0.5)], n_images=1) for task in ("us_kidney", "us_breast")
    ]
    section = _section(paper_report.render(aggregate.build([failed, *good])), "### box_all (mode 5)")
    [row] = [line for line in section.splitlines() if line.startswith("| us_nerve")]
    assert [cell.strip() for cell in row.strip("|").split("|")][1:6] == ["0", "2323", "-", "0.233", "-"]
    assert "1 failed" in row
    assert "*mean of 2 tasks*" in section


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    """Markdown on stdout, or in the file of --output; a folder without results is named."""
    results = _stored(tmp_path / "results")
    printed = CliRunner().invoke(app, ["paper", "--results", str(results)])
    assert (printed.exit_code, printed.stdout) == (0, REPORT.read_text(encoding="utf-8"))
    target = tmp_path / "new" / "paper.md"
    done = CliRunner().invoke(app, ["paper", "--results", str(results), "--output", str(target)])
    assert done.exit_code == 0
    assert str(target) in done.stdout
    assert target.read_bytes() == REPORT.read_bytes()
    missing = CliRunner().invoke(app, ["paper", "--results", str(tmp_path / "nowhere")])
    assert missing.exit_code == 1
    assert f"There is no folder {tmp_path / 'nowhere'}" in missing.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which, and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file/paper.md cannot be written.*Name another --output"):
        write_paper_comparison(tmp_path, tmp_path / "file" / "paper.md")


def test_notes_of_results_cannot_break_out() -> None:
    """Text from a result stays in its cell of the table."""
    hostile = _result(Cell("sam_vit_h", "us_kidney", "box_each"), [(0.5, 0.5)], dtype="a|b<img>\n# c")
    text = paper_report.render(aggregate.build([*_results()[1:4:2], _results()[2], hostile]))
    assert "<img>" not in text
    assert "\n# c" not in text
    assert "a&#124;b" in text


def test_tables_of_disagreements_have_no_stray_columns() -> None:
    """No text in them holds the character that ends a cell."""
    lines = paper_report.disagreements().splitlines()
    assert {line.count("|") for line in lines} == {6}
    assert len(lines) == len(paper.disagreements()) + 2


if __name__ == "__main__":
    REPORT.write_text(
        paper_report.render(aggregate.build([r for r in _results() if paper_report.is_comparable(r.cell)]))
    )
