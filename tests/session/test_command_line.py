"""Every option, by command line and by ini file, and what is said to a wrong value."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from promptseg.runner import options as run_options
from promptseg.runner.options import CacheLimit, Options
from promptseg.session import command_line

VALUES: dict[str, tuple[str, Any]] = {
    "models": ("sam_vit_b, box_fill,", ("sam_vit_b", "box_fill")),
    "tasks": ("us_kidney", ("us_kidney",)),
    "modes": ("box_all,box_each", ("box_all", "box_each")),
    "limit": ("8", 8),
    "until-sure": ("0.95", 0.95),
    "seed": ("12", 12),
    "sample-seed": ("3", 3),
    "select": ("oracle", "oracle"),
    "engine": ("ray", "ray"),
    "device": ("cuda:1", "cuda:1"),
    "dtype": ("bfloat16", "bfloat16"),
    "fast": ("tf32, sdpa", frozenset({"sdpa", "tf32"})),
    "precision-bound": ("0.02", 0.02),
    "embedding-cache": ("out/e,1.5TB", CacheLimit(Path("out/e"), 15 * 10**11)),
    "batch-size": ("4", 4),
    "max-errors": ("3", 3),
    "timeout": ("2.5", 2.5),
    "rerun": ("true", True),
    "require": ("true", True),
    "save-masks": ("true", True),
    "results": ("out/results", Path("out/results")),
    "json": ("out/scores.json", Path("out/scores.json")),
    "plan": ("true", True),
    "thresholds": ("mine.toml", Path("mine.toml")),
    "baseline": ("main", "main"),
    "max-drop": ("0.05", 0.05),
    "strata": ("parts, size", ("size", "parts")),
}
FLAGS = {"rerun", "require", "save-masks", "plan"}
WRONG: list[tuple[str, str, str]] = [
    ("models", ",", "a comma-separated list of names, not ','."),
    ("limit", "0", "a whole number of at least 1, not '0'."),
    ("limit", "all", "a whole number of at least 1, not 'all'."),
    ("limit", "2.5", "a whole number of at least 1, not '2.5'."),
    ("limit", "--5", "a whole number of at least 1, not '--5'."),
    ("limit", "²", "a whole number of at least 1, not '²'."),
    ("until-sure", "99", "a confidence from 0.5 to below 1, such as 0.99, not '99'."),
    ("until-sure", "1", "a confidence from 0.5 to below 1, such as 0.99, not '1'."),
    ("until-sure", "tests/", "a confidence from 0.5 to below 1, such as 0.99, not 'tests/'."),
    ("seed", "-1", "a whole number of at least 0, not '-1'."),
    ("select", "best", "one of first, confident, oracle, not 'best'."),
    ("engine", "dask", "one of local, ray, not 'dask'."),
    ("dtype", "fp16", "one of float32, bfloat16, float16, not 'fp16'."),
    ("fast", "fp8", f"a comma-separated list of some of {', '.join(run_options.FAST_PATHS)}, not 'fp8'."),
    ("precision-bound", "1%", "a number from 0 to 1, not '1%'."),
    ("embedding-cache", "e,50", "a folder, or a folder and its limit, as in embeddings,100GB, not 'e,50'."),
    ("embedding-cache", "e,0GB", "a folder, or a folder and its limit, as in embeddings,100GB, not 'e,0GB'."),
    ("batch-size", "0", "a whole number of at least 1, not '0'."),
    ("max-errors", "-2", "a whole number of at least 0, not '-2'."),
    ("timeout", "0", "a number of seconds above 0, not '0'."),
    ("timeout", "nan", "a number of seconds above 0, not 'nan'."),
    ("timeout", "inf", "a number of seconds above 0, not 'inf'."),
    ("timeout", "5s", "a number of seconds above 0, not '5s'."),
    ("max-drop", "1.5", "a number from 0 to 1, not '1.5'."),
    ("max-drop", "nan", "a number from 0 to 1, not 'nan'."),
    ("strata", "size,", "a comma-separated list of size and parts, not 'size,'."),
]


def ini_name(name: str) -> str:
    """Return the name of an option's twin."""
    return f"seg_{name.replace('-', '_')}"


def read(pytester: pytest.Pytester, *arguments: str, ini: str = "") -> Options:
    """Return the options of a run with these arguments and lines of pytest.ini."""
    pytester.makeini(f"[pytest]\n{ini}\n")
    return command_line.read(pytester.parseconfig(*arguments))


def refused(pytester: pytest.Pytester, *arguments: str, ini: str = "") -> str:
    """Return the message of the usage error that these options are."""
    with pytest.raises(pytest.UsageError) as caught:
        read(pytester, *arguments, ini=ini)
    return str(caught.value)


def test_every_setting_is_tried_here() -> None:
    """A new option needs a line above, and a field of Options."""
    assert [setting.name for setting in command_line.SETTINGS] == list(VALUES)
    assert {f.name for f in dataclasses.fields(Options)} == {n.replace("-", "_") for n in VALUES} | {"root"}


def test_the_defaults(pytester: pytest.Pytester) -> None:
    """Nothing said: results below the root, and the documented choices."""
    found = read(pytester)
    assert found == Options(root=pytester.path, results=pytester.path / "leaderboard" / "results")
    assert (found.select, found.dtype, found.device, found.seed) == ("confident", "float32", "auto", 0)
    assert (found.max_errors, found.limit, found.batch_size, found.json) == (0, None, None, None)
    assert not found.names_cells


def expected(pytester: pytest.Pytester, value: Any) -> Any:
    """Return the value, a path below the project."""
    if isinstance(value, CacheLimit):
        return value._replace(folder=pytester.path / value.folder)
    return pytester.path / value if isinstance(value, Path) else value


