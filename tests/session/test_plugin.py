"""The plugin as a user meets it: selection, skips, failures, thresholds, resuming, JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.inside import run_inside
from support.project import ADAPTERS, Project

from promptseg.results.parquet import read_parquet
from promptseg.results.store import ResultStore, read_all

BRIGHT = ("--seg-models", "bright")
STATIC = ("--seg-modes", "point_largest,box_all")


def test_plain_pytest_collects_only_embedded_cells(project: Project) -> None:
    """Without being asked, no cell is run whose model or data set is not part of the package."""
    result = project.run("--collect-only", "-q", code=0)
    ids = [line for line in result.outlines if "test_iou[" in line]
    assert any("test_iou[box_fill-phantom_ct-box_all]" in line for line in ids)
    assert not [line for line in ids if "sam_" in line or "us_kidney" in line or "squares" in line]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "bright and squares and box_all"),
        ("-m", "model(name='bright') and task(name='squares') and mode(name='box_all')"),
        ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all"),
    ],
)
def test_every_way_of_asking_selects_the_same_cell(project: Project, arguments: tuple[str, ...]) -> None:
    """-k, -m and the options agree."""
    result = project.run("--collect-only", "-q", *arguments, code=0)
    assert [line for line in result.outlines if "::" in line] == [
        line for line in result.outlines if line.endswith("test_iou[bright-squares-box_all]")
    ]
    result.stdout.fnmatch_lines(["*test_iou[[]bright-squares-box_all]*"])


def test_a_node_id_runs_its_cell_and_nothing_else(project: Project, pytester: pytest.Pytester) -> None:
    """A node id on the command line asks for its cell."""
    pytester.makepyfile(test_here="from promptseg.benchmark import test_iou")
    result = run_inside(pytester, "test_here.py::test_iou[bright-squares-box_all]", "-v")
    assert result.parseoutcomes() == {"scored": 1}
    result.stdout.re_match_lines([r"test_here.py::test_iou\[bright-squares-box_all\] SCORED 0\.\d{4} .*\[100%\]"])


def test_an_excluding_expression_asks_for_nothing(project: Project) -> None:
    """-m "not gpu" in a CI configuration must not start downloads."""
    plain = project.run("--collect-only", "-q", code=0).outlines
    excluding = project.run("--collect-only", "-q", "-m", "not gpu", "-k", "not sam_vit_h", code=0).outlines
    assert [line for line in plain if "::" in line] == [line for line in excluding if "::" in line]


@pytest.mark.parametrize(
    ("arguments", "modes"),
    [
        ((), set()),
        (("-k", "point_disc and phantom_ct"), {"noc"}),
        (("--seg-models", "point_disc", "--seg-tasks", "phantom_ct"), {"noc"}),
        (("-k", "point_disc and phantom_ct and everything_64"), {"everything_64"}),
        (("-m", "model(name='point_disc') and task(name='phantom_ct') and mode(name='everything')"), {"everything"}),
        (
            ("--seg-models", "point_disc", "--seg-tasks", "phantom_ct", "--seg-modes", "noc,everything_128"),
            {"noc", "everything_128"},
        ),
        (("-k", "point_disc and phantom_ct and not everything_128 and not clicks"), {"noc"}),
    ],
)
def test_modes_that_take_long_wait_to_be_asked_for(
    project: Project, arguments: tuple[str, ...], modes: set[str]
) -> None:
    """A plain run has neither; asking for cells brings noc; everything comes only where its name is said."""
    lines = project.run("--collect-only", "-q", *arguments, code=0).outlines
    found = {line.split("-")[-1].rstrip("]") for line in lines if "test_iou[point_disc-phantom_ct-" in line}
    assert found & {"noc", "everything", "everything_64", "everything_128"} == modes


@pytest.mark.parametrize(
    ("option", "name", "hint"),
    [("models", "grabcat", "grabcut"), ("tasks", "us_kidny", "us_kidney"), ("modes", "box_al", "box_all")],
)
def test_an_unknown_name_is_a_usage_error_with_suggestions(project: Project, option: str, name: str, hint: str) -> None:
    """A typing mistake is told at once, with what was probably meant."""
    result = project.run(f"--seg-{option}", name, code=pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines([f"*Unknown *'{name}'. Did you mean '{hint}'*"])


def test_scores_do_not_depend_on_selection_order_batch_or_workers(project: Project) -> None:
    """-k, -n 2, other batch sizes and other orders give the same scores."""
    reference = project.means(*BRIGHT, "--seg-tasks", "squares")
    assert len(reference) == 9
    for arguments in (
        ("-k", "bright and squares"),
        ("-k", "bright and squares", "-n", "2"),
        (*BRIGHT, "--seg-tasks", "squares", "--seg-batch-size", "3"),
    ):
        found = project.means(*arguments, "--seg-rerun")
        assert found == pytest.approx(reference, abs=1e-6), arguments


@pytest.mark.parametrize("distribution", ["load", "loadgroup", "loadfile"])
def test_workers_share_a_group_and_encode_each_image_once(project: Project, distribution: str) -> None:
    """Under xdist the cells of one model and data set go to one worker; the controller writes the leaderboard, once."""
    result = project.run("-k", "bright and squares", "-n", "2", "--dist", distribution, code=0)
    assert len(project.calls("embed")) == 10
    assert "bright" in (project.pytester.path / "leaderboard/LEADERBOARD.md").read_text()
    [line] = [line for line in result.outlines if line.startswith("leaderboard (")]
    assert line == f"leaderboard (9 cells): {project.pytester.path / 'leaderboard/LEADERBOARD.md'}"


def test_each_image_is_encoded_once_and_equal_prompts_decoded_once(project: Project) -> None:
    """All modes share the embedding; modes that give one and the same prompt share its answer."""
    project.run(
        *BRIGHT, "--seg-tasks", "squares", "--seg-modes", "point_largest,point_each,box_largest,box_all", code=0
    )
    log = (project.pytester.path / "calls.jsonl").read_text().splitlines()
    calls = [json.loads(line)["call"] for line in log]
    assert calls.count("embed") == 10
    assert calls.count("predict") == 20  # a point and a box for each one-part target


def test_a_second_run_reads_the_results(project: Project) -> None:
    """Stored results are reused, also by cells that a wider run adds."""
    first = project.means(*BRIGHT, "--seg-tasks", "squares", *STATIC)
    project.calls("embed")
    again = project.means(*BRIGHT, "--seg-tasks", "squares", *STATIC)
    assert again == first
    assert project.calls("predict") == []


def test_rerun_evaluates_again(project: Project) -> None:
    """--seg-rerun ignores what is stored."""
    project.run(*BRIGHT, "--seg-tasks", "squares", *STATIC)
    project.calls("embed")
    project.run(*BRIGHT, "--seg-tasks", "squares", *STATIC, "--seg-rerun")
    assert len(project.calls("embed")) == 10


def test_changed_data_is_evaluated_again(project: Project) -> None:
    """A changed image changes the fingerprint."""
    project.run(*BRIGHT, "--seg-tasks", "squares", *STATIC)
    project.calls("embed")
    project.add_images("squares", 1, first=10)
    project.run(*BRIGHT, "--seg-tasks", "squares", *STATIC)
    assert len(project.calls("embed")) == 11


def test_an_existing_results_folder_elsewhere_does_not_move_the_project(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An option's value that pytest takes for a path of tests does not hide promptseg.toml."""
    (project.pytester.path / "tox.ini").unlink()
    elsewhere = tmp_path_factory.mktemp("results")
    project.pytester.makeconftest("import sys; sys.path.insert(0, '.')")
    arguments = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all", f"--seg-results={elsewhere}")
    for _ in range(2):
        project.run(*arguments, code=0)
    assert (elsewhere / "bright/squares/box_all.parquet").exists()
    assert (project.pytester.path / "leaderboard/LEADERBOARD.md").exists()


