"""Baselines and ``promptseg compare`` as a user meets them: what is kept, what is said, and the exit codes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.paired_results import BASE, CELL, changed, minus, result
from typer.testing import CliRunner, Result

from promptseg.cli import main
from promptseg.errors import ConfigError, ResultsError
from promptseg.results.rows import CellResult
from promptseg.results.store import ResultStore
from promptseg.specs import Cell
from promptseg.verdicts import baselines


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    """Run the command in this process; an exception that is not an exit is an error of the test."""
    return CliRunner().invoke(main.app, words, catch_exceptions=False)


def stored(folder: str, *results: CellResult) -> Path:
    """Store results in a folder as an evaluation does."""
    root = Path(folder)
    for found in results:
        ResultStore(root).save(found)
    return root


def other_cell(found: CellResult, mode: str) -> CellResult:
    """Return the same result under another prompt mode."""
    return dataclasses.replace(found, cell=Cell(CELL.model, CELL.task, mode))


# --- keeping and finding ------------------------------------------------------------------------------------


def test_save_keeps_the_latest_results_and_nothing_else() -> None:
    """Histories and journals stay where they are; the copy stays as it is when results change."""
    stored("leaderboard/results", result(BASE), other_cell(result(BASE), "box_all"))
    saved = run("baseline", "save", "main")
    assert saved.exit_code == 0
    assert saved.stdout.startswith("baseline main (2 cells): ")
    root = Path("leaderboard/baselines/main")
    kept = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert kept == ["minisam/us_kidney/box_all.parquet", "minisam/us_kidney/box_each.parquet"]
    stored("leaderboard/results", minus(0.1))
    assert baselines.Baseline("main", root).result(CELL) == result(BASE)
    assert [path.name for path in root.parent.iterdir()] == ["main"]


def test_a_name_is_taken_once() -> None:
    """A baseline is never replaced without a word."""
    stored("leaderboard/results", result(BASE))
    assert run("baseline", "save", "main").exit_code == 0
    again = run("baseline", "save", "main")
    assert again.exit_code == 1
    assert "There is a baseline 'main' already" in again.stderr


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "two words"])
def test_a_name_is_no_path(name: str) -> None:
    """What could leave the folder, or hide in it, is refused."""
    stored("leaderboard/results", result(BASE))
    found = run("baseline", "save", name)
    assert found.exit_code == 1
    assert "A baseline's name is letters, digits" in found.stderr


def test_a_baseline_needs_readable_results(tmp_path: Path) -> None:
    """Without results, or with one that is torn, nothing is kept, and the reason is said."""
    assert "There is no folder" in run("baseline", "save", "main").stderr
    (tmp_path / "empty").mkdir()
    assert "holds no results" in run("baseline", "save", "main", "--results", "empty").stderr
    root = stored("torn", result(BASE), other_cell(result(BASE), "box_all"))
    (root / CELL.model / CELL.task / "box_each.parquet").write_bytes(b"PAR1")
    torn = run("baseline", "save", "main", "--results", "torn")
    assert torn.exit_code == 1
    assert "box_each.parquet is not a readable result" in torn.stderr
    assert list(Path("leaderboard/baselines").iterdir()) == []


def test_a_copied_file_is_no_result_of_another_cell() -> None:
    """A result under another cell's name would be compared with what it is not."""
    root = stored("run", result(BASE))
    source = root / CELL.model / CELL.task / "box_each.parquet"
    source.rename(source.with_name("box_all.parquet"))
    with pytest.raises(ResultsError, match=r"box_all\.parquet holds the result of minisam-us_kidney-box_each"):
        baselines.Baseline("run", root).result(Cell(CELL.model, CELL.task, "box_all"))


def test_a_reference_is_a_name_or_a_folder(tmp_path: Path) -> None:
    """A name wins over a folder of that name; a folder may be relative to any of the bases, or absolute."""
    named, here = stored("baselines/main", result(BASE)), stored("main", minus(0.1))
    folder = tmp_path / "baselines"
    assert baselines.locate("main", folder, tmp_path).root == tmp_path / named
    assert baselines.locate("./main", tmp_path / "none", tmp_path / "other", tmp_path).root == tmp_path / here
    assert baselines.locate(str(tmp_path / "main"), folder).root == tmp_path / here
    with pytest.raises(ConfigError, match=r"no baseline 'mian'.*\(there: main\).*promptseg baseline save"):
        baselines.locate("mian", folder, tmp_path)
    (tmp_path / "baselines/empty").mkdir()
    with pytest.raises(ConfigError, match=r"'empty'.* holds no results"):
        baselines.locate("empty", folder)


def test_list_and_show_tell_how_a_baseline_was_made() -> None:
    """Number of cells, conditions, revision, weights and fingerprint, and the mean of each cell."""
    stored("leaderboard/results", result(BASE))
    run("baseline", "save", "main")
    assert run("baseline", "list").stdout.splitlines()[1].split()[:6] == ["main", "1", "paper", "1", "0", "float32"]
    text = run("baseline", "show", "main").stdout
    assert "model minisam, revision 222222222222, weights checkpoint 111111111111" in text
    assert "data set us_kidney, fingerprint ffffffffffff" in text
    assert text.splitlines()[-1].split() == ["minisam-us_kidney-box_each", "20", "0.6900"]
    assert run("baseline", "show", "mian").exit_code == 1


# --- compare ------------------------------------------------------------------------------------------------