@pytest.mark.parametrize("name", VALUES)
def test_by_command_line(pytester: pytest.Pytester, name: str) -> None:
    """Each option changes its own field and no other."""
    text, value = VALUES[name]
    needed = ("--seg-baseline=main",) if name in ("max-drop", "strata") else ()
    found = read(pytester, *needed, f"--seg-{name}" if name in FLAGS else f"--seg-{name}={text}")
    assert found == dataclasses.replace(read(pytester, *needed), **{name.replace("-", "_"): expected(pytester, value)})
    assert found.names_cells == (name in {"models", "tasks", "modes"})


@pytest.mark.parametrize("name", ["max-drop", "strata"])
def test_terms_of_gates_need_a_baseline(pytester: pytest.Pytester, name: str) -> None:
    """On the command line they would say nothing without one; in an ini file they wait for a run that names it."""
    assert "name it with --seg-baseline" in refused(pytester, f"--seg-{name}={VALUES[name][0]}")


@pytest.mark.parametrize("name", VALUES)
def test_by_ini_file(pytester: pytest.Pytester, name: str) -> None:
    """Each option has a twin that says the same."""
    text, value = VALUES[name]
    found = read(pytester, ini=f"{ini_name(name)} = {text}")
    assert found == dataclasses.replace(read(pytester), **{name.replace("-", "_"): expected(pytester, value)})


@pytest.mark.parametrize(("name", "text", "message"), WRONG)
def test_a_wrong_value_on_the_command_line(pytester: pytest.Pytester, name: str, text: str, message: str) -> None:
    """The error names the option, what is allowed and what was found."""
    assert refused(pytester, f"--seg-{name}={text}") == f"--seg-{name} must be {message}"


@pytest.mark.parametrize(("name", "text", "message"), WRONG)
def test_a_wrong_value_in_the_ini_file(pytester: pytest.Pytester, name: str, text: str, message: str) -> None:
    """The error says that it is the ini value, so that nobody searches the command line."""
    assert refused(pytester, ini=f"{ini_name(name)} = {text}") == f"ini value {ini_name(name)} must be {message}"


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_flags_in_the_ini_file(pytester: pytest.Pytester, name: str) -> None:
    """True or false, in any case; nothing else is guessed at."""
    twin, field = ini_name(name), name.replace("-", "_")
    assert getattr(read(pytester, ini=f"{twin} = True"), field) is True
    assert getattr(read(pytester, ini=f"{twin} = false"), field) is False
    assert refused(pytester, ini=f"{twin} = yes") == f"ini value {twin} must be true or false, not 'yes'."


@pytest.mark.parametrize("name", [name for name in VALUES if name not in FLAGS])
def test_an_empty_value_on_the_command_line_is_an_error(pytester: pytest.Pytester, name: str) -> None:
    """``--seg-models "$MODELS"`` with nothing in it must not evaluate something else."""
    assert refused(pytester, f"--seg-{name}=") == f"--seg-{name} must not be empty; leave it out for the default."


def test_an_empty_ini_value_is_the_default(pytester: pytest.Pytester) -> None:
    """As for every ini value of pytest."""
    assert read(pytester, ini="seg_limit =\nseg_models =") == read(pytester)


def test_until_sure_needs_no_value(pytester: pytest.Pytester) -> None:
    """Said alone it means 0.99; strata, which are cut from all cases, do not go with it."""
    assert read(pytester).until_sure is None
    assert read(pytester, "--seg-until-sure").until_sure == 0.99
    assert "exclude each other" in refused(pytester, "--seg-until-sure", ini="seg_strata = size")


def test_the_command_line_wins_over_the_ini_file(pytester: pytest.Pytester) -> None:
    """A value in the ini file is a default of the project."""
    found = read(pytester, "--seg-limit=3", ini="seg_limit = 8\nseg_seed = 5")
    assert (found.limit, found.seed) == (3, 5)


def test_paths_are_relative_to_where_they_were_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the command line to the folder of the invocation, in the ini file to the root; ~ is the home."""
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    pytester.makeini("[pytest]\nseg_results = here\nseg_thresholds = ~/t.toml\n")
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    found = command_line.read(pytester.parseconfig("--rootdir", str(pytester.path), "--seg-json", "x.json", str(below)))
    assert found.json == below / "x.json"
    assert found.results == pytester.path / "here"
    assert found.thresholds == pytester.path / "home" / "t.toml"
    absolute = read(pytester, "--seg-results", str(pytester.path / "abs"))
    assert absolute.results == pytester.path / "abs"


def test_tests_elsewhere_do_not_move_the_project(
    pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without an ini file pytest takes the folder of tests for its root; promptseg.toml is where it is started."""
    tests = tmp_path_factory.mktemp("elsewhere")
    (pytester.path / "promptseg.toml").touch()
    config = pytester.parseconfig(str(tests))
    assert config.rootpath != pytester.path
    assert command_line.read(config).root == pytester.path


def test_pytest_itself_reports_a_wrong_value(pytester: pytest.Pytester) -> None:
    """One line on stderr and the status of a usage error, before anything is collected."""
    result = pytester.runpytest_inprocess("--seg-dtype", "fp16", "--collect-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --seg-dtype must be one of float32, bfloat16, float16, not 'fp16'."])


def test_help_lists_every_option_and_its_twin(pytester: pytest.Pytester) -> None:
    """Each with a sentence."""
    text = pytester.runpytest_inprocess("--help").stdout.str()
    for setting in command_line.SETTINGS:
        assert f"--seg-{setting.name}" in text
        assert f"{ini_name(setting.name)} (" in text
        assert setting.help