def test_another_seed_keeps_the_results_of_the_first(project: Project) -> None:
    """Going back to a seed finds its results again."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "point_largest")
    project.run(*cell)
    project.run(*cell, "--seg-seed", "7")
    project.calls("embed")
    project.run(*cell)
    assert project.calls("embed") == []


def test_the_seed_of_the_sample_chooses_cases_and_no_prompts(project: Project) -> None:
    """Other cases with the same prompts; a result of its own, since another sample is another question."""
    cells = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "point_largest", "--seg-limit", "4")
    prompts: dict[str, dict[str, str]] = {}
    for seed in ("0", "5"):
        project.run(*cells, "--seg-sample-seed", seed)
        rows = read_parquet(project.pytester.path / "leaderboard/results/bright/squares/point_largest.parquet").rows
        prompts[seed] = {row.case_id: row.prompts for row in rows}
    assert [len(chosen) for chosen in prompts.values()] == [4, 4]
    shared = prompts["0"].keys() & prompts["5"].keys()
    assert 0 < len(shared) < 4
    assert all(prompts["0"][case_id] == prompts["5"][case_id] for case_id in shared)
    assert project.calls("embed")
    project.run(*cells)  # the default is the seed of the prompts
    assert project.calls("embed") == []


def test_a_limit_takes_a_stable_sample_and_grows_from_it(project: Project) -> None:
    """The cases of a small limit are among those of a larger one, and are not evaluated again."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    small = project.scores(*cell, "--seg-limit", "3")
    seen = {call["sum"] for call in project.calls("embed")}
    assert small["bright-squares-box_all"]["n"] == len(seen) == 3
    large = project.scores(*cell, "--seg-limit", "6")
    assert large["bright-squares-box_all"]["n"] == 6
    assert not seen & {call["sum"] for call in project.calls("embed")}
    assert project.scores(*cell, "--seg-limit", "3") == small


def test_prompts_that_a_model_does_not_take_are_a_skip_that_says_so(project: Project) -> None:
    """Box prompts are never faked as clicks."""
    result = project.run(
        "--seg-models", "point_disc", "--seg-tasks", "squares", "--seg-modes", "box_all", "-rs", code=0
    )
    result.stdout.fnmatch_lines(["*SKIPPED*point_disc takes points; box_all gives boxes*"])


def test_missing_weights_are_a_skip_and_with_require_a_failure(
    project: Project, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The skip says which command brings the file."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cell = ("--seg-models", "sam_vit_b", "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*cell, "-rs", code=pytest.ExitCode.NO_TESTS_COLLECTED)
    result.stdout.fnmatch_lines(["*sam_vit_b*", "*SKIPPED*promptseg pull sam_vit_b*"])
    required = project.run(*cell, "--seg-require", code=1)
    required.stdout.fnmatch_lines(["*required by --seg-require*promptseg pull*"])


