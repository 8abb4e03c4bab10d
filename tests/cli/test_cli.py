"""The command ``promptseg``, as a newcomer meets it: what it says, and the exit codes. No network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from promptseg import registry
from promptseg.cli import doctor, main
from promptseg.errors import UnavailableError
from promptseg.files.pulled import Pulled
from promptseg.preparation import fetch
from promptseg.registry.entries import Registered, Registry
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.segmenter import Image, Prediction, Prompt, Runtime, SingleImageSegmenter
from promptseg.specs import Cell, DatasetSpec, ModelSpec, Origin, PromptMode, TaskSpec, WeightFile

KINDS = ["models", "datasets", "tasks", "modes"]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder, with empty caches and without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run(*words: str) -> Result:
    """Run the command in this process; an exception that is not an exit is an error of the test."""
    return CliRunner().invoke(main.app, words, catch_exceptions=False)


def model(name: str = "mine", **changes: Any) -> ModelSpec:
    """Return a model of a foreign package."""
    about: dict[str, Any] = {
        "family": "sam",
        "load": f"{__name__}:load_nothing",
        "licence": "MIT",
        "accepts": frozenset({"points"}),
    }
    return ModelSpec(name=name, **{**about, **changes})


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Registered[ModelSpec]]:
    """The registered models, to be filled by the test; beside them a data set, a task and a mode of the name mine."""
    found: list[Registered[ModelSpec]] = []
    tasks = (TaskSpec(name="mine"), TaskSpec(name="other"))
    data = DatasetSpec(name="mine", modality="ct", load="a:b", tasks=tasks, licence="MIT")
    mode = PromptMode(name="mine", needs="points", simulate="a:b")

    def build(_: Path | None) -> Registry:
        return Registry(found, [Registered("mine", "foreign 1.0", data)], [Registered("mine", "foreign 1.0", mode)])

    monkeypatch.setattr(registry, "build", build)
    return found


# --- list and show ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_every_registered_name(kind: str) -> None:
    """Each list holds all names of its kind, one a line, and nothing is cut."""
    result = run("list", kind)
    found = registry.build()
    known: set[str] = set(getattr(found, kind))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("name")
    assert {line.split()[0] for line in lines[1:] if line and not line.startswith(("Cannot", " "))} <= known
    assert all(name in result.stdout for name in known)
    assert "…" not in result.stdout


def test_list_says_where_a_model_comes_from_and_whether_it_is_here() -> None:
    """Size, source and presence of a model on the Hub and of one that needs no files."""
    lines = {line.split()[0]: line.split() for line in run("list", "models").stdout.splitlines() if line}
    assert lines["sam_vit_b"][3:8] == ["375.0", "MB", "hub", "ybelkada/segment-anything@7790786db131", "no"]
    assert lines["box_fill"][3:7] == ["-", "built", "in", "yes"]


def test_list_names_what_is_broken(models: list[Registered[ModelSpec]]) -> None:
    """A plugin that cannot be used is listed with its problem, the others as usual."""
    models += [Registered("good", "foreign 1.0", model("good")), Registered("bad", "foreign 1.0", problem="no torch")]
    result = run("list", "models")
    assert result.exit_code == 0
    assert "good" in result.stdout
    assert "Cannot be used:\n  bad: no torch" in result.stdout


def test_list_shows_text_of_plugins_without_steering_the_terminal(models: list[Registered[ModelSpec]]) -> None:
    """Escape sequences and line ends of a licence do not reach the terminal."""
    models.append(Registered("mine", "foreign 1.0", model(licence="MIT\x1b[2J\nsecond line")))
    text = run("list", "models").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_list_uses_promptseg_toml_from_a_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest promptseg.toml above the folder counts, another one by --config."""
    (tmp_path / "promptseg.toml").write_text('[datasets.near]\nfolder = "x"\nmodality = "ct"\n')
    (tmp_path / "far.toml").write_text('[datasets.far]\nfolder = "x"\nmodality = "ct"\n')
    (tmp_path / "sub" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub" / "folder")
    near = run("list", "datasets").stdout
    far = run("list", "datasets", "--config", str(tmp_path / "far.toml")).stdout
    assert [line.split()[-1] for line in near.splitlines() if line.startswith("near")] == ["promptseg.toml"]
    assert "\nfar" in far
    assert "near" not in far


def test_an_unusable_promptseg_toml_is_one_message(tmp_path: Path) -> None:
    """The message names the file and the key; no traceback."""
    (tmp_path / "promptseg.toml").write_text("[dataset.x]\n")
    result = run("list", "models")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "promptseg.toml: Unknown key 'dataset'. Did you mean 'datasets'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_has_exit_code_2() -> None:
    """An unknown kind, command or option is wrong usage."""
    assert run("list", "nothing").exit_code == 2
    assert "'models', 'datasets', 'tasks', 'modes'" in run("list", "nothing").stderr
    assert run("evaluate").exit_code == 2
    assert run("list", "models", "--what").exit_code == 2


def test_show_tells_everything_about_a_model() -> None:
    """Source with the whole commit, files with whole checksums, licence, training data."""
    text = run("show", "sam_vit_b").stdout
    assert "model sam_vit_b" in text
    assert "ybelkada/segment-anything@7790786db131bcdc639f24a915d9f2c331d843ee" in text
    assert "375.0 MB, sha256 ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912" in text
    assert "Apache-2.0" in text
    assert "sa_1b" in text


def test_show_tells_how_a_data_set_is_prepared() -> None:
    """The command to type: with a path where nothing can be brought from the Hub."""
    lines = [
        run("show", name).stdout.split("prepared by")[1].splitlines()[0].strip() for name in ("us_nerve", "mri_spine")
    ]
    assert lines == [
        "promptseg data prepare us_nerve, or promptseg data prepare us_nerve --from PATH",
        "promptseg data prepare mri_spine --from PATH",
    ]


def test_show_tells_all_kinds_of_a_name(models: list[Registered[ModelSpec]]) -> None:
    """A name that is a model, a data set, a task and a prompt mode is shown four times."""
    models.append(Registered("mine", "foreign 1.0", model()))
    lines = run("show", "mine").stdout.splitlines()
    assert [line for line in lines if line.endswith("mine") and not line.startswith(" ")] == [
        "model mine",
        "data set mine",
        "task mine",
        "prompt mode mine",
    ]


def test_show_tells_why_a_name_is_broken(models: list[Registered[ModelSpec]]) -> None:
    """A broken plugin is shown with who registers it and what is wrong."""
    models.append(Registered("bad", "foreign 1.0", problem="cannot be imported: no torch"))
    text = run("show", "bad").stdout
    assert "foreign 1.0" in text
    assert "cannot be imported: no torch" in text


@pytest.mark.parametrize("words", [("show", "sam_vit_a"), ("pull", "sam_vit_a"), ("validate", "--model", "sam_vit_a")])
def test_unknown_names_come_with_suggestions(words: tuple[str, ...]) -> None:
    """An unknown name is wrong usage; the message suggests names that look alike."""
    result = run(*words)
    assert result.exit_code == 2
    assert "'sam_vit_a'. Did you mean 'sam_vit_" in result.stderr


# --- pull ---------------------------------------------------------------------------------------------------


def test_pull_from_a_folder_prints_what_was_stored_and_what_to_pin(
    tmp_path: Path, models: list[Registered[ModelSpec]]
) -> None:
    """A model whose checksum is not known yet: the pull stores its file and prints the checksum to pin."""
    spec = model(
        "mine_only",
        origin=Origin(host="hub", repo="org/mine", revision="1" * 40),
        weights=(WeightFile(role="checkpoint", path="weights.bin"),),
    )
    models.append(Registered("mine_only", "foreign 1.0", spec))
    (tmp_path / "weights.bin").write_bytes(b"abc")
    result = run("pull", "mine_only", "--from", str(tmp_path / "weights.bin"))
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert result.exit_code == 0, result.stderr
    assert "mine_only: 1 file, 3 B" in result.stdout
    assert f"put into the spec: sha256 {sha256} of weights.bin" in result.stdout
    assert " yes " in next(line for line in run("list", "models").stdout.splitlines() if "mine_only" in line)


def test_pull_of_a_task_downloads_its_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A task stands for its data set; the revision and what is to be pinned are printed."""
    (tmp_path / "part.parquet").write_bytes(b"abc")

    def pull_dataset(spec: DatasetSpec, source: Path | None, progress: object) -> Pulled:
        assert (spec.name, source) == ("us_kidney", None)
        files = {"part.parquet": tmp_path / "part.parquet"}
        return Pulled("us_kidney", files, {"part.parquet": "c" * 64}, "d" * 40, (f"revision {'d' * 40} of org/kidney",))

    monkeypatch.setattr(fetch, "pull_dataset", pull_dataset)
    text = run("pull", "us_kidney").stdout
    assert f"us_kidney: 1 file, 3 B, revision {'d' * 40}" in text
    assert f"sha256 {'c' * 64}" in text
    assert f"not pinned yet, put into the spec: revision {'d' * 40} of org/kidney" in text


def test_pull_of_what_needs_no_files_says_so() -> None:
    """A built-in model has nothing to download."""
    result = run("pull", "box_fill")
    assert (result.exit_code, result.stdout) == (
        0,
        "box_fill needs no files, or reads them where they are: nothing to download.\n",
    )


def test_pull_without_a_network_says_what_to_do() -> None:
    """What cannot be brought is one message and exit code 1."""
    result = run("pull", "sam_vit_b")
    assert result.exit_code == 1
    assert "HF_HUB_OFFLINE is set" in result.stderr
    assert "promptseg pull sam_vit_b --from PATH" in result.stderr


def test_pull_of_a_model_and_a_data_set_of_one_name(models: list[Registered[ModelSpec]]) -> None:
    """Both are brought; one --from cannot serve both."""
    models.append(Registered("mine", "foreign 1.0", model()))
    assert run("pull", "mine").stdout.count("nothing to download") == 2
    result = run("pull", "mine", "--from", ".")
    assert result.exit_code == 1
    assert "'mine' is a model and a data set" in result.stderr


# --- doctor -------------------------------------------------------------------------------------------------


def test_doctor_reports_the_machine() -> None:
    """Every topic is there; offline is respected, and no token is shown or needed."""
    result = run("doctor")
    topics = {line.split()[1].rstrip(":") for line in result.stdout.splitlines() if line.startswith(("ok", "note"))}
    assert result.exit_code == 0, result.stdout
    assert {"promptseg", "packages", "extra", "device", "torchvision", "cache", "Hub", "npm", "results"} <= topics
    assert "not asked: HF_HUB_OFFLINE is set" in result.stdout
    assert result.stdout.endswith("The embedded evaluation can run.\n")


def test_doctor_knows_every_extra() -> None:
    """An extra that it does not look at would be missing without a word; ``all`` and ``dev`` are sums of others."""
    listed = metadata.metadata("pytest-promptseg").get_all("Provides-Extra")
    assert set(doctor.EXTRAS) == set(listed or ()) - {"all", "dev"}


def test_doctor_finds_what_keeps_a_run_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable promptseg.toml and a plugin that pytest is told not to load are problems: exit code 1."""
    (tmp_path / "promptseg.toml").write_text("not toml")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = run("doctor")
    assert result.exit_code == 1
    assert "problem  promptseg.toml" in result.stdout
    assert "problem  pytest: PYTEST_DISABLE_PLUGIN_AUTOLOAD is set" in result.stdout
    assert "2 to solve" in result.stdout


def test_doctor_never_prints_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is one is enough."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = run("doctor").stdout
    assert "Hub token: present" in text
    assert "hf_secret" not in text


def test_doctor_names_missing_packages_with_the_command_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is a note, a missing or outdated requirement a problem."""
    lines = ["pytest>=8", "missing-thing>=1", "numpy>=999", 'another-thing; extra == "onnx"']
    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    found = list(doctor.packages())
    assert found[0].level == "problem"
    assert "missing-thing is missing; numpy is" in found[0].found
    extra = next(f for f in doctor.extras() if f.topic == "extra onnx")
    assert (extra.level, extra.advice) == ("note", "pip install 'pytest-promptseg[onnx]'")
    assert "no adapter sam_onnx" in extra.found


def test_doctor_survives_a_check_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken check is a line of the report, the others still run."""

    def broken() -> Iterator[doctor.Finding]:
        raise RuntimeError("half installed")

    monkeypatch.setattr(doctor, "_device", broken)
    found = list(doctor.examine(None, tmp_path))
    assert any("half installed" in finding.found for finding in found)
    assert found[-1].topic == "embedded"


def test_doctor_says_why_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that refuses is a note with what to do, within seconds."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    finding = next(doctor.hub_answers())
    assert finding.level == "note"
    assert "http://127.0.0.1:1 cannot be reached" in finding.found
    assert "--from PATH" in finding.advice


# --- leaderboard --------------------------------------------------------------------------------------------


def test_leaderboard_is_rebuilt_from_results(tmp_path: Path) -> None:
    """Default folders are those of a run in this folder."""
    rows = (ResultRow(case_id="x", iou_first=0.5, iou_confident=0.5, iou_oracle=0.5),)
    cell = Cell("box_fill", "phantom_ct", "box_all")
    ResultStore(tmp_path / "leaderboard" / "results").save(
        CellResult(cell=cell, fingerprint="0", rows=rows, n_examined=1)
    )
    result = run("leaderboard")
    target = tmp_path / "leaderboard" / "LEADERBOARD.md"
    assert result.stdout == f"leaderboard (1 cell): {target}\n"
    assert "0.500" in target.read_text(encoding="utf-8")
    other = tmp_path / "other.md"
    assert run("leaderboard", "--results", "leaderboard/results", "--output", str(other)).exit_code == 0
    assert other.read_bytes() == target.read_bytes()


def test_leaderboard_without_results_says_what_to_do() -> None:
    """A missing folder is named; nothing is written."""
    result = run("leaderboard", "--results", "nowhere")
    assert result.exit_code == 1
    assert "nowhere. Run pytest first" in result.stderr


# --- validate -----------------------------------------------------------------------------------------------


class Nothing(SingleImageSegmenter):
    """Finds nothing."""

    def segment(self, image: Image, prompt: Prompt, state: object) -> Prediction:
        """Return an empty mask."""
        return Prediction(np.zeros((1, *image.shape[:2]), dtype=np.bool_))


def load_nothing(spec: ModelSpec, files: object, runtime: Runtime) -> object:
    """Return a model that ignores its prompts."""
    return Nothing(spec)


def load_badly(spec: ModelSpec, files: object, runtime: Runtime) -> object:
    """Break while loading."""
    raise KeyError("layer.0.weight")


def load_and_leave(spec: ModelSpec, files: object, runtime: Runtime) -> object:
    """Parse the arguments of a script."""
    raise SystemExit("usage: train.py")


class Leaving(Nothing):
    """Ends the process when it is asked."""

    def segment(self, image: Image, prompt: Prompt, state: object) -> Prediction:
        """Leave."""
        os._exit(0)


def load_leaving(spec: ModelSpec, files: object, runtime: Runtime) -> object:
    """Change the state of the process, too."""
    np.seterr(all="raise")
    return Leaving(spec)


def test_validate_outlives_a_model_that_ends_the_process(models: list[Registered[ModelSpec]]) -> None:
    """While it is loaded, which is one message, or when it is asked, which its checks say."""
    models.append(Registered("mine", "foreign 1.0", model(load=f"{__name__}:load_and_leave")))
    result = run("validate", "--model", "mine")
    assert result.exit_code == 1
    assert "model 'mine' called sys.exit('usage: train.py') in load()" in result.stderr
    models[-1] = Registered("mine", "foreign 1.0", model(load=f"{__name__}:load_leaving"))
    before = np.geterr()
    result = run("validate", "--model", "mine")
    assert result.exit_code == 1
    assert "FAILED predict: model 'mine' called os._exit(0) in predict() of 1 prompt" in result.stdout
    assert "note: model 'mine' changed NumPy's error handling" in result.stdout
    assert np.geterr() == before


def test_validate_passes_a_good_model() -> None:
    """Each check is printed, and the verdict."""
    result = run("validate", "--model", "box_fill")
    assert result.exit_code == 0
    assert "ok     coordinates\n" in result.stdout
    assert "box_fill conforms" in result.stdout


def test_validate_fails_a_bad_model(models: list[Registered[ModelSpec]]) -> None:
    """Failed checks are printed with what was found; exit code 1."""
    models.append(Registered("mine", "foreign 1.0", model()))
    result = run("validate", "--model", "mine")
    assert result.exit_code == 1
    assert "FAILED coordinates: " in result.stdout
    assert "checks failed." in result.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": f"{__name__}:load_badly"}, "load_badly raised KeyError: 'layer.0.weight'"),
        ({"load": "no_such_module:load"}, "no_such_module:load cannot be imported"),
    ],
)
def test_validate_says_what_a_plugin_raised(
    models: list[Registered[ModelSpec]], changes: dict[str, Any], message: str
) -> None:
    """Whatever a plugin raises while it is loaded is one message and exit code 1."""
    models.append(Registered("mine", "foreign 1.0", model(**changes)))
    result = run("validate", "--model", "mine")
    assert result.exit_code == 1
    assert message in result.stderr


