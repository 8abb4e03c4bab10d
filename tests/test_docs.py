"""The documents: complete, without broken links, in step with the code, and their examples run."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image
from support.paths import ROOT
from support.script_modules import load_script

from promptseg import plugin, registry
from promptseg.cli import data, main
from promptseg.registry import config
from promptseg.session.command_line import SETTINGS

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
USERS = "\n".join(path.read_text() for path in DOCUMENTS if path.name not in ("CHANGELOG.md", "CONTRIBUTING.md"))


class Block(NamedTuple):
    """A fenced block: its language, the file it stands for (or nothing), and its text."""

    language: str
    name: str
    text: str


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(*groups) for groups in found]


def write_files(path: Path, folder: Path) -> None:
    """Write the named blocks of a document as the reader would."""
    for block in blocks(path):
        if block.name:
            (folder / block.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.name).write_text(block.text)


# --- complete -----------------------------------------------------------------------------------------------


def _to_document() -> Iterator[str]:
    for setting in SETTINGS:
        yield f"`--seg-{setting.name}"
        yield f"`seg_{setting.name.replace('-', '_')}`"
    for command in main.app.registered_commands:
        yield f"promptseg {command.name or getattr(command.callback, '__name__', '')}"
    for command in data.app.registered_commands:
        yield f"promptseg data {command.name or getattr(command.callback, '__name__', '')}"
    yield from (f"`{line.split(':')[0]}`" for line in plugin.MARKERS)
    yield from ("`seg_cell`", "`seg_evaluate`", "`seg_speed`")
    for names in (registry.build().modes, registry.build().models, registry.build().tasks):
        yield from (f"`{name}`" for name in names)
    yield from (f"`{adapter}`" for adapter in config.ADAPTERS)


@pytest.mark.parametrize("text", sorted(set(_to_document())))
def test_everything_a_user_can_write_is_documented(text: str) -> None:
    """Options, ini values, commands, marks, fixtures, prompt modes, models, tasks and adapters are in the documents."""
    assert text in USERS


@pytest.mark.parametrize("key", sorted({*config.DATASET_KEYS, *config.MODEL_KEYS}))
def test_keys_of_promptseg_toml_are_documented(key: str) -> None:
    """Every key of promptseg.toml is in the guides, in an example or by name."""
    assert re.search(rf"(^{key} = |`{key}`|\b{key} = )", USERS, re.MULTILINE)


# --- correct ------------------------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_between_documents_resolve(name: str) -> None:
    """Each relative link names a file that is there, and a heading that is in it."""
    path = ROOT / name
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("docs/") and name != "docs/rivals.md"])
def test_files_that_are_named_exist(name: str) -> None:
    """A path below a folder of the repository, named as code, is there; docs/rivals.md names files of others."""
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    for path in re.findall(r"`((?:harness|datasets_registry|models|scripts|benchmarks|tests|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short() -> None:
    """The README fits into 10 kB: what it is, how to run it, and links to the rest."""
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


def test_every_page_is_in_the_navigation() -> None:
    """The index of the documents links to each page, and so does the navigation of the site."""
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}
    index = (ROOT / "docs/index.md").read_text()
    site = (ROOT / "mkdocs.yml").read_text()
    assert [name for name in sorted(pages) if f"]({name})" not in index] == []
    assert [name for name in sorted(pages) if f": {name}\n" not in site] == []


def test_file_names_of_examples_are_titles_on_the_site() -> None:
    """A fence with a file name, which Markdown does not know, gets it as its title; others stay as they are."""
    page = "```toml promptseg.toml\na = 1\n```\n```text\nb c\n```\n"
    expected = page.replace("toml promptseg.toml", 'toml title="promptseg.toml"')
    assert load_script("site_hooks").on_page_markdown(page, page=None) == expected


@pytest.mark.parametrize("name", NAMES)
def test_examples_parse(name: str) -> None:
    """Python, TOML, JSON, YAML, ini and shell blocks are what they say."""
    parsers: dict[str, Callable[[str], object]] = {
        "python": ast.parse,
        "toml": tomllib.loads,
        "json": json.loads,
        "yaml": lambda text: list(yaml.safe_load_all(text)),
        "ini": _parse_ini,
        "bash": _parse_shell,
    }
    for block in blocks(ROOT / name):
        if block.language in parsers:
            parsers[block.language](block.text)


def _parse_ini(text: str) -> None:
    configparser.ConfigParser().read_string(text)


def _parse_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


_AFTER_BLANK = f"--seg-({'|'.join(setting.name for setting in SETTINGS if setting.takes_path)})\\s+"
_MODULES = ("harness", "models", "datasets_registry", "leaderboard", "scripts", "benchmarks")


def _after_blank(path: Path) -> list[str]:
    """Return the places where a path follows its option and a blank; in a module its texts for people may go on."""
    value = r"[A-Z./~\"'{$]\S*" if path.suffix == ".py" else r"[^\s`|-]\S*"
    return [found[0] for found in re.finditer(_AFTER_BLANK + value, path.read_text())]


def test_paths_are_written_after_an_equals_sign() -> None:
    """Documents, workflows and messages never show the form that can move pytest's root."""
    others = [ROOT / "Makefile", *ROOT.glob(".ci/*"), *ROOT.glob("*.yml"), *ROOT.glob(".github/**/*.yml")]
    modules = [path for folder in _MODULES for path in (ROOT / folder).rglob("*.py")]
    paths = [*DOCUMENTS, *others, *modules]
    assert len(modules) > 100
    assert {str(path): found for path in paths if path.is_file() and (found := _after_blank(path))} == {}


