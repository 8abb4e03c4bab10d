"""``--seg-baseline`` as a user meets it: what passes, fails, warns and is refused, with and without workers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import ADAPTERS, Project

CELL = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
AGAINST = (*CELL, "--seg-baseline", "main")
RIGHT = "bright = image[..., 0] > 127"


@pytest.fixture
def kept(project: Project) -> Any:
    """A project whose results of one cell are the baseline ``main``."""
    project.run(*CELL, code=0)
    keep(project, "main")
    return project


def keep(project: Project, name: str) -> Path:
    """Keep the project's results as a baseline, as ``promptseg baseline save`` does."""
    from promptseg.verdicts import baselines

    root: Path = project.pytester.path / "leaderboard"
    return baselines.save(name, root / "results", root / "baselines").root


def worsen(project: Project, code: str) -> None:
    """Replace how the model finds bright pixels."""
    project.pytester.makepyfile(adapters=ADAPTERS.replace(RIGHT, f"bright = {code}"))


WORSE = "np.roll(image[..., 0] > 127, 3, axis=1)"
WORSE_ON_TWO = "np.roll(image[..., 0] > 127, 8 if image[4, 6, 0] < 36 else 0, axis=1)"


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "workers"])
def test_an_equal_model_passes_and_a_worse_one_fails(kept: Any, more: tuple[str, ...]) -> None:
    """The cell has no threshold: with a baseline it is asserted, not skipped; the message tells what became worse."""
    if not more:
        kept.run(*AGAINST, code=0).assert_outcomes(passed=1)
    worsen(kept, WORSE)
    result = kept.run(*AGAINST, *more, code=1)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r".*bright on squares, box_all, against baseline main: worse: mean IoU 0\.9\d\d to 0\.\d{3} \(-0\.",
            r".*n=10 of 10 subjects, p=0\.002, minimum detectable drop: not known from 10 subjects, .*",
            r".*lost most: case_\d\d 0\.\d{3} to 0\.\d{3}, ",
            r".*not as in the baseline: .*model's code",
            r".*bright on squares, box_all: scored 0\.\d{3}, no threshold",
            r"baseline main: 1 fail",
            r"minimum detectable drops: unknown",
        ]
    )


def test_the_json_tells_of_the_baseline(kept: Any) -> None:
    """An object for each cell, null without a baseline; a cell that it does not have is ``missing`` and skipped."""
    worsen(kept, WORSE)
    wider = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all,point_each")
    cells = kept.scores(*wider, "--seg-baseline", "main", "--seg-strata", "size")
    entry, missing = cells["bright-squares-box_all"]["baseline"], cells["bright-squares-point_each"]
    assert (entry["reference"], entry["verdict"], entry["n"], entry["select"]) == ("main", "fail", 10, "confident")
    assert entry["after"] == cells["bright-squares-box_all"]["mean_iou"]
    assert entry["delta"] == pytest.approx(entry["after"] - entry["before"])
    assert entry["interval"][0] <= entry["delta"] <= entry["interval"][1] < 0
    assert set(entry["strata"]) == {"small objects", "medium objects", "large objects"}
    assert (missing["baseline"]["verdict"], missing["outcome"]) == ("missing", "skipped")
    assert missing["reason"].endswith("no threshold, not in baseline main")
    assert kept.scores(*CELL)["bright-squares-box_all"]["baseline"] is None


def test_an_unsure_drop_warns_and_passes(kept: Any) -> None:
    """Two of ten cases got worse: told at the end of the run and in the JSON, also where warnings are errors."""
    worsen(kept, WORSE_ON_TWO)
    kept.pytester.makeini("[pytest]\npythonpath = .\nseg_device = cpu\nfilterwarnings = error\n")
    result = kept.run(*AGAINST, "--seg-json", "scores.json", code=0)
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        [
            r"baseline main: 1 warn",
            r"warning: bright on squares, box_all: lower by more than 0\.01, but not significantly: ",
        ]
    )
    [cell] = json.loads((kept.pytester.path / "scores.json").read_text())["cells"]
    assert (cell["outcome"], cell["baseline"]["verdict"]) == ("passed", "warn")