@pytest.mark.parametrize("more", [("-v",), ("-v", "-n", "2")])
def test_a_cell_without_threshold_reads_scored_and_is_skipped(project: Project, more: tuple[str, ...]) -> None:
    """A test that asserted nothing must not look green; nor is it one of those that did not run. Files keep skipped."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*cell, "-rs", *more, "--seg-json", "s.json", "--junit-xml", "j.xml", code=0)
    result.stdout.re_match_lines(
        [
            r".*SCORED 0\.\d{4}",
            r"bright +0\.\d{3} .*10",
            "",
            "cells: 1 scored",
            r".*SKIPPED.*scored 0\.\d{3}, no threshold",
        ]
    )
    assert result.parseoutcomes() == {"scored": 1}
    [written] = json.loads((project.pytester.path / "s.json").read_text())["cells"]
    assert (written["outcome"], written["scored"]) == ("skipped", True)
    junit = (project.pytester.path / "j.xml").read_text()
    assert 'skipped="1"' in junit
    assert '<property name="seg_scored" value="True"' in junit


def test_scored_cells_are_a_letter_of_their_own_and_all_is_as_it_was_for_other_plugins(
    project: Project, pytester: pytest.Pytester
) -> None:
    """A test that evaluates two cells, or skips by itself without a score, is skipped."""
    pytester.makepyfile(
        test_own="""
        import pytest

        def test_plain(): pytest.skip("as ever")

        def test_one(seg_evaluate):
            seg_evaluate("bright", "squares", "box_all")
            pytest.skip("one")

        def test_two(seg_evaluate):
            seg_evaluate("bright", "squares", "box_all"), seg_evaluate("bright", "squares", "point_largest")
            pytest.skip("two")
        """
    )
    result = run_inside(pytester, "test_own.py")
    result.stdout.fnmatch_lines(["test_own.py scs*"])
    assert result.parseoutcomes() == {"scored": 1, "skipped": 2}


@pytest.mark.parametrize(
    ("arguments", "modes", "left_out"),
    [
        (("-k", "box_fill and phantom_ct"), {"box"}, 6),
        (("-k", "box_fill and phantom_ct", "-n", "1"), {"box"}, 6),
        (("-m", "model(name='box_fill') and task(name='phantom_ct')"), {"box"}, 6),
        (("--seg-models", "box_fill", "--seg-tasks", "phantom_ct"), {"box"}, 6),
        (("--seg-tasks", "phantom_ct", "--seg-modes", "noc", "-k", "box_ and not random"), set(), 1),
        (("--seg-models", "box_fill", "--seg-tasks", "phantom_ct", "--seg-modes", "point_each"), {"point"}, 0),
        (("-k", "box_fill and phantom_ct and point_each"), {"point"}, 0),
    ],
)
def test_cells_that_can_never_run_are_left_out_unless_named(
    project: Project, arguments: tuple[str, ...], modes: set[str], left_out: int
) -> None:
    """Counted in one line; a model named together with a mode says why it cannot run."""
    result = project.run(*arguments, "--seg-limit", "1", "--seg-json", "s.json")
    cells = json.loads((project.pytester.path / "s.json").read_text())["cells"]
    assert {cell["mode"].split("_")[0] for cell in cells} == modes
    assert ("takes boxes" in json.dumps(cells)) == (modes == {"point"})
    told = " ".join(result.stdout.str().split())
    assert (f"{left_out} cell" in told) == bool(left_out)
    assert ("left out: their models do not take the prompts" in told) == bool(left_out)


@pytest.mark.parametrize(
    ("own", "code"),
    [("", 5), ("import pytest\ndef test_own(): pytest.skip()", 5), ("def test_own(): pass", 0)],
)
def test_a_run_of_which_nothing_was_there_is_as_one_that_collected_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, own: str, code: int
) -> None:
    """Exit code 5, unless another test passed or failed; each name is there once with its remedy, also with -ra."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("HF_HOME", "PROMPTSEG_CACHE"):
        monkeypatch.setenv(variable, str(project.pytester.path / variable))
    project.pytester.makepyfile(test_own=own)
    names = ("--seg-models", "slimsam_50,slimsam_77,mobile_sam", "--seg-tasks", "squares")
    result = project.run(*names, "-ra", "test_own.py", code=code)
    result.stdout.fnmatch_lines(
        [
            "not evaluated, since files are missing: 27 cells",
            "  27 cells, could not be downloaded (HF_HUB_OFFLINE is set):",
            "    mobile_sam, slimsam_50, slimsam_77",
            "*promptseg pull NAME*",
            "nothing was evaluated: *",
        ]
    )
    assert "SKIPPED" not in result.stdout.str().replace("SKIPPED [1] test_own", "")


THRESHOLD = """
[bright.squares.box_all]
value = {value}
select = "{select}"
tolerance = 0.02
source = "a measurement"
"""


