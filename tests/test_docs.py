"""The documents: complete, without broken links, in step with the code, and their examples run."""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image
from support.inside import run_inside
from support.paths import ROOT
from support.script_modules import load_script
from typer.testing import CliRunner

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


def _install(folder: Path, site: Path) -> None:
    """Stand in for ``pip install -e .``: without network, and into a folder of its own."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, folder], check=True)


class Reader:
    """Does what a document says, in a folder of its own.

    Its commands run in this process, where torch and OpenCV are loaded once; but for those with ``-n``, which start
    processes anyway.
    """

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self.folder = pytester.path
        for name in [name for name in os.environ if name.startswith(("PYTEST_", "PROMPTSEG_", "COV_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("PROMPTSEG_CACHE", str(self.folder / "cache"))
        monkeypatch.chdir(self.folder)
        monkeypatch.syspath_prepend(self.folder / "site")

    def do(self, line: str) -> str:
        """Run a command, which must succeed; return what it prints."""
        program, *arguments = shlex.split(line, comments=True)
        return {"pytest": self._pytest, "promptseg": self._promptseg}[program](arguments)

    def _pytest(self, arguments: Sequence[str]) -> str:
        run = self._pytester.runpytest_subprocess if "-n" in arguments else partial(run_inside, self._pytester)
        done = run("-p", "no:cacheprovider", *arguments)
        assert done.ret == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def _promptseg(self, arguments: Sequence[str]) -> str:
        done = CliRunner().invoke(main.app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{arguments}\n{done.output}"
        return done.stdout


@pytest.fixture
def reader(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Return somebody who follows a document."""
    return Reader(pytester, monkeypatch)


def _commands(path: Path) -> list[str]:
    """Return all commands of a document but for installations."""
    consoles = [block.text for block in blocks(path) if block.language == "console"]
    lines = [line.removeprefix("$ ") for text in consoles for line in text.splitlines()]
    return [line for line in lines if not line.startswith("pip ")]


def _follow(path: Path, reader: Reader) -> int:
    """Do what a guide says; return the number of printed lines that it promised and that came."""
    write_files(path, reader.folder)
    _install(reader.folder, reader.folder / "site")
    importlib.invalidate_caches()
    seen, printed = 0, ""
    for block in blocks(path):
        if block.language == "console":
            lines = [line.removeprefix("$ ") for line in block.text.splitlines()]
            printed = "".join(reader.do(line) for line in lines if not line.startswith("pip "))
        elif block.language == "text" and printed:
            for line in block.text.splitlines():
                assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed), f"{line}\n\n{printed}"
                seen += 1
    return seen


def test_the_guide_to_models_ends_where_it_says(reader: Reader) -> None:
    """From its files, its commands print the scores that it shows; the reader's own test of the contract passes."""
    assert _follow(ROOT / "docs/adding-a-model.md", reader) == 6
    assert "1 passed" in reader.do("pytest tests")


def test_the_guide_to_data_sets_ends_where_it_says(reader: Reader) -> None:
    """From its files, its commands print the scores that it shows."""
    assert _follow(ROOT / "docs/adding-a-data-set.md", reader) == 3


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


def test_the_examples_of_the_readme_run(reader: Reader) -> None:
    """Own images by promptseg.toml, and the gate with its own thresholds and ini file."""
    path = ROOT / "README.md"
    write_files(path, reader.folder)
    _kidneys(reader.folder / "kidneys")
    lines = _commands(path)
    [own] = [line for line in lines if "kidneys_kidney" in line]
    assert "2 scored" in reader.do(own)
    [gate] = [line for line in lines if "scores.json" in line]
    assert "1 passed" in reader.do(gate)


def test_the_guide_to_submitting_ends_where_it_says(reader: Reader) -> None:
    """Results are made, submitted and verified by its commands."""
    path = ROOT / "docs/submitting.md"
    printed = [reader.do(line) for line in _commands(path)]
    [promised] = [block.text.splitlines() for block in blocks(path) if block.language == "text"]
    assert "submission (3 cells)" in printed[1]
    for line in promised:
        assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed[-1]), printed[-1]


def _steps(workflow: str) -> list[str]:
    """Return what the steps of a workflow in docs/ci.md run."""
    [text] = [block.text for block in blocks(ROOT / "docs/ci.md") if block.name.endswith(workflow)]
    [job] = yaml.safe_load(text)["jobs"].values()
    return [step["run"].strip() for step in job["steps"] if "run" in step]


def test_the_gate_of_the_ci_guide_passes(reader: Reader) -> None:
    """The workflow's own command, after the baseline was saved as the guide says, in a project with nothing else."""
    [gate] = [command for command in _steps("gate.yml") if command.startswith("pytest")]
    cells = " ".join(gate.replace("--seg-baseline=main", "").split("--junit-xml")[:1])
    reader.do(cells)
    reader.do("promptseg baseline save main")
    assert re.search(r"baseline main: \d+ pass", reader.do(gate))
    assert (reader.folder / "junit.xml").is_file()


def test_workflows_use_options_that_exist() -> None:
    """Every --seg option in a workflow is one, with the commands that need a GPU machine too."""
    used = set(re.findall(r"--seg-([\w-]+)", "\n".join(_steps("gate.yml") + _steps("nightly.yml"))))
    assert used
    assert used <= {setting.name for setting in SETTINGS}


def test_the_tutorial_ends_where_it_says(reader: Reader) -> None:
    """Its commands run one after the other, and the leaderboard has the rows that it shows."""
    path = ROOT / "docs/tutorial.md"
    for line in _commands(path):
        reader.do(line)
    [board] = [b.text.splitlines() for b in blocks(path) if b.text.startswith("| model")]
    assert set(board) <= set((reader.folder / "leaderboard/LEADERBOARD.md").read_text().splitlines())
    assert (reader.folder / "leaderboard/report/index.html").is_file()


def test_the_examples_of_the_results_run(reader: Reader) -> None:
    """Tests of one's own pass as shown, the JSON has the keys that the example has, and the examples read them."""
    path = ROOT / "docs/results.md"
    write_files(ROOT / "docs/thresholds.md", reader.folder)
    chosen = "--seg-models box_fill --seg-tasks phantom_ct --seg-modes box_all"
    assert "3 passed" in reader.do(f"pytest -q {chosen} --seg-save-masks --seg-json=scores.json")
    [shown] = [json.loads(block.text) for block in blocks(path) if block.language == "json"]
    written = json.loads((reader.folder / "scores.json").read_text())
    assert shown.keys() == written.keys()
    assert shown["run"].keys() == written["run"].keys()
    assert shown["cells"][0].keys() == written["cells"][0].keys()
    examples = [b.text for b in blocks(path) if b.language == "python" and not b.name]
    assert len(examples) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as a script has them: pycocotools deserves one
        for example in examples:
            (reader.folder / "example.py").write_text(example)
            runpy.run_path("example.py", run_name="__main__")