def test_compare_by_its_exit_code() -> None:
    """0 for equal and better runs, 1 for a worse one; the tolerance is the user's."""
    stored("a", minus(0))
    stored("b", minus(0.05, noise=0.5))
    assert run("compare", "a", "a").exit_code == 0
    assert run("compare", "b", "a").exit_code == 0
    assert run("compare", "a", "b").exit_code == 1
    assert run("compare", "a", "b", "--max-drop", "0.1").exit_code == 0


def test_compare_shows_each_cell_and_the_worst_cases() -> None:
    """Failures first, with n, means, difference, p and Holm's p, and verdict; then the cases that lost most."""
    stored("a", minus(0), other_cell(minus(0), "box_all"), other_cell(minus(0), "point_each"))
    stored("b", minus(0.05, noise=0.5), other_cell(minus(0), "box_all"), other_cell(minus(0), "noc"))
    lines = run("compare", "a", "b").stdout.splitlines()
    assert "2 cells: 1 fail, 1 pass." in lines
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| minisam")]
    first, second = table[:2]
    assert first[:5] == ["minisam-us_kidney-box_each", "20", "0.6900", "0.6400", "-0.0500"]
    assert first[6:8] == ["0.0001", "0.0002"]
    assert first[-1] == "fail"
    assert [second[0], second[4], second[-1]] == ["minisam-us_kidney-box_all", "+0.0000", "pass"]
    assert any(line.startswith("- fail: minisam on us_kidney, box_each, against baseline a: worse") for line in lines)
    assert [row[0] for row in table[2:]] == ["minisam-us_kidney-box_each"] * 3
    assert {row[4] for row in table[2:]} == {"-0.0750"}
    assert "Missing, which fails: minisam-us_kidney-point_each" in lines
    assert "Only after: minisam-us_kidney-noc" in lines


def test_compare_writes_json_and_markdown(tmp_path: Path) -> None:
    """The same numbers, with every cell's verdict; equal runs give equal files."""
    stored("a", minus(0))
    stored("b", minus(0.05, noise=0.5))
    files = ("--json", "out/c.json", "--output", "out/c.md")
    assert run("compare", "a", "b", *files).exit_code == 1
    document = json.loads((tmp_path / "out/c.json").read_text())
    [cell] = document["cells"]
    assert (document["before"], document["after"], document["fails"]) == ("a", "b", True)
    assert (cell["model"], cell["verdict"], cell["p_holm"]) == ("minisam", "fail", 0.0001)
    assert cell["detectable_drop"] == pytest.approx(2 * 2.093 * (0.025 / 19**0.5 + 6 * 0.025 / 20), abs=1e-4)
    text = (tmp_path / "out/c.md").read_bytes()
    run("compare", "a", "b", *files)
    assert (tmp_path / "out/c.md").read_bytes() == text


def test_a_cell_that_vanished_fails_unless_it_may() -> None:
    """A run that lost a cell must not look green; a part of one is allowed by option; new cells are fine."""
    stored("a", minus(0), other_cell(minus(0), "box_all"))
    stored("b", minus(0))
    vanished = run("compare", "a", "b")
    assert vanished.exit_code == 1
    assert "Missing, which fails: minisam-us_kidney-box_all" in vanished.stdout
    allowed = run("compare", "a", "b", "--allow-missing")
    assert allowed.exit_code == 0
    assert "Only before: minisam-us_kidney-box_all" in allowed.stdout
    assert run("compare", "b", "a").exit_code == 0


def test_compare_refuses_what_cannot_be_compared() -> None:
    """Exit code 1 with the reason; and without a common cell there is nothing to compare."""
    stored("a", result(BASE, changed("dtype", None, "bfloat16")))
    stored("b", result(BASE))
    refused = run("compare", "a", "b")
    assert refused.exit_code == 1
    assert "1 cells: 1 refused." in refused.stdout
    assert "dtype float32, in the baseline bfloat16" in refused.stdout
    stored("c", other_cell(result(BASE), "box_all"))
    nothing = run("compare", "a", "c")
    assert nothing.exit_code == 1
    assert "a and c have no cell in common" in nothing.stderr


def test_compare_gates_strata() -> None:
    """By option; an unknown kind is wrong usage."""
    sizes = [float(i >= 10) for i in range(20)]
    before = [iou - 0.2 for iou in BASE]
    after = [iou - 0.2 * (i < 7) + 0.27 * (i >= 14) for i, iou in enumerate(before)]
    stored("a", result(before * 3, area_fraction=sizes * 3))
    stored("b", result(after * 3, area_fraction=sizes * 3))
    assert run("compare", "a", "b").exit_code == 0
    found = run("compare", "a", "b", "--strata", "size")
    assert found.exit_code == 1
    assert "fail: minisam on us_kidney, box_each, against baseline a: small objects: worse" in found.stdout
    assert run("compare", "a", "b", "--strata", "colour").exit_code == 2


def test_text_of_results_does_not_break_the_markdown() -> None:
    """Case ids come from data sets: a bar or a tag in one is shown, not obeyed."""
    ids = ["<b>|x", *[f"c{i}" for i in range(1, 20)]]
    stored("a", result(BASE, case_id=ids))
    stored("b", result([0.0, *BASE[1:]], case_id=ids))
    text = run("compare", "a", "b").stdout
    assert "&#60;b&#62;&#124;x" in text
    assert "<b>" not in text
