"""The whole road: files as their owners publish them, ``promptseg data prepare``, and pytest on what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from archives import BUILDERS, DATA, REAL, Builder, Cases, Content, builder_of, spec_of, synthetic, zipped
from typer.testing import CliRunner

from promptseg import canonical, store
from promptseg.cli import app
from promptseg.images import normalise
from promptseg.results import read_parquet
from promptseg.samples import target_of

NAMES = [f"{builder.dataset}-{builder.layout}" for builder in BUILDERS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(builder: Builder, contents: list[Content], folder: Path) -> tuple[Path, Cases]:
    """Write the files of a data set into an archive; return it with the cases that count."""
    folder.mkdir(parents=True)
    expected = builder.build(folder / "files", contents)
    tasks = spec_of(builder.dataset).tasks
    counting = {
        case_id: case for case_id, case in expected.items() if any(target_of(task, case.labels).any() for task in tasks)
    }
    assert counting
    return zipped(folder / "files", folder / "owners.zip"), counting


def prepare(builder: Builder, contents: list[Content], folder: Path) -> Cases:
    """Build a data set and prepare it by the command; return the cases that count."""
    archive, expected = build(builder, contents, folder)
    result = CliRunner().invoke(app, ["data", "prepare", builder.dataset, "--from", str(archive)])
    assert result.exit_code == 0, result.output
    assert f"{builder.dataset}: {len(expected)} images" in result.output
    return expected


def check_samples(name: str, expected: Cases) -> None:
    """Assert that an evaluation gets the images, label maps and patients that were put into the files."""
    _, samples = store.open_samples(spec_of(name))
    assert list(samples.ids()) == sorted(expected)
    for case_id, want in expected.items():
        np.testing.assert_array_equal(samples.labels(case_id), want.labels, err_msg=case_id)
        np.testing.assert_array_equal(samples.image(case_id), normalise(want.image), err_msg=case_id)
        assert samples.subject(case_id) == want.subject_id


@pytest.mark.parametrize("builder", BUILDERS, ids=NAMES)
def test_what_is_in_the_archive_is_what_is_evaluated(builder: Builder, tmp_path: Path) -> None:
    """Every layout of every data set, to the last pixel."""
    check_samples(builder.dataset, prepare(builder, synthetic(builder.kind), tmp_path / "source"))


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}")
@pytest.mark.parametrize("name", REAL)
def test_real_images_go_the_whole_road(name: str, tmp_path: Path) -> None:
    """Real images and masks, in every format of the catalogue."""
    dataset, layout, contents = REAL[name]
    check_samples(dataset, prepare(builder_of(dataset, layout), contents(), tmp_path / "source"))


def test_every_task_is_scored(tmp_path: Path, pytester: pytest.Pytester) -> None:
    """One run of pytest over all prepared data sets scores as many cases as each task has."""
    counts: dict[str, int] = {}
    for builder in (one for one in BUILDERS if one.layout == 0):
        expected = prepare(builder, synthetic(builder.kind), tmp_path / builder.dataset)
        for task in spec_of(builder.dataset).tasks:
            counts[task.name] = sum(bool(target_of(task, case.labels).any()) for case in expected.values())
    counts = {task: count for task, count in counts.items() if count}  # the drawn volumes hold two labels only
    cells = ("--seg-models", "box_fill", "--seg-modes", "box_all", "--seg-tasks", ",".join(counts))
    run = pytester.runpytest_subprocess("--pyargs", "promptseg.benchmark", *cells, "--seg-json", "scores.json", "-q")
    scored = json.loads((pytester.path / "scores.json").read_text())["cells"]
    assert {cell["task"]: cell["n"] for cell in scored} == counts, run.stdout.str()
    assert all(cell["n_errors"] == 0 and cell["mean_iou"] > 0 for cell in scored)
    stored = read_parquet(pytester.path / "leaderboard/results/box_fill/us_breast/box_all.parquet")
    told = stored.provenance["dataset"]["prepared"]
    record = canonical.find(spec_of("us_breast"))
    assert record is not None
    assert told == {"layout": "the owners' archive", "fingerprint": record.fingerprint}
