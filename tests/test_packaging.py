"""The wheel: it holds what the folders hold, and works where nothing of the checkout is in reach."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MOUNTED = {  # folder to package
    folder: package.replace(".", "/") for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()
}
MADE_BY_RUNS = ("LEADERBOARD.md", "report", "results")  # in leaderboard/


def _is_made(path: Path) -> bool:
    """Whether a run or an import made a file or folder of the checkout."""
    return path.name == "__pycache__" or (path.parent == ROOT / "leaderboard" and path.name in MADE_BY_RUNS)


def _files() -> dict[str, bytes]:
    """Return what the wheel must hold: path in it to content."""
    found = {}
    for folder, package in MOUNTED.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            if path.is_file() and not any(map(_is_made, (path, *path.parents))):
                found[f"{package}/{inside.as_posix()}"] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: a build folder left by another build would bring deleted modules back."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in MOUNTED:
        shutil.copytree(
            ROOT / name, folder / name, ignore=lambda here, names: [n for n in names if _is_made(Path(here) / n)]
        )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment; what it depends on is borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    found = folder / "venv/bin/python"
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "--python", str(found), "install", *options, str(wheel)]
    subprocess.run(command, check=True)
    [site] = (folder / "venv/lib").glob("python*/site-packages")
    # Only a line of a path: .pth files in the folder it names, such as those of editable installations, are not read.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    return found


def test_wheel_holds_what_the_folders_hold(wheel: Path) -> None:
    """Every module and data file is in it, unchanged, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        held = {name: archive.read(name) for name in names}
    expected = _files()
    assert sorted(held) == sorted(expected)
    assert [name for name in held if held[name] != expected[name]] == []


def test_wheel_says_what_it_is(wheel: Path) -> None:
    """Name, version, licence text, extras, entry points and the README as its description."""
    with zipfile.ZipFile(wheel) as archive:
        about = {name.partition(".dist-info/")[2]: archive.read(name).decode() for name in archive.namelist()}
    metadata = HeaderParser().parsestr(about["METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("pytest-promptseg", PROJECT["project"]["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["project"]["optional-dependencies"])
    assert about["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "make demo" in metadata.get_payload()
    for group, entries in PROJECT["project"]["entry-points"].items():
        assert f"[{group}]" in about["entry_points.txt"]
        assert all(f"{name} = {value}" in about["entry_points.txt"] for name, value in entries.items())


def test_wheel_evaluates_in_another_folder(python: Path, tmp_path: Path) -> None:
    """The benchmark runs from the wheel, passes by the thresholds in it, and writes the leaderboard."""
    cells = "box_fill and phantom_ct and box_all"
    command = [str(python), "-m", "pytest", "--pyargs", "promptseg.benchmark", "-k", cells, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "| box_fill (floor) |" in (tmp_path / "leaderboard/LEADERBOARD.md").read_text()


def test_installed_names_are_ours_alone(python: Path, tmp_path: Path) -> None:
    """The package is imported from the new environment, every plugin of it resolves, and no bare folder name exists."""
    code = (
        "import importlib.util, promptseg, promptseg.models, promptseg.registry.entries\n"
        "print(promptseg.__file__)\n"
        "print(promptseg.registry.entries.build().problems())\n"
        "print([n for n in ('harness', 'models', 'leaderboard', 'datasets_registry') if importlib.util.find_spec(n)])"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    file, problems, bare = done.stdout.splitlines()
    assert Path(file).is_relative_to(python.parents[1])
    assert (problems, bare) == ("[]", "[]")


def test_assertions_are_explained(python: Path, tmp_path: Path) -> None:
    """A failing gate of an installed wheel shows its message."""
    (tmp_path / "own.toml").write_text(
        '[box_fill.phantom_ct]\nbox_all = {value = 1.0, select = "confident", tolerance = 0.0, source = "a test"}\n'
    )
    cells = "box_fill and phantom_ct and box_all"
    command = [str(python), "-m", "pytest", "--pyargs", "promptseg.benchmark", "-k", cells, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "--seg-thresholds", "own.toml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"box_fill on phantom_ct, box_all: mean IoU 0\.\d{3} < 1\.000 .*a test", done.stdout)


# --- constraints --------------------------------------------------------------------------------------------


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin), f"{pin}: write NAME==VERSION, nothing else"
    return {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}


def test_constraints_pin_every_requirement() -> None:
    """Everything the project asks for, with all extras, is pinned to a version that it allows."""
    asked = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        asked += extra
    pins = _constraints()
    for requirement in map(Requirement, asked):
        if requirement.name == "pytest-promptseg":
            continue
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_torch_and_torchvision_fit() -> None:
    """Torchvision 0.(N + 15) is built for torch 2.N; with another torch pip would fetch gigabytes to make them fit."""
    pins = _constraints()
    torch, torchvision = pins["torch"].split("."), pins["torchvision"].split(".")
    assert (torch[0], torchvision[0]) == ("2", "0")
    assert int(torchvision[1]) == int(torch[1]) + 15