def test_a_baseline_of_other_settings_is_refused_with_the_reason(kept: Any) -> None:
    """A gate that compared nothing must not look green: the cell fails and says what differs."""
    result = kept.run(*AGAINST, "--seg-seed", "1", code=1)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r".*against baseline main: cannot be compared: seed 1, in the baseline 0\. Evaluate"])


def test_other_images_are_refused(kept: Any) -> None:
    """Another data set under the same name is not the same cell."""
    kept.add_images("squares", 2, first=10)
    result = kept.run(*AGAINST, code=1)
    result.stdout.re_match_lines(
        [r".*cannot be compared: data set's fingerprint [0-9a-f]{12}, in the baseline [0-9a-f]"]
    )


def test_a_torn_baseline_fails_its_cell_and_no_other(kept: Any) -> None:
    """The file is named; the cells beside it are judged as ever."""
    wider = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all,point_each")
    kept.run(*wider, code=0)
    [torn] = keep(kept, "wide").glob("*/*/box_all.parquet")
    torn.write_bytes(b"PAR1")
    result = kept.run(*wider, "--seg-baseline", "wide", code=1)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines([r".*cannot be compared: .*box_all\.parquet is not a readable result"])


def test_a_sample_is_compared_on_its_cases(kept: Any) -> None:
    """With a limit only the cases of this run count, and so few cannot fail."""
    worsen(kept, WORSE)
    entry = kept.scores(*AGAINST, "--seg-limit", "4")["bright-squares-box_all"]["baseline"]
    assert (entry["n"], entry["verdict"], entry["interval"]) == (4, "warn", None)


def test_tolerance_and_baseline_from_the_ini_file(kept: Any) -> None:
    """Ini values do what the options do; a folder of results serves as a name does."""
    shutil.copytree(kept.pytester.path / "leaderboard/baselines/main", kept.pytester.path / "old")
    worsen(kept, WORSE)
    ini = "[pytest]\npythonpath = .\nseg_device = cpu\nseg_baseline = old\n"
    kept.pytester.makeini(ini)
    kept.run(*CELL, code=1).assert_outcomes(failed=1)
    kept.pytester.makeini(f"{ini}seg_max_drop = 0.9\n")
    kept.run(*CELL, code=0).assert_outcomes(passed=1)


def test_a_threshold_and_a_baseline_are_both_asserted(kept: Any) -> None:
    """One that holds does not excuse the other; a threshold of other cases is not asserted beside a baseline."""
    mine = kept.pytester.path / "mine.toml"
    table = '[bright.squares]\nbox_all = {{value = {}, select = "confident", tolerance = 0, source = "test"{}}}\n'
    mine.write_text(table.format(1.0, ""))
    kept.run(*AGAINST, "--seg-thresholds", "mine.toml", code=1).stdout.fnmatch_lines(["*mean IoU 0.* < 1.000*"])
    mine.write_text(table.format(1.0, ", n = 3"))
    kept.run(*AGAINST, "--seg-thresholds", "mine.toml", code=0).assert_outcomes(passed=1)
    worsen(kept, WORSE)
    mine.write_text(table.format(0.1, ""))
    kept.run(*AGAINST, "--seg-thresholds", "mine.toml", code=1).stdout.fnmatch_lines(["*baseline main: worse*"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seg-baseline", "mian"), "*There is no baseline 'mian'*there: main*"),
        (("--seg-baseline", "leaderboard/results"), "*is the results folder of this run*"),
        (("--seg-baseline", "main", "--seg-max-drop", "2"), "*--seg-max-drop must be a number from 0 to 1, not '2'*"),
        (("--seg-baseline", "main", "--seg-max-drop", "x"), "*--seg-max-drop must be a number from 0 to 1, not 'x'*"),
        (("--seg-strata", "hue"), "*--seg-strata must be a comma-separated list of size and parts, not 'hue'*"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(kept: Any, arguments: tuple[str, ...], words: str) -> None:
    """Before anything is evaluated."""
    result = kept.run(*CELL, *arguments, code=pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines([words])
