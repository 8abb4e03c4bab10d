"""Packages of outsiders, really installed: one that works and one that is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.inside import run_inside
from support.paths import PACKAGES


def _install(name: str, folder: Path) -> Path:
    """Build and install a package of this folder without network; return where it went."""
    source, site = folder / name, folder / "site"
    shutil.copytree(PACKAGES / name, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, source], check=True)
    return site


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the working package is installed."""
    return _install("outside_plugin", tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the broken package is installed."""
    return _install("broken_plugin", tmp_path_factory.mktemp("broken"))


def _python(site: Path, code: str) -> str:
    """Run code where the package is installed; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


REGISTRY = "from promptseg.registry.entries import build\nregistry = build()\n"


def test_everything_it_brings_is_registered(outside: Path) -> None:
    """Model, data set with both tasks, and prompt mode are found by their entry points."""
    code = REGISTRY + (
        "print('outside_blur_threshold' in registry.models, 'outside_squares' in registry.datasets,\n"
        "      [t for t in registry.tasks if t.startswith('outside')], 'point_corner' in registry.modes)"
    )
    assert _python(outside, code) == "True True ['outside_squares_large', 'outside_squares_small'] True"


def test_its_specs_import_nothing_heavy(outside: Path) -> None:
    """Describing what it brings imports neither numpy nor an image library."""
    code = (
        "import sys, promptseg_outside.model, promptseg_outside.dataset, promptseg_outside.mode\n"
        "print(sorted({'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert _python(outside, code) == "[]"


def test_its_model_conforms(outside: Path) -> None:
    """The model passes the conformance kit."""
    code = (
        "from promptseg import Runtime\n"
        "from promptseg.testing import assert_conforms\n"
        "from promptseg_outside.model import SPEC, load\n"
        "assert_conforms(load(SPEC, {}, Runtime()))\n"
        "print('conforms')"
    )
    assert _python(outside, code) == "conforms"


def test_its_model_solves_its_data_with_its_prompts(outside: Path) -> None:
    """From one corner of each square the model finds all of it."""
    code = (
        "import numpy as np\n"
        "from promptseg import Request, Runtime\n"
        "from promptseg.samples import target_of\n"
        "from promptseg_outside import dataset, mode, model\n"
        "samples, segmenter = dataset.load(dataset.SPEC, None), model.load(model.SPEC, {}, Runtime())\n"
        "for task in dataset.SPEC.tasks:\n"
        "    scores = []\n"
        "    for case_id in samples.ids():\n"
        "        target = target_of(task, samples.labels(case_id))\n"
        "        for prompt in mode.point_corner(target, np.random.default_rng(0)) if target.any() else ():\n"
        "            mask = segmenter.predict([Request(samples.image(case_id), prompt)])[0].masks[0]\n"
        "            scores.append((mask & target).sum() / (mask | target).sum())\n"
        "    print(task.name, len(scores), min(scores))"
    )
    assert _python(outside, code).splitlines() == ["outside_squares_large 6 1.0", "outside_squares_small 5 1.0"]


def test_broken_package_stays_listed_with_its_problems(broken: Path) -> None:
    """The import error and the taken name are told; all other models can be used."""
    code = REGISTRY + "print(*registry.problems(), sep='\\n')\nprint(registry.model('point_disc').name)"
    *problems, last = _python(broken, code).splitlines()
    assert last == "point_disc"
    assert any("broken_import" in line and "libmissing.so.1" in line for line in problems)
    assert any(
        "box_fill" in line and "promptseg-broken-example" in line and "pytest-promptseg" in line for line in problems
    )


def test_its_cells_run_as_tests(outside: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model, data set and prompt mode are cells like any other, and its scores are on the board."""
    monkeypatch.syspath_prepend(outside)
    arguments = ("--seg-models", "outside_blur_threshold,box_fill", "--seg-modes", "point_corner,box_all")
    result = run_inside(
        pytester, "--pyargs", "promptseg.benchmark", *arguments, "--seg-tasks", "outside_squares_large", "-rs"
    )
    outcomes = result.parseoutcomes()
    assert outcomes["scored"] + outcomes.get("skipped", 0) == 4
    board = (pytester.path / "leaderboard" / "LEADERBOARD.md").read_text()
    assert "outside_blur_threshold" in board
    assert "point_corner" in board


def test_a_broken_plugin_fails_by_name_and_the_rest_runs(
    broken: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that does not import and a name claimed twice fail with their reasons; other models are scored."""
    monkeypatch.syspath_prepend(broken)
    models = "broken_import,box_fill,region_growing"
    arguments = ("--seg-models", models, "--seg-tasks", "phantom_ct", "--seg-modes", "box_all", "--seg-limit", "2")
    result = run_inside(pytester, "--pyargs", "promptseg.benchmark", *arguments)
    assert result.parseoutcomes() == {"failed": 2, "scored": 1}
    result.stdout.fnmatch_lines(
        [
            "*box_fill-phantom_ct-box_all: The model name 'box_fill' is claimed by promptseg-broken-example 0.1.0 and "
            "pytest-promptseg *. Rename one, or uninstall one of the two.",
            "*broken_import-phantom_ct-box_all: model 'broken_import' of promptseg-broken-example 0.1.0 *cannot be "
            "imported: *",
            "broken plugin: *",
        ]
    )