def test_validate_refuses_an_unknown_dtype() -> None:
    """Wrong usage names the choices."""
    result = run("validate", "--model", "box_fill", "--dtype", "int8")
    assert result.exit_code == 2
    assert "float32, bfloat16, float16" in result.stderr


# --- the command as a whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "show", "pull", "doctor", "leaderboard", "paper", "validate"])
def test_every_command_explains_itself(command: str) -> None:
    """--help of each command is a sentence at least."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "." in result.stdout.split("Options:")[0]


def test_errors_of_promptseg_are_one_line_for_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error raised on purpose anywhere below a command ends as a message on stderr."""

    def fail(_: object) -> None:
        raise UnavailableError("the \x1b[31mreason")

    monkeypatch.setattr(registry, "build", fail)
    result = run("show", "anything")
    assert (result.exit_code, result.stderr) == (1, "Error: the  [31mreason\n")


def test_the_installed_command(tmp_path: Path) -> None:
    """The script answers in a process of its own and imports neither torch nor pytest for a list."""
    script = Path(sys.executable).with_name("promptseg")
    if not script.exists():
        pytest.skip("the command promptseg is not beside this Python")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("promptseg ")
    code = (
        "import sys; from promptseg.cli.main import app; sys.argv = ['promptseg', 'list', 'models']\n"
        "try: app()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'cv2', 'datasets', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sam_vit_b" in done.stdout