def test_a_threshold_passes_and_fails_with_a_message_that_reads_alone(project: Project) -> None:
    """The message names model, task, mode, mean, threshold and source, n, seed and the worst cases."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all", "--seg-thresholds", "mine.toml")
    mine = project.pytester.path / "mine.toml"
    mine.write_text(THRESHOLD.format(value=0.5, select="first"))
    project.run(*cell, code=0).assert_outcomes(passed=1)
    mine.write_text(THRESHOLD.format(value=1.0, select="first"))
    result = project.run(*cell, code=1)
    result.stdout.re_match_lines(
        [
            r".*bright on squares, box_all: mean IoU 0\.\d{3} < 0\.980 \(threshold 1\.000 - tolerance 0\.020, a measur",
            r".*n=10 \(data set: 10 images\), seed 0, mask: first",
            r".*worst cases: case_\d\d 0\.\d{3}, case_\d\d 0\.\d{3}, case_\d\d 0\.\d{3}",
        ]
    )


def test_a_threshold_of_whole_data_sets_is_not_held_against_a_sample(project: Project) -> None:
    """With at_most, a sample and a data set with more cases are scored and skipped, saying what it speaks of."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all", "--seg-thresholds", "mine.toml", "-rs")
    mine = project.pytester.path / "mine.toml"
    mine.write_text(THRESHOLD.format(value=1.0, select="first") + "at_most = 10\n")
    sample = project.run(*cell, "--seg-limit", "3", code=0)
    sample.stdout.re_match_lines([r".*scored 0\.\d{3} on 3 cases, .* applies to whole data sets of at most 10"])
    project.run(*cell, code=1).assert_outcomes(failed=1)
    project.run(*cell, "--seg-limit", "10", code=1).assert_outcomes(failed=1)
    mine.write_text(THRESHOLD.format(value=1.0, select="first") + "at_most = 9\n")
    more = project.run(*cell, code=0)
    more.stdout.re_match_lines([r".*scored 0\.\d{3} on 10 cases, .* applies to whole data sets of at most 9"])


def test_ones_own_file_wins_over_what_ships(project: Project) -> None:
    """Cell by cell: what it does not name keeps the threshold that ships."""
    mine = THRESHOLD.format(value=1.0, select="first").replace("bright.squares", "box_fill.phantom_ct")
    (project.pytester.path / "mine.toml").write_text(mine)
    arguments = ("-k", "box_fill and phantom_ct and (box_all or box_each)")
    project.run(*arguments, code=0).assert_outcomes(passed=2)
    project.run(*arguments, "--seg-thresholds", "mine.toml", code=1).assert_outcomes(passed=1, failed=1)


def test_a_threshold_for_an_unknown_cell_is_a_usage_error(project: Project) -> None:
    """A misspelt name in a file of thresholds would otherwise switch its gate off without a word."""
    (project.pytester.path / "mine.toml").write_text(
        THRESHOLD.format(value=0.5, select="first").replace("bright", "brigt")
    )
    result = project.run("--seg-thresholds", "mine.toml", "--collect-only", code=pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines(["*thresholds file *mine.toml: Unknown model 'brigt'. Did you mean 'bright'*"])


def test_a_bad_case_fails_its_cell_by_name_and_the_rest_is_kept(project: Project) -> None:
    """A mask of another size is reported by its case; --seg-max-errors tolerates it, and JSON counts it."""
    from PIL import Image

    Image.new("L", (10, 10), 1).save(project.pytester.path / "squares" / "masks" / "case_03.png")
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*cell, code=1)
    result.stdout.fnmatch_lines(["*failed cases: 1, tolerated: 0*", "*case 'case_03' failed: *48 x 32*10 x 10*"])
    scores = project.scores(*cell, "--seg-max-errors", "1")["bright-squares-box_all"]
    assert (scores["n"], scores["n_errors"], scores["outcome"]) == (9, 1, "skipped")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", "*predicted_iou with NaN or infinity*"),
        ("size", "*masks of shape (2, 31, 48)*must be (M, 32, 48)*"),
        ("dtype", "*masks of type float32*numpy array of bool*"),
    ],
)
def test_a_model_that_breaks_the_contract_fails_by_case(project: Project, fault: str, message: str) -> None:
    """Wrong shapes, dtypes and numbers are named."""
    project.configure(f'[models.broken]\nadapter = "adapters:load"\noptions = {{fault = "{fault}"}}')
    result = project.run("--seg-models", "broken", "--seg-tasks", "squares", "--seg-modes", "box_all", code=1)
    result.stdout.fnmatch_lines(["*failed cases: 10*", message])


