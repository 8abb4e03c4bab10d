"""The whole road: files as their owners publish them, ``promptseg data prepare``, and pytest on what it wrote."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.archives import (
    BUILDERS,
    DATA,
    REAL,
    Builder,
    Cases,
    Content,
    builder_of,
    spec_of,
    synthetic,
    write_nifti,
    zipped,
)
from support.inside import run_inside
from typer.testing import CliRunner

from promptseg.cli.main import app
from promptseg.data import prepared
from promptseg.data.images import normalise
from promptseg.preparation import fetch
from promptseg.results.parquet import read_parquet
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
    _, samples = fetch.open_samples(spec_of(name))
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
    run = run_inside(pytester, "--pyargs", "promptseg.benchmark", *cells, "--seg-json", "scores.json", "-q")
    scored = json.loads((pytester.path / "scores.json").read_text())["cells"]
    assert {cell["task"]: cell["n"] for cell in scored} == counts, run.stdout.str()
    assert all(cell["n_errors"] == 0 and cell["mean_iou"] > 0 for cell in scored)
    stored = read_parquet(pytester.path / "leaderboard/results/box_fill/us_breast/box_all.parquet")
    told = stored.provenance.dataset.prepared
    assert told is not None
    record = prepared.find(spec_of("us_breast"))
    assert record is not None
    assert told == {"layout": "the owners' archive", "fingerprint": record.fingerprint}


# --- what is refused ----------------------------------------------------------------------------------------


def another_data_set(folder: Path) -> Path:
    """Return the archive of BUSI."""
    return build(builder_of("us_breast"), synthetic("grey"), folder / "other")[0]


def without_a_label_file(folder: Path) -> Path:
    """Remove one mask."""
    next(folder.rglob("labelsTr/spleen_003.nii.gz")).unlink()
    return zipped(folder, folder.with_suffix(".zip"))


def with_unknown_ids(folder: Path) -> Path:
    """Draw a second object, which the spleen's data set has none of."""
    labels = np.zeros((4, 10, 11), np.uint8)
    labels[1, 2:4] = 7
    write_nifti(next(folder.rglob("labelsTr/spleen_003.nii.gz")), labels, (3.0, 1.5, 1.25))
    return zipped(folder, folder.with_suffix(".zip"))


def packed_by_gzip(folder: Path) -> Path:
    """Return a whole .tar.gz."""
    target = folder.with_suffix(".tar.gz")
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "Task09_Spleen")
    return target


def cut_after(share: float, pack: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Return what packs a folder and keeps the first part of the archive alone, as a broken download does."""

    def cut(folder: Path) -> Path:
        target = pack(folder)
        content = target.read_bytes()
        target.write_bytes(content[: int(len(content) * share)])
        return target

    return cut


def with_a_member_outside(folder: Path) -> Path:
    """Add a member that would be unpacked two folders above."""
    target = zipped(folder, folder.with_suffix(".zip"))
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("../../outside.txt", "x")
    return target


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (
            another_data_set,
            r"does not hold ct_spleen: expected imagesTr/spleen_N\.nii\.gz .*; found .*benign \(2\)\.png",
        ),
        (without_a_label_file, r"missing label file: 1 of 2 images lack a mask: .*imagesTr/spleen_003\.nii\.gz"),
        (with_unknown_ids, r"the mask of spleen_003_z001 holds the label ids \[7\]; the spec knows \[1\]"),
        (cut_after(0.6, packed_by_gzip), r"files\.tar\.gz was cut or is damaged"),
        (cut_after(0.999, packed_by_gzip), r"files\.tar\.gz was cut or is damaged"),
        (
            cut_after(0.6, lambda folder: zipped(folder, folder.with_suffix(".zip"))),
            r"files\.zip was cut or is damaged",
        ),
        (with_a_member_outside, r"the member '\.\./\.\./outside\.txt' has a path that leads out of the archive"),
    ],
    ids=["another data set", "label file", "label ids", "cut gzip", "cut gzip end", "cut zip", "outside"],
)
def test_what_is_refused_leaves_nothing_behind(
    spoilt: Callable[[Path], Path], message: str, tmp_path: Path, cache: Path
) -> None:
    """The command names the fault and ends with 1; the cache holds no file, and nothing is written outside of it."""
    files = tmp_path / "deep" / "source" / "files"
    builder_of("ct_spleen").build(files, synthetic("organ"))
    source = spoilt(files)
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    result = CliRunner().invoke(app, ["data", "prepare", "ct_spleen", "--from", str(source)])
    assert result.exit_code == 1
    assert re.search(message, result.stderr), result.output
    assert result.stderr.startswith("Error: ")
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert {path for path in tmp_path.rglob("*") if cache not in path.parents} == before | {cache}
