"""Results that promptseg wrote before 0.2.0: refused in one line, and nothing of them is changed or averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.old_results import (
    write_old_baseline,
    write_old_file,
    write_old_journal,
    write_old_results,
    write_old_submission,
)
from support.project import Project
from support.stored_results import CELL, A, result
from typer.testing import CliRunner

from promptseg.cli import main
from promptseg.errors import ConfigError, ResultsError
from promptseg.leaderboard import submission
from promptseg.leaderboard.board import read_results
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.store import OldResultsError, ResultStore, read_all, refuse_old, result_files
from promptseg.specs import Cell
from promptseg.verdicts import baselines

CELLS = CELL, Cell("minisam", "us_kidney", "box_all"), Cell("box_fill", "phantom_ct", "box_all")
SQUARES = Cell("bright", "squares", "box_all")
RUN = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all,box_each")
OLD = "written by promptseg before 0.2.0, which this version does not read; nothing in it was changed."
REMEDY = "Move the folder away or name another with --seg-results, then run the same command again."


def content(root: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write_old_speed(root: Path, cell: Cell) -> Path:
    """Write a file where 0.1.0 kept figures of speed."""
    path = root / cell.model / "speed" / "x86_64_2_threads-float32.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda root: write_old_results(root, *CELLS),
        lambda root: write_old_baseline(root, *CELLS),
        lambda root: write_old_file(root / "minisam/us_kidney/box_each.parquet", CELL, digest=False),
        lambda root: write_old_journal(root, CELL),
        lambda root: write_old_speed(root, CELL),
    ],
    ids=["results", "latest alone", "without digest", "journal alone", "speed alone"],
)
def test_an_old_folder_is_refused_by_all_who_read_one(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """One error for the folder, whatever of 0.1.0 is in it, with what to do; it stays as it is."""
    root = tmp_path / "results"
    write(root)
    before = content(root)
    message = f"{root} holds results {OLD} {REMEDY}"
    for read in (refuse_old, result_files, lambda root: list(read_all(root)), read_results, submission.found):
        with pytest.raises(OldResultsError) as caught:
            read(root)
        assert str(caught.value) == message
    assert content(root) == before


def test_an_old_file_among_new_ones_refuses_the_folder(tmp_path: Path) -> None:
    """Nothing is averaged from the others as if they were all."""
    store = ResultStore(tmp_path)
    store.save(result())
    write_old_file(tmp_path / "z" / "t" / "box_all.parquet", Cell("z", "t", "box_all"))
    for read in (lambda root: list(read_all(root)), read_results):
        with pytest.raises(OldResultsError, match=r"written by promptseg before 0\.2\.0"):
            read(tmp_path)


def test_an_old_file_is_never_replaced(tmp_path: Path) -> None:
    """Where a result of its cell is to be stored."""
    path = write_old_file(tmp_path / "minisam/us_kidney/box_each.parquet", CELL)
    before = content(tmp_path)
    store = ResultStore(tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: store.check(CELL),
        lambda: store.load(CELL, A),
        lambda: store.save(result()),
    ]
    for attempt in attempts:
        with pytest.raises(ResultsError, match=r"box_each\.parquet was written by promptseg before 0\.2\.0.* away"):
            attempt()
    assert content(tmp_path) == before
    with pytest.raises(ResultsError, match=r"before 0\.2\.0"):
        read_parquet(path)


def test_folders_of_other_things_are_not_taken_for_old(tmp_path: Path) -> None:
    """Masks of a data set, somebody's history, an empty folder, and new results beside them."""
    for name in ("data/kidney/masks/a.png", "a/b/history/notes.txt", "app/speed/car.json", "a/b/c.journal"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    write_parquet(tmp_path / "minisam/us_kidney/box_each.parquet", result())
    refuse_old(tmp_path)
    refuse_old(tmp_path / "nowhere")


# --- baselines and submissions ------------------------------------------------------------------------------


def ask(*words: object) -> tuple[int, list[str]]:
    """Run the command; return its exit code and the lines it printed."""
    done = CliRunner().invoke(main.app, [str(word) for word in words])
    return done.exit_code, [line for line in done.output.splitlines() if line.strip()]


def test_an_old_baseline_is_refused(tmp_path: Path) -> None:
    """By whoever names it; the others are listed all the same."""
    folder = tmp_path / "baselines"
    old = write_old_baseline(folder / "old", *CELLS)
    ResultStore(tmp_path / "results").save(result())
    baselines.save("new", tmp_path / "results", folder)
    before = content(old)
    with pytest.raises(ConfigError) as caught:
        baselines.locate("old", folder)
    assert str(caught.value) == (
        f"Baseline 'old': {old} was {OLD} Run again what it holds, and keep that as a baseline."
    )
    code, lines = ask("baseline", "list", "--folder", folder)
    assert code == 0
    assert sum("before 0.2.0" in line for line in lines) == 1
    assert [line.split()[0] for line in lines if line.startswith("new")] == ["new"]
    assert content(old) == before


@pytest.mark.parametrize(
    "command",
    [
        ("leaderboard", "OLD", "--output", "OUT"),
        ("paper", "--results", "OLD"),
        ("report", "OLD", "--output", "OUT"),
        ("figures", "OLD", "--output", "OUT"),
        ("submit", "OLD", "--output", "OUT"),
        ("verify", "OLD"),
        ("baseline", "save", "again", "--results", "OLD"),
        ("compare", "OLD", "OLD"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("what", ["results", "a submission"])
def test_every_command_refuses_old_results_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], what: str
) -> None:
    """Exit code 1 and nothing written."""
    monkeypatch.chdir(tmp_path)
    write = write_old_results if what == "results" else write_old_submission
    before = content(write(tmp_path / "old", *CELLS))
    words = [{"OLD": str(tmp_path / "old"), "OUT": str(tmp_path / "out")}.get(word, word) for word in command]
    code, lines = ask(*words)
    assert code == 1
    assert sum("before 0.2.0" in line for line in lines) == 1
    assert len(lines) == 1
    assert content(tmp_path / "old") == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "leaderboard"] == ["old"]


# --- a run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_run_is_refused_once_and_not_for_each_cell(project: Project, more: tuple[str, ...]) -> None:
    """Before anything is evaluated; with another folder, or after the folder was moved, the same command runs."""
    results = write_old_results(project.pytester.path / "leaderboard" / "results", SQUARES, *CELLS)
    before = content(results)
    refused = project.run(*RUN, *more, code=pytest.ExitCode.USAGE_ERROR)
    said = refused.stdout.str() + refused.stderr.str()
    assert said.count(f"holds results {OLD} {REMEDY}") == 1
    assert "INTERNALERROR" not in said
    assert "Traceback" not in said
    assert content(results) == before
    assert project.calls("embed") == []
    if not more:
        project.run(*RUN, "--seg-results", "others", code=0)
    results.rename(project.pytester.path / "away")
    project.run(*RUN, *more, code=0)


def test_runs_that_ask_for_no_cell_are_not_refused(project: Project) -> None:
    """A project's own tests, and collecting."""
    write_old_results(project.pytester.path / "leaderboard" / "results", SQUARES)
    project.run(*RUN, "--collect-only", "-q", code=0)
    project.pytester.makepyfile(test_own="def test_own():\n    assert True\n")
    assert project.pytester.runpytest_subprocess("test_own.py").ret == 0


def test_an_old_baseline_refuses_the_run(project: Project) -> None:
    """As a baseline that is not there does."""
    write_old_baseline(project.pytester.path / "leaderboard" / "baselines" / "main", SQUARES)
    refused = project.run(*RUN, "--seg-baseline", "main", code=pytest.ExitCode.USAGE_ERROR)
    assert (refused.stdout.str() + refused.stderr.str()).count("before 0.2.0") == 1


def test_one_old_file_fails_its_cell_alone(project: Project) -> None:
    """Copied into a folder of new results: named, and left where it is."""
    project.run(*RUN, code=0)
    latest = project.pytester.path / "leaderboard/results/bright/squares/box_each.parquet"
    latest.unlink()
    write_old_file(latest, Cell("bright", "squares", "box_each"))
    before = latest.read_bytes()
    scores = project.scores(*RUN)
    assert scores["bright-squares-box_all"]["n"] == 10
    assert "box_each.parquet was written by promptseg before 0.2.0" in scores["bright-squares-box_each"]["reason"]
    assert latest.read_bytes() == before
