"""Speed beside quality: which models are measured, what is kept, and how it joins the leaderboard."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.project import Project

from promptseg import registry
from promptseg.errors import ResultsError, UnsupportedPromptError
from promptseg.leaderboard import speed_table
from promptseg.models.reference import floors
from promptseg.models.reference.floors import BOX_FILL
from promptseg.results import speed as results_speed
from promptseg.results.speed import Speed
from promptseg.runner import speed
from promptseg.segmenter import Runtime

FIGURES = Speed(
    model="bright",
    device="A GPU, 80 GB",
    dtype="bfloat16",
    fast=["sdpa"],
    images_per_second=12.345,
    ms_per_prompt=0.5,
    peak_memory=3 * 2**30,
    n_images=4,
    n_prompts=8,
    date="2026-01-31",
    versions={"torch": "2.13.0"},
)


def _collected(project: Project, *arguments: str) -> list[str]:
    lines = project.run("--collect-only", "-q", *arguments).outlines
    return [line.partition("::")[2] for line in lines if "::test_speed[" in line]


@pytest.mark.parametrize("arguments", [(), ("-k", "bright"), ("--seg-models", "bright")])
def test_speed_waits_to_be_named(project: Project, arguments: tuple[str, ...]) -> None:
    """Asking for a model means its cells; nobody waits for rounds of measurement by accident."""
    assert _collected(project, *arguments) == []


@pytest.mark.parametrize(
    "arguments",
    [("-k", "test_speed and bright"), ("-m", "speed", "--seg-models", "bright"), ("-k", "speed and bright")],
)
def test_every_way_of_naming_it_measures_the_model(project: Project, arguments: tuple[str, ...]) -> None:
    """By -k and by mark."""
    assert _collected(project, *arguments) == ["test_speed[bright]"]


def test_a_model_that_takes_neither_points_nor_boxes_is_not_measured() -> None:
    """There is no figure of no prompt."""
    spec = dataclasses.replace(BOX_FILL, name="tracer", accepts=frozenset({"text", "feedback"}))
    with pytest.raises(UnsupportedPromptError, match="tracer takes text; speed is measured with a point and a box"):
        speed.Rounds(floors.load(spec, {}, Runtime()), "cpu", registry.build())


def test_a_measurement_is_kept_and_joins_the_board(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are a file beside the scores, extra info for pytest-benchmark, and a row of the board."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the run that this test belongs to
    result = project.run("-k", "test_speed and bright", "--benchmark-json", "benchmark.json", code=0, apart=True)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["speed: bright: * images/s, * ms/prompt, peak memory * GiB (*, float32)"])
    results = project.pytester.path / "leaderboard" / "results"
    (found,) = (results_speed.read(path) for path in results_speed.files(results))
    assert (found.model, found.dtype, found.n_images, found.n_prompts) == ("bright", "float32", 4, 8)
    document = json.loads((project.pytester.path / "benchmark.json").read_text())
    assert document["benchmarks"][0]["extra_info"] == dataclasses.asdict(found)
    assert len(project.calls("embed")) == speed.N_IMAGES * (speed.ROUNDS + 1)
    board = project.pytester.path / "leaderboard" / "LEADERBOARD.md"
    row = next(line for line in board.read_text().splitlines() if line.startswith("| bright"))
    assert all(figure in row for figure in results_speed.figures(found))


def test_figures_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medians over the rounds: 4 images in 2 s are 2 a second, 8 prompts in 4 s are 500 ms each."""

    class Model:
        spec = dataclasses.make_dataclass("Spec", ["name", "accepts", "sees_target"])("m", {"points", "boxes"}, False)

    rounds = speed.Rounds(Model(), "cpu", registry.build())  # type: ignore[arg-type] # never run: the seconds are given
    rounds.encode, rounds.decode = [2.0, 1.0, 9.0], [4.0, 100.0, 1.0]
    found = speed.measured(rounds, Runtime())
    assert (found.images_per_second, found.ms_per_prompt) == (2.0, 500.0)
    assert found.peak_memory > 10**7


def test_several_workers_measure_nothing(project: Project) -> None:
    """Beside other work a speed means nothing: the test says so."""
    result = project.run("-k", "test_speed and bright", "-n", "1", "-rs")
    result.stdout.fnmatch_lines(["*without -n*"])
    assert results_speed.files(project.pytester.path / "leaderboard" / "results") == []


def test_missing_weights_are_a_skip_that_says_how_to_bring_them(
    project: Project, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for cells."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = project.run("-k", "test_speed and sam_vit_b and not feedback and not medsam", "-rs", code=0)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*promptseg pull sam_vit_b*"])


def test_without_its_plugin_it_says_what_to_install(project: Project) -> None:
    """Whether pytest-benchmark is not installed or switched off."""
    result = project.run("-k", "test_speed and bright", "-p", "no:benchmark", "-rs", code=0)
    result.stdout.fnmatch_lines(["*test_speed needs the package pytest-benchmark: pip install *"])


@pytest.mark.parametrize(
    ("images", "prompts", "shown"),
    [(12.345, 0.5, ("12.3", "0.5", "3.00 GiB")), (1234.5, 2345.6, ("1234", "2346", "3.00 GiB"))],
)
def test_figures_are_plain_numbers(images: float, prompts: float, shown: tuple[str, str, str]) -> None:
    """Three digits, no powers of ten; a model that encodes nothing has a bound in place of a number."""
    found = dataclasses.replace(FIGURES, images_per_second=images, ms_per_prompt=prompts)
    assert results_speed.figures(found) == shown
    assert results_speed.figures(dataclasses.replace(found, images_per_second=9.89e5))[0] == "over 10000"


def test_files_are_read_back_and_foreign_ones_are_named(tmp_path: Path) -> None:
    """A torn, foreign or renamed file is a line on the board, never a number."""
    path = results_speed.write(tmp_path, FIGURES)
    assert path.relative_to(tmp_path).as_posix() == "bright/.speed/a_gpu_80_gb-bfloat16-sdpa.json"
    assert results_speed.read(path) == FIGURES
    for name, text in [("torn", path.read_text()[:40]), ("foreign", "[1]"), ("other", json.dumps({"schema": 1}))]:
        path.with_name(f"{name}.json").write_text(text)
        with pytest.raises(ResultsError, match=name):
            results_speed.read(path.with_name(f"{name}.json"))
    found, problems = speed_table.read_speeds([tmp_path, tmp_path])
    assert found == [FIGURES]
    assert [problem.split(" ")[0] for problem in problems] == [
        f"bright/.speed/{n}.json" for n in ("foreign", "other", "torn")
    ]


def test_the_table_compares_on_one_device_and_escapes_names() -> None:
    """Rows of a device stand together, the fastest encoder first; names are shown as they are."""
    speeds = [
        dataclasses.replace(FIGURES, model="slow", images_per_second=1.0),
        dataclasses.replace(FIGURES, model="a|<b>", device="other"),
        FIGURES,
    ]
    rows = [line for line in speed_table.section(speeds).splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == ["bright", "slow", "a&#124;&#60;b&#62;"]
    assert speed_table.section([]) == ""