def test_the_form_after_a_blank_is_recognised(tmp_path: Path) -> None:
    """In a fence, in a sentence, over the end of a line; options without a value are none."""
    path = tmp_path / "page.md"
    path.write_text("`--seg-json PATH`, --seg-results\n  out, `--seg-json` has, --seg-json=x.json --seg-results -q")
    assert _after_blank(path) == ["--seg-json PATH`,", "--seg-results\n  out,"]
    path = path.rename(tmp_path / "messages.py")
    path.write_text("'--seg-json has all, with --seg-results, or --seg-results {folder}'")
    assert _after_blank(path) == ["--seg-results {folder}'"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_one_machine(name: str) -> None:
    """No document names a package index by address, or an absolute path."""
    text = (ROOT / name).read_text()
    assert not re.search(r"pypi\.org|pythonhosted|registry\.npmjs|npmjs\.com", text)
    assert not re.search(r"[\s`\"'(=](/home/|/root/|/work/|/opt/|/tmp/)", text)


def test_tables_are_in_step_with_the_code() -> None:
    """`make docs-write` would change nothing."""
    command = [sys.executable, "-m", "cogapp", "-I", "scripts/docs", "--check"]
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- runs ---------------------------------------------------------------------------------------------------


def _environment(site: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PROMPTSEG_", "COV_"))}
    return {**kept, "PYTHONPATH": str(site), "COLUMNS": "200", "PROMPTSEG_CACHE": str(site / "cache")}


def _install(folder: Path, site: Path) -> None:
    """Stand in for ``pip install -e .``: without network, and into a folder of its own."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, folder], check=True)


def _run(line: str, folder: Path, site: Path) -> str:
    """Run a command of a document with this interpreter; return what it printed."""
    program, *arguments = shlex.split(line, comments=True)
    starts = {
        "pytest": ["-m", "pytest", "-p", "no:cacheprovider"],
        "promptseg": ["-c", "from promptseg.cli.main import app; app()"],
    }
    command = [sys.executable, *starts[program], *arguments]
    done = subprocess.run(command, cwd=folder, env=_environment(site), capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _follow(path: Path, folder: Path) -> int:
    """Do what a guide says; return the number of printed lines that it promised and that came."""
    write_files(path, folder)
    _install(folder, folder / "site")
    seen, printed = 0, ""
    for block in blocks(path):
        if block.language == "console":
            lines = [line.removeprefix("$ ") for line in block.text.splitlines()]
            printed = "".join(_run(line, folder, folder / "site") for line in lines if not line.startswith("pip "))
        elif block.language == "text" and printed:
            for line in block.text.splitlines():
                assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed), f"{line}\n\n{printed}"
                seen += 1
    return seen


@pytest.mark.parametrize(("guide", "promised"), [("adding-a-model", 6), ("adding-a-data-set", 3)])
def test_guides_end_where_they_say(guide: str, promised: int, tmp_path: Path) -> None:
    """From the files in a guide, its commands print the scores that it shows."""
    assert _follow(ROOT / "docs" / f"{guide}.md", tmp_path) == promised


def test_the_test_of_the_model_guide_passes(tmp_path: Path) -> None:
    """The reader's own test of the contract passes."""
    write_files(ROOT / "docs/adding-a-model.md", tmp_path)
    _install(tmp_path, tmp_path / "site")
    assert "1 passed" in _run("pytest tests", tmp_path, tmp_path / "site")


def _kidneys(folder: Path) -> None:
    """Draw a data set as the README describes it: label 1 a bright square, label 2 a dark one in it."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(3):
        labels = np.zeros((48, 64), dtype=np.uint8)
        labels[10 + i : 34, 12 : 44 + i] = 1
        labels[16:22, 20:28] = 2
        Image.fromarray(np.array([60, 200, 20], dtype=np.uint8)[labels]).save(folder / "images" / f"patient{i}.png")
        Image.fromarray(labels).save(folder / "masks" / f"patient{i}.png")


def test_the_examples_of_the_readme_run(tmp_path: Path) -> None:
    """Own images by promptseg.toml, and the gate with its own thresholds and ini file."""
    path = ROOT / "README.md"
    write_files(path, tmp_path)
    _kidneys(tmp_path / "kidneys")
    lines = [line.removeprefix("$ ") for b in blocks(path) if b.language == "console" for line in b.text.splitlines()]
    [own] = [line for line in lines if "kidneys_kidney" in line]
    assert "2 scored" in _run(own, tmp_path, tmp_path)
    [gate] = [line for line in lines if "scores.json" in line]
    assert "1 passed" in _run(gate, tmp_path, tmp_path)


def test_the_guide_to_submitting_ends_where_it_says(tmp_path: Path) -> None:
    """Results are made, submitted and verified by its commands."""
    path = ROOT / "docs/submitting.md"
    lines = [line.removeprefix("$ ") for b in blocks(path) if b.language == "console" for line in b.text.splitlines()]
    printed = [_run(line, tmp_path, tmp_path) for line in lines]
    [promised] = [block.text.splitlines() for block in blocks(path) if block.language == "text"]
    assert "submission (9 cells)" in printed[1]
    for line in promised:
        assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed[-1]), printed[-1]


def _steps(workflow: str) -> list[str]:
    """Return what the steps of a workflow in docs/ci.md run."""
    [text] = [block.text for block in blocks(ROOT / "docs/ci.md") if block.name.endswith(workflow)]
    [job] = yaml.safe_load(text)["jobs"].values()
    return [step["run"].strip() for step in job["steps"] if "run" in step]


def test_the_gate_of_the_ci_guide_passes(tmp_path: Path) -> None:
    """The workflow's own command, after the baseline was saved as the guide says, in a project with nothing else."""
    [gate] = [command for command in _steps("gate.yml") if command.startswith("pytest")]
    cells = " ".join(gate.replace("--seg-baseline=main", "").split("--junit-xml")[:1])
    _run(cells, tmp_path, tmp_path)
    _run("promptseg baseline save main", tmp_path, tmp_path)
    assert re.search(r"baseline main: \d+ pass", _run(gate, tmp_path, tmp_path))
    assert (tmp_path / "junit.xml").is_file()


def test_workflows_use_options_that_exist() -> None:
    """Every --seg option in a workflow is one, with the commands that need a GPU machine too."""
    used = set(re.findall(r"--seg-([\w-]+)", "\n".join(_steps("gate.yml") + _steps("nightly.yml"))))
    assert used
    assert used <= {setting.name for setting in SETTINGS}


def test_the_tutorial_ends_where_it_says(tmp_path: Path) -> None:
    """Its commands run one after the other, and the leaderboard has the rows that it shows."""
    path = ROOT / "docs/tutorial.md"
    lines = [line.removeprefix("$ ") for b in blocks(path) if b.language == "console" for line in b.text.splitlines()]
    for line in lines:
        if not line.startswith("pip "):
            _run(line, tmp_path, tmp_path)
    [board] = [b.text.splitlines() for b in blocks(path) if b.text.startswith("| model")]
    assert set(board) <= set((tmp_path / "leaderboard/LEADERBOARD.md").read_text().splitlines())
    assert (tmp_path / "leaderboard/report/index.html").is_file()


def test_the_examples_of_the_results_run(tmp_path: Path) -> None:
    """Tests of one's own pass as shown, the JSON has the keys that the example has, and the examples read them."""
    path = ROOT / "docs/results.md"
    write_files(ROOT / "docs/thresholds.md", tmp_path)
    chosen = "--seg-models box_fill --seg-tasks phantom_ct --seg-modes box_all"
    assert "3 passed" in _run(f"pytest -q {chosen} --seg-save-masks --seg-json=scores.json", tmp_path, tmp_path)
    [shown] = [json.loads(block.text) for block in blocks(path) if block.language == "json"]
    written = json.loads((tmp_path / "scores.json").read_text())
    assert shown.keys() == written.keys()
    assert shown["run"].keys() == written["run"].keys()
    assert shown["cells"][0].keys() == written["cells"][0].keys()
    examples = [b.text for b in blocks(path) if b.language == "python" and not b.name]
    assert len(examples) == 3
    for example in examples:
        subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
