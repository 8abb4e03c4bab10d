"""Commands that would move pytest's root or ini file: refused with the command to paste, and no others."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from promptseg.runner.options import CacheLimit
from promptseg.session import command_line, root

OPTIONS = ["--seg-results", "--seg-json", "--seg-thresholds", "--seg-embedding-cache"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with an ini file, in which pytest is started; `pytester.path` is the folder above."""
    folder = pytester.mkdir("project")
    (folder / "pytest.ini").write_text("[pytest]\nseg_limit = 3\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["/usr/bin/pytest"])
    return folder


def refusal(pytester: pytest.Pytester, *arguments: str) -> str:
    """Return the message of the usage error that a command is."""
    with pytest.raises(pytest.UsageError) as caught:
        pytester.parseconfig(*arguments)
    return str(caught.value)


def pasted(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, message: str) -> pytest.Config:
    """Run the command at the end of a message, as far as pytest reads it."""
    words = shlex.split(message.splitlines()[-1])
    if words[0].startswith("PYTEST_ADDOPTS="):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words.pop(0) == "pytest"
    return pytester.parseconfig(*words)


@pytest.mark.parametrize("is_there", [False, True], ids=["first run", "second run"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_path_that_hides_the_ini_file_is_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, project: Path, option: str, *, is_there: bool
) -> None:
    """The first run as well as the second one, which would find another root; what is to be pasted reads the ini."""
    if is_there:
        pytester.mkdir("else where")
    message = refusal(pytester, option, "../else where")
    assert message.startswith(f"{option} ../else where: what follows a blank pytest takes for a path of tests")
    assert f"its ini file would be none, not {project / 'pytest.ini'}: other" in message
    assert f"'{option}=../else where'" in message.splitlines()[-1]
    config = pasted(pytester, monkeypatch, message)
    assert (config.rootpath, config.inipath) == (project, project / "pytest.ini")
    assert command_line.read(config).limit == 3


def test_it_is_an_error_of_usage(pytester: pytest.Pytester, project: Path) -> None:
    """Pytest ends with status 4 and one error, and no conftest.py was looked for."""
    (project / "conftest.py").write_text("raise RuntimeError('imported')")
    result = pytester.runpytest_inprocess("--seg-results", "../elsewhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --seg-results ../elsewhere: *", "pytest *--seg-results=../elsewhere*"])
    assert "imported" not in result.stderr.str()


def test_another_ini_file_or_root_counts_too(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a folder that holds results are none of the project; without ini files it is the root that moves."""
    bare = pytester.mkdir("bare")
    kept = pytester.mkdir("kept")
    monkeypatch.chdir(bare)
    assert f"Then its root would be {pytester.path}, not {bare}: other" in refusal(
        pytester, "--seg-json", "../scores.json"
    )
    (kept / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    message = refusal(pytester, "--seg-thresholds", str(kept / "mine.toml"))
    assert (
        f"its root would be {kept}, not {bare}, and its ini file would be {kept / 'pyproject.toml'}, not none"
        in message
    )


def test_the_project_of_a_folder_of_tests(pytester: pytest.Pytester, project: Path) -> None:
    """An ini file beside the tests is lost to that of the folder above them, in which results are kept."""
    (project / "tests").mkdir()
    (project / "tests" / "pytest.ini").write_text("[pytest]\n")
    assert f"its root would be {project}, not {project / 'tests'}," in refusal(
        pytester, "tests", "--seg-results", "out"
    )
    pytester.parseconfig("tests", "--seg-results", "tests/out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seg-results=../elsewhere",),
        ("--seg-results", "out/results"),
        ("--seg-json", "scores.json", "--seg-thresholds", "mine.toml"),
        ("--seg-embedding-cache", "../elsewhere,50GB"),  # a name that no folder will have
        ("--seg-models", "../box_fill", "--seg-baseline", "../main"),
        ("-c", "pytest.ini", "--seg-results", "../elsewhere"),
        ("-c/dev/null", "--seg-results", "../elsewhere"),
        ("..", "--seg-results", "../elsewhere"),
        ("--", "--seg-results", "../elsewhere"),
    ],
    ids=shlex.join,
)
def test_what_moves_nothing_is_not_refused(
    pytester: pytest.Pytester, project: Path, arguments: tuple[str, ...]
) -> None:
    """With an equals sign, inside of the project, with the ini file named, or where the tests are up there anyway."""
    pytester.parseconfig(*arguments)


def test_any_value_that_is_a_path(pytester: pytest.Pytester, project: Path) -> None:
    """A baseline is a name or a folder, and a task may be called as a folder is: what is there moves the root."""
    pytester.mkdir("before")
    assert "--seg-baseline=../before" in refusal(pytester, "--seg-baseline", "../before")
    assert "--seg-tasks=../before" in refusal(pytester, "--seg-tasks", "../before")


def test_the_root_by_option_does_not_keep_the_ini_file(pytester: pytest.Pytester, project: Path) -> None:
    """``--rootdir`` names the root alone: the ini file would be lost all the same, and with it the thresholds."""
    message = refusal(pytester, "--rootdir", ".", "--seg-results", "../elsewhere")
    assert f"Then its ini file would be none, not {project / 'pytest.ini'}: other" in message
    (project / "pytest.ini").unlink()
    pytester.parseconfig("--rootdir", ".", "--seg-results", "../elsewhere")


def test_options_of_the_environment(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """A value in PYTEST_ADDOPTS moves the root as one on the command line does, and is mended where it stands."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-q --seg-results '../else where'")
    message = refusal(pytester, "--seg-json", "x.json", "-k", "a b")
    assert message.splitlines()[-1].startswith("PYTEST_ADDOPTS='-q '\"'\"'--seg-results=../else where'\"'\"'' pytest ")
    assert pasted(pytester, monkeypatch, message).inipath == project / "pytest.ini"


def test_options_of_the_ini_file_move_nothing(pytester: pytest.Pytester, project: Path) -> None:
    """Pytest reads them when it has found the file."""
    (project / "pytest.ini").write_text("[pytest]\naddopts = --seg-results ../elsewhere\n")
    pytester.mkdir("elsewhere")
    assert pytester.parseconfig().inipath == project / "pytest.ini"


def test_arguments_from_a_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """One a line, as pytest reads them; what is to be pasted holds them all."""
    (project / "arguments.txt").write_text("-q\n--seg-results\n../elsewhere\n")
    message = refusal(pytester, "@arguments.txt")
    assert "pytest -q --seg-results=../elsewhere" in message
    assert pasted(pytester, monkeypatch, message).inipath == project / "pytest.ini"


def test_the_command_is_that_which_was_typed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    """``python -m pytest`` stays so."""
    monkeypatch.setattr("sys.argv", ["/lib/pytest/__main__.py"])
    assert refusal(pytester, "--seg-results", "../x").splitlines()[-1].startswith("python -m pytest --seg-results=../x")


def test_an_ini_file_that_would_stop_pytest(pytester: pytest.Pytester, project: Path) -> None:
    """An ini file on the way that pytest cannot read would end the second run."""
    folder = pytester.mkdir("elsewhere")
    (folder.parent / "pyproject.toml").write_text("[tool")
    assert "It would look for its ini file there, and stop: " in refusal(pytester, "--seg-results", "../elsewhere/out")


# --- the project --------------------------------------------------------------------------------------------


def test_a_promptseg_toml_above_is_said(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is neither in pytest's root nor where pytest was started."""
    (pytester.path / "promptseg.toml").touch()
    below = pytester.mkdir("below")
    config = pytester.parseconfig()
    assert root.remarks(config, root.project_root(config)) == []
    monkeypatch.chdir(below)
    config = pytester.parseconfig("--rootdir=.")
    found = root.project_root(config)
    assert found == pytester.path
    assert root.remarks(config, found) == [
        f"the promptseg.toml of a folder above is used: {pytester.path / 'promptseg.toml'}"
    ]


# --- workers of xdist ---------------------------------------------------------------------------------------


class _Node:
    """A worker of xdist, as far as its controller prepares it."""

    def __init__(self, *, popen: bool, chdir: str | None = None) -> None:
        self.gateway = self
        self.spec = self
        self.popen = popen
        self.chdir = chdir
        self.workerinput: dict[str, object] = {}


def test_a_worker_has_the_options_of_its_controller(pytester: pytest.Pytester, project: Path) -> None:
    """Whatever it would read by itself, later, from a root that moved; ssh and folders of its own are left alone."""
    options = command_line.read(pytester.parseconfig("--seg-embedding-cache=kept,2GB", "--seg-fast=sdpa"))
    node = _Node(popen=True)
    command_line.send(options, node)
    (project / "pytest.ini").write_text("[pytest]\nseg_limit = 5\n")
    late = pytester.parseconfig()
    assert command_line.received(late) is None
    late.workerinput = node.workerinput  # type: ignore[attr-defined]
    assert command_line.received(late) == options
    assert (options.limit, options.root, options.embedding_cache) == (
        3,
        project,
        CacheLimit(project / "kept", 2 * 10**9),
    )
    for other in (_Node(popen=False), _Node(popen=True, chdir="scratch")):
        command_line.send(options, other)
        assert other.workerinput == {}