def test_a_case_on_which_the_model_raises_does_not_take_its_batch_down(project: Project) -> None:
    """The other images of the batch are scored."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.full((32, 48), 200, np.uint8)).save(project.pytester.path / "squares/images/case_05.png")
    project.configure('[models.broken]\nadapter = "adapters:load"\noptions = {fault = "raises"}')
    cell = ("--seg-models", "broken", "--seg-tasks", "squares", "--seg-modes", "box_all", "--seg-batch-size", "4")
    scores = project.scores(*cell)["broken-squares-box_all"]
    assert (scores["n"], scores["n_errors"], scores["outcome"]) == (9, 1, "failed")
    assert "case 'case_05' failed: RuntimeError: out of patience" in scores["reason"]


def test_an_all_zero_image_is_a_clear_error(project: Project) -> None:
    """The paper's normalisation divides by the maximum: there is none."""
    from PIL import Image

    Image.new("L", (48, 32), 0).save(project.pytester.path / "squares" / "images" / "case_00.png")
    result = project.run(*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all", code=1)
    result.stdout.fnmatch_lines(["*case 'case_00' failed: *zero*"])


def test_a_task_without_cases_says_so(project: Project) -> None:
    """Label ids that occur nowhere are a failure, not a mean of nothing."""
    project.configure('[datasets.other]\nfolder = "squares"\nmodality = "phantom"\nlabels = {thing = 9}')
    result = project.run(*BRIGHT, "--seg-tasks", "other", "--seg-modes", "box_all", code=1)
    result.stdout.fnmatch_lines(["*no case of the data set belongs to the task; check its label ids*"])


def test_a_missing_folder_names_the_path(project: Project) -> None:
    """A data set that is not where promptseg.toml says is a failure with the path, and so is a model; others run."""
    project.configure(
        '[datasets.gone]\nfolder = "square"\nmodality = "phantom"',
        '[models.lost]\nadapter = "adapters:load"\nfolder = "nowhere"\nfiles = {x = "a.pth"}',
    )
    names = ("--seg-models", "bright,lost", "--seg-tasks", "gone,squares", "--seg-modes", "box_all")
    result = project.run(*names, "-rs", code=1)
    assert result.parseoutcomes() == {"failed": 3, "scored": 1}
    result.stdout.fnmatch_lines(
        [
            "*promptseg.toml [[]datasets.gone]: */square does not exist; *Did you mean 'squares'[?] Correct the path*",
            "*promptseg.toml [[]models.lost]: */nowhere/a.pth does not exist; *",
            "*SKIPPED*scored *",
        ]
    )


def test_an_unusable_configuration_is_a_usage_error(project: Project) -> None:
    """The message names file and table."""
    project.configure('[datasets.bad]\nfoldr = "squares"\nmodality = "phantom"')
    result = project.run(*BRIGHT, code=pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines(["*promptseg.toml [[]datasets.bad]: Unknown key 'foldr'. Did you mean 'folder'*"])


def test_the_json_has_what_the_design_fixes(project: Project) -> None:
    """Schema 1: cells with n, select, means, interval, threshold and outcome; clicks with their curve."""
    project.run(*BRIGHT, "--seg-tasks", "squares", "--seg-json", "out/scores.json", code=0)
    document = json.loads((project.pytester.path / "out/scores.json").read_text())
    assert document["schema"] == 1
    cells = {cell["mode"]: cell for cell in document["cells"]}
    clicks = cells["clicks_oracle"]
    assert {"model", "task", "mode", "n", "select", "mean_iou", "iou", "ci95", "threshold", "outcome"} <= set(clicks)
    assert (clicks["select"], cells["box_all"]["select"]) == ("oracle", "confident")
    assert set(clicks["iou"]) == {"first", "confident", "oracle"}
    assert [len(curve) for curve in clicks["iou_per_click"].values()] == [9, 9, 9]
    low, high = cells["box_all"]["ci95"]
    assert low <= cells["box_all"]["mean_iou"] <= high


def test_the_leaderboard_is_written_at_the_end_of_a_run(project: Project) -> None:
    """With the cells that were scored."""
    result = project.run("-k", "bright and squares and box", code=0)
    board = project.pytester.path / "leaderboard/LEADERBOARD.md"
    assert "bright" in board.read_text()
    result.stdout.fnmatch_lines(["*leaderboard (3 cells): *LEADERBOARD.md"])


def test_last_failed_brings_back_a_cell_that_was_asked_for_before(project: Project) -> None:
    """Pytest --lf runs the failed cell, although nothing on its command line names it."""
    mine = project.pytester.path / "mine.toml"
    mine.write_text(THRESHOLD.format(value=1.0, select="first"))
    project.run("-k", "bright and squares and box_all", "--seg-thresholds", "mine.toml", code=1)
    project.run("--lf", "--seg-thresholds", "mine.toml", code=1).assert_outcomes(failed=1)


def test_the_fixtures_serve_tests_of_ones_own(project: Project, pytester: pytest.Pytester) -> None:
    """seg_evaluate scores any cell; seg_cell runs a test once for every cell that was asked for."""
    pytester.makepyfile(
        test_own="""
        def test_box_beats_point(seg_evaluate):
            box = seg_evaluate("bright", "squares", "box_all")
            assert box.mean_iou > 0.5
            assert box.summary.iou["oracle"] >= box.summary.iou["first"]

        def test_gap(seg_cell):
            score = seg_cell.score()
            assert score.summary.iou["oracle"] - score.mean_iou <= 1
        """
    )
    arguments = ("test_own.py", *BRIGHT, "--seg-tasks", "squares", *STATIC)
    run_inside(pytester, *arguments, "--seg-json", "own.json").assert_outcomes(passed=3)
    cells = json.loads((pytester.path / "own.json").read_text())["cells"]
    assert {(c["mode"], c["outcome"]) for c in cells} == {("box_all", "passed"), ("point_largest", "passed")}


def test_what_seg_evaluate_scores_is_reported(project: Project, pytester: pytest.Pytester) -> None:
    """In the JSON with the outcome of the test that asked, and on the leaderboard."""
    pytester.makepyfile("def test_own(seg_evaluate): assert seg_evaluate('bright', 'squares', 'box_all').mean_iou > 2")
    run_inside(pytester, "-k", "test_own", "--seg-json", "own.json").assert_outcomes(failed=1)
    (cell,) = json.loads((pytester.path / "own.json").read_text())["cells"]
    assert (cell["mode"], cell["n"], cell["outcome"]) == ("box_all", 10, "failed")
    assert "bright" in (pytester.path / "leaderboard" / "LEADERBOARD.md").read_text()


def test_a_project_that_never_asks_for_cells_is_left_alone(pytester: pytest.Pytester) -> None:
    """Being installed costs nothing: no files, no heavy imports, no lines on the terminal."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_loaded():
            loaded = {"torch", "cv2", "numpy", "transformers", "datasets", "huggingface_hub", "rich"} & set(sys.modules)
            assert not loaded
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    assert "promptseg:" not in result.stdout.str()
    assert not (pytester.path / "leaderboard").exists()


def test_collecting_every_cell_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    """All built-in cells are collected without torch, cv2 and the network."""
    pytester.makeconftest(
        """
        import sys

        def pytest_collection_finish(session):
            assert len(session.items) > 500
            heavy = {"torch", "cv2", "numpy", "transformers", "datasets", "huggingface_hub", "pyarrow", "rich"}
            assert not heavy & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("--pyargs", "promptseg.benchmark", "--collect-only", "-q", "-k", "test_iou")
    assert result.ret == 0, result.stdout.str()


def journal_lines(folder: Path) -> int:
    """Count the finished cases in all journals."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.rglob("squares/.journals/*.journal"))


def finished_in_all(folder: Path, cells: int) -> int:
    """Count the cases that the journals of all cells hold."""
    journals = folder.rglob("squares/.journals/*.journal")
    lines = [json.loads(line) for path in journals for line in path.read_bytes().splitlines()]
    return sum(count == cells for count in Counter(line["case_id"] for line in lines).values())


@pytest.mark.parametrize("more", [(), ("--seg-save-masks",)], ids=["scores", "masks"])
def test_kill_9_loses_nothing_and_repeats_nothing(project: Project, more: tuple[str, ...]) -> None:
    """After a kill the same command evaluates only what was not finished, and gives the same numbers and masks."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.2}')
    modes = "point_largest,point_each,box_largest,box_each,box_all,clicks_first,clicks_confident,noc"
    cells = ("--seg-models", "slow", "--seg-tasks", "squares", "--seg-modes", modes, *more)
    running = project.start(*cells)
    deadline = time.monotonic() + 60
    while journal_lines(project.pytester.path) < 3 * 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = finished_in_all(project.pytester.path, 8)
    assert 1 <= finished < 10
    before = [call["sum"] for call in project.calls("embed")]
    resumed = project.means(*cells)
    after = [call["sum"] for call in project.calls("embed")]
    assert len(after) == 10 - finished
    assert len(set(before) & set(after)) <= 2  # the images in flight
    assert len(set(before) | set(after)) == 10
    assert resumed == project.means(*cells, "--seg-rerun")
    assert list(project.pytester.path.rglob("*.journal")) == []
    files = list(project.pytester.path.rglob(".masks/*.parquet"))
    assert len(files) == (8 if more else 0)
    assert all(len(set(pq.read_table(f)["case_id"].to_pylist())) == 10 for f in files)


SLOW = ("--seg-models", "slow", "--seg-tasks", "squares", "--seg-modes", "box_all")
SLOW_RUN = ("--pyargs", "promptseg.benchmark", *SLOW)


@pytest.mark.parametrize("run", [SLOW_RUN, (*SLOW_RUN, "-n", "2"), ("own.py",)], ids=["one process", "xdist", "own"])
def test_an_interrupted_run_says_that_finished_cases_are_kept(project: Project, run: tuple[str, ...]) -> None:
    """Ctrl-C, which every process of a terminal gets: told in one line; the same cells, asked again, do the rest."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.2}')
    folder = project.pytester.path
    own = "def test_own(seg_evaluate):\n    assert seg_evaluate('slow', 'squares', 'box_all').mean_iou > 0\n"
    (folder / "own.py").write_text(own)
    told = interrupted(project, lambda: journal_lines(folder) >= 2, *run)
    kept = f"finished cases are kept in {folder / 'leaderboard' / 'results'}"
    assert told.count(f"interrupted: {kept}; run the same command again to resume\n") == 1
    finished = finished_in_all(folder, 1)
    assert 2 <= finished < 10
    project.calls("embed")
    alone = [word for word in run if word not in ("-n", "2")]
    result = run_inside(project.pytester, *alone)
    assert result.ret == 0
    assert "cases are kept" not in result.stdout.str()
    assert len(project.calls("embed")) == 10 - finished


def test_an_interrupted_run_promises_only_what_is_so(project: Project) -> None:
    """Nothing where no cell was begun, nor with --seg-rerun, which would begin anew."""
    project.configure('[models.slow]\nadapter = "adapters:load"\noptions = {sleep = 0.2}')
    folder = project.pytester.path
    waits = "import pathlib, time\ndef test_waits():\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
    (folder / "waits.py").write_text(waits)
    assert "cases are kept" not in interrupted(project, (folder / "begun").exists, "waits.py")
    told = interrupted(project, lambda: journal_lines(folder) >= 2, *SLOW_RUN, "--seg-rerun")
    assert "cases are kept" not in told


# A shell ignores SIGINT in what it starts in the background, and that is inherited: also by tests that run there.
WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""


def interrupted(project: Project, now: Callable[[], bool], *arguments: str) -> str:
    """Return what a run says that gets SIGINT as soon as ``now``, as from a terminal: with all of its processes."""
    command = [sys.executable, "-c", WITH_SIGINT, *arguments]
    running = subprocess.Popen(
        command, cwd=project.pytester.path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not now() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    try:
        told, _ = running.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        told, _ = running.communicate()
    assert running.returncode == pytest.ExitCode.INTERRUPTED, told
    return told


def test_a_journal_that_a_killed_run_left_beside_its_result_is_dropped(project: Project) -> None:
    """Killed between storing the result and dropping its journal: the next run has nothing to save, and tidies up."""
    arguments = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    project.run(*arguments, code=0)
    store = ResultStore(project.pytester.path / "leaderboard" / "results")
    [(_, result)] = read_all(store.root)
    store.journal(result.cell, result.fingerprint).append(result.rows[0].case_id, result.rows[:1])
    beyond = store.journal(result.cell, "f" * 64)  # of another result: what it holds is nowhere else
    beyond.append("other", [dataclasses.replace(result.rows[0], case_id="other")])
    project.run(*arguments, code=0)
    assert len(list(project.pytester.path.rglob("*.journal"))) == 1
    assert list(store.finished_cases(result.cell, "f" * 64)) == ["other"]


def test_a_threshold_with_n_speaks_of_no_sample(project: Project) -> None:
    """A baseline over all cases is not held against two of them; the shipped ones are of this kind."""
    arguments = ("-k", "box_fill and phantom_ct and box_all", "--seg-limit", "2", "-rs")
    result = project.run(*arguments, code=0)
    assert result.parseoutcomes() == {"scored": 1}
    result.stdout.re_match_lines([r".*SKIPPED.*scored 0\.\d{3} on 2 cases, the threshold \(baseline.*\) applies to 12"])


def test_the_choice_of_mask_asked_for_and_that_of_the_threshold_are_two(project: Project) -> None:
    """--seg-select says what is reported, the threshold what is asserted."""
    (project.pytester.path / "mine.toml").write_text(THRESHOLD.format(value=0.5, select="first"))
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all", "--seg-thresholds", "mine.toml")
    scores = project.scores(*cell, "--seg-select", "oracle")["bright-squares-box_all"]
    assert (scores["select"], scores["threshold_select"], scores["outcome"]) == ("oracle", "first", "passed")
    assert scores["mean_iou"] == scores["iou"]["oracle"]


def test_changed_code_is_evaluated_again(project: Project) -> None:
    """A gate that reads the scores of yesterday's code would always be green."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    before = project.means(*cell)
    adapters = project.pytester.path / "adapters.py"
    adapters.write_text(adapters.read_text().replace("> 127", "< 127"))
    assert project.means(*cell) != before


def test_rerunning_a_sample_keeps_the_other_cases(project: Project) -> None:
    """--seg-rerun with a limit evaluates the sample again and takes nothing away."""
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    project.run(*cell, code=0)
    project.run(*cell, "--seg-rerun", "--seg-limit", "2", code=0)
    project.calls("embed")
    assert project.scores(*cell)["bright-squares-box_all"]["n"] == 10
    assert project.calls("embed") == []


@pytest.mark.parametrize("names", ["squares/box_all.parquet", "squares/.versions/box_all*.parquet"])
@pytest.mark.parametrize("more", [(), ("--seg-rerun",), ("--seg-seed", "1")], ids=["same", "rerun", "seed"])
def test_an_unreadable_result_stays_and_fails_its_cell_alone(
    project: Project, names: str, more: tuple[str, ...]
) -> None:
    """The latest, or a version that is needed: named, never replaced; the other cell is evaluated; moving it helps."""
    project.pytester.makeini("[pytest]\npythonpath = .\nseg_device = cpu\nfilterwarnings = error\n")
    cells = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all,box_each")
    project.run(*cells, "--seg-modes", "box_all", code=0)
    [path] = project.pytester.path.rglob(names)
    path.unlink()  # else both names of the file would be changed
    path.write_bytes(b"not a Parquet file")
    needed = path.parent.name == "squares" or "--seg-seed" not in more
    scores = project.scores(*cells, *more)
    assert scores["bright-squares-box_each"]["n"] == 10
    assert (scores["bright-squares-box_all"]["n"] == 0) == needed
    assert path.read_bytes() == b"not a Parquet file"
    if needed:
        assert f"{path.name} is not a readable result" in scores["bright-squares-box_all"]["reason"]
        assert "move it away to evaluate again" in scores["bright-squares-box_all"]["reason"]
        path.rename(project.pytester.path / "away")
        assert project.scores(*cells, *more)["bright-squares-box_all"]["n"] == 10


def test_scores_that_cannot_be_written_are_told_and_fail_the_run(project: Project) -> None:
    """The leaderboard is there all the same."""
    (project.pytester.path / "folder.json").mkdir()
    cell = (*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*cell, "--seg-json", "folder.json", code=1)
    result.stdout.fnmatch_lines(["leaderboard (1 cell): *", "scores not written to *folder.json: *"])


def test_collecting_writes_no_scores(project: Project) -> None:
    """--collect-only leaves an earlier file alone."""
    (project.pytester.path / "scores.json").write_text("earlier")
    project.run(*BRIGHT, "--collect-only", "-q", "--seg-json", "scores.json", code=0)
    assert (project.pytester.path / "scores.json").read_text() == "earlier"


def test_reruns_by_other_plugins_are_no_outcome(project: Project) -> None:
    """pytest-rerunfailures reports the outcome "rerun" in between."""
    project.pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.when == "call":
                report.outcome = "rerun"
            return report
        """
    )
    result = project.run(*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_cell_that_failed_is_tried_again_when_asked_again(project: Project, pytester: pytest.Pytester) -> None:
    """A plugin that runs failed tests again gets a new try, not the failure of the first."""
    images = pytester.path / "squares" / "images"
    hidden = images.rename(images.with_name("hidden"))
    pytester.makepyfile(
        f"""
        from pathlib import Path
        import pytest

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_own(seg_evaluate, attempt):
            if attempt == 2:
                Path({str(hidden)!r}).rename({str(images)!r})
            assert seg_evaluate("bright", "squares", "box_all").mean_iou > 0.5
        """
    )
    run_inside(pytester).assert_outcomes(failed=1, passed=1)


def test_a_checkpoint_that_cannot_be_loaded_is_reported_once(project: Project) -> None:
    """All cells of its model fail, on every data set; the first says why, the others refer to it."""
    project.add_images("rounds", 1)
    (project.pytester.path / "last.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9000\n")
    project.configure(
        """
        [datasets.rounds]
        folder = "rounds"
        modality = "phantom"
        [models.clicker]
        adapter = "ritm"
        folder = "."
        files = {checkpoint = "last.pth"}
        """
    )
    modes = ("--seg-modes", "point_largest,point_each")
    result = project.run("--seg-models", "clicker", "--seg-tasks", "squares,rounds", *modes, "-n0", code=1)
    result.assert_outcomes(failed=4)
    shown = result.stdout.str().partition("short test summary")[0]
    assert shown.count("is a Git LFS pointer for 9.0 kB, not the file itself") == 1
    assert shown.count("cannot be evaluated, for the reason that clicker-") == 3


def test_what_is_taken_out_of_a_checkpoint_is_said_at_the_end(project: Project) -> None:
    """What a built-in adapter warns about while it loads a model is a notice of the run."""
    (project.pytester.path / "adapters.py").write_text(
        ADAPTERS.replace(
            "def load(spec, files, runtime):",
            "def load(spec, files, runtime):\n"
            "    import logging; logging.getLogger('promptseg.models._weights').warning('taken from %r', 'ema')",
        )
    )
    result = project.run(*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "box_all")
    result.stdout.fnmatch_lines(["note: taken from 'ema'"])


def test_a_spec_of_wrong_types_fails_by_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells fail, the others are collected and run."""
    folder = project.pytester.mkdir("site")
    info = folder / "wrong-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[promptseg.models]\nwrong = wrong_model:SPEC\n")
    (folder / "wrong_model.py").write_text(
        "from promptseg import ModelSpec\n"
        "SPEC = ModelSpec(name='wrong', family='x', load='a:b', licence='x', accepts=frozenset({'boxes'}),\n"
        "                 origin='o/r')\n"
    )
    monkeypatch.syspath_prepend(folder)
    arguments = ("--seg-models", "wrong,bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*arguments, code=1)
    assert result.parseoutcomes() == {"failed": 1, "scored": 1}
    result.stdout.fnmatch_lines(["*wrong-squares-box_all: *origin must be an Origin, not 'o/r'*"])


def test_without_cells_xdist_distributes_as_ever(pytester: pytest.Pytester) -> None:
    """Being installed does not change how other projects' tests are spread, nor does a bad promptseg.toml."""
    pytester.makepyfile("import pytest\n@pytest.mark.parametrize('x', ['a-b-c', 'd-e-f'])\ndef test_x(x): pass")
    (pytester.path / "promptseg.toml").write_text("not TOML")
    for distribution in ("load", "loadgroup"):
        pytester.runpytest_subprocess("-n", "2", "--dist", distribution).assert_outcomes(passed=2)


def test_noc_and_calibration_are_in_the_json(project: Project) -> None:
    """Twenty clicks a case; the object is found at once but for a dark corner, and predicted IoU ranks rightly."""
    cells = project.scores(*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "noc,point_largest")
    noc = cells["bright-squares-noc"]
    assert len(noc["iou_per_click"]["confident"]) == 20
    assert noc["noc"]["noc80"] == {"clicks": 1.0, "n_reached": 10, "n_failures": 0}
    assert noc["noc"]["noc90"]["n_reached"] + noc["noc"]["noc90"]["n_failures"] == 10
    found = cells["bright-squares-point_largest"]
    assert "noc" not in found
    assert found["calibration"]["n"] == 20
    assert found["calibration"]["rank_correlation"] > 0.8
    assert found["calibration"]["mean_absolute_error"] == pytest.approx(0.05, abs=0.05)


def test_everything_is_skipped_for_a_model_that_cannot_say_how_stable_its_masks_are(project: Project) -> None:
    """The reason names the model and what is missing; nothing is encoded for it."""
    cells = project.scores(*BRIGHT, "--seg-tasks", "squares", "--seg-modes", "everything")
    reason = cells["bright-squares-everything"]["reason"]
    assert reason == "bright does not segment everything; everything needs stability and predicted IoU of its masks"
    assert project.calls("embed") == []


@pytest.mark.parametrize(
    "expression",
    [
        "us_kidney",
        "box_fill and not phantom",
        "not (grabcut or box_each) and (ct or mri)",
        "BOX_ALL and Phantom_CT",
        "point or clicks_first and not point_disc",
        "not box",
    ],
)
def test_cells_that_k_leaves_out_are_not_made(project: Project, expression: str) -> None:
    """The same cells are left as where pytest makes all and leaves out the rest, and no other is made.

    A word that is in no id, here one that can never match, lets pytest alone decide.
    """
    options = ("--seg-models", "box_fill,point_disc,grabcut", "--collect-only", "-q")
    made = project.run(*options, "-k", expression)
    decided_by_pytest = project.run(*options, "-k", f"({expression}) or never_in_an_id")
    ids = [[line for line in run.outlines if "::test_iou[" in line] for run in (made, decided_by_pytest)]
    assert ids[0] == ids[1]
    assert ids[0]
    assert "deselected" not in made.stdout.str()
    assert "deselected" in decided_by_pytest.stdout.str()
