"""RITM and SimpleClick: the authors' answers with tiny random weights, and the road from promptseg.toml to a score.

The numbers in golden/rivals_*.json were made with the authors' public repositories:
``python scripts/checks/compare_rivals.py --family FAMILY --repo CLONE --golden tests/golden/rivals_FAMILY.json``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rivals.clicking import as_prompt
from rivals.families import FAMILIES
from rivals.tiny import TINY_SIZES, probe, tiny_clicks, tiny_image
from rivals.weights import change_last, draw_weights
from support.authors_format import write_checkpoint
from support.paths import GOLDEN
from support.project import Project

from promptseg.cli.main import app
from promptseg.errors import ConfigError, IntegrityError, UnavailableError
from promptseg.models.click import ritm, simpleclick
from promptseg.models.click._inference import ClickSegmenter
from promptseg.registry.references import resolve
from promptseg.segmenter import Request, Runtime
from promptseg.specs import ModelSpec
from promptseg.testing import check_model

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")

MODULES: dict[str, Any] = {"ritm": ritm, "simpleclick": simpleclick}
REGISTERED = {"ritm": ritm.HRNET18S, "simpleclick": simpleclick.VIT_B}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads cost more than they save on networks this small, here and in processes that a test starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_spec(family: str, **options: object) -> ModelSpec:
    """Return a registered spec for weights of another architecture."""
    spec = REGISTERED[family]
    kept = {name: value for name, value in spec.options.items() if name != "architecture"}
    return dataclasses.replace(spec, options={**kept, **FAMILIES[family].tiny[1], **options})


def write_tiny(family: str, path: Path) -> Path:
    """Write the weights behind the golden numbers, in the authors' format."""
    about, golden = FAMILIES[family], json.loads((GOLDEN / f"rivals_{family}.json").read_text())
    params = about.params("tiny")
    network = MODULES[family].network(params)
    with torch.no_grad():
        draw_weights(network, 0)
        change_last(network, about.last, golden["factor"], golden["shift"])
    write_checkpoint(path, network.state_dict(), about.class_name, params)
    return path


def load(spec: ModelSpec, path: Path) -> ClickSegmenter:
    """Load a model as an evaluation does."""
    model: ClickSegmenter = resolve(spec.load)(spec, {"checkpoint": path}, Runtime())
    return model


def answers(model: ClickSegmenter, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return what the golden file holds for one image, from our model."""
    (embedding,) = model.embed([tiny_image(size_hw)])
    clicks = tiny_clicks(size_hw)
    state, fed_back = None, []
    for count in range(1, len(clicks) + 1):
        state = model.predict([Request(embedding, as_prompt(clicks[:count]), state)])[0].state
        fed_back.append(probe(as_array(state)))
    at_once = model.predict([Request(embedding, as_prompt(clicks))])[0].state
    return {"fed_back": fed_back, "at_once": probe(as_array(at_once))}


def as_array(state: Any) -> npt.NDArray[np.float32]:
    """Return the probabilities of a state, (H, W)."""
    found: npt.NDArray[np.float32] = state.probabilities[0, 0].numpy()
    return found


@pytest.mark.parametrize("family", sorted(MODULES))
def test_the_authors_answers(family: str, tmp_path: Path) -> None:
    """After each of four clicks with the mask fed back, and to all four at once; the maps' mean and three pixels."""
    expected = json.loads((GOLDEN / f"rivals_{family}.json").read_text())["answers"]
    model = load(tiny_spec(family), write_tiny(family, tmp_path / "tiny.pth"))
    for size_hw in TINY_SIZES:
        found, wanted = answers(model, size_hw), expected["x".join(map(str, size_hw))]
        assert np.abs(np.array(found["fed_back"]) - wanted["fed_back"]).max() < 1e-4
        assert np.abs(np.array(found["at_once"]) - wanted["at_once"]).max() < 1e-4


@pytest.mark.parametrize("family", sorted(MODULES))
@pytest.mark.parametrize("change", [{"flip": False}, {"zoom_in": 0}, {"previous_mask": False}])
def test_every_part_of_the_inference_counts(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    """Without one of them the answers are not the authors': the golden numbers would notice."""
    if family == "simpleclick" and "zoom_in" in change:
        change = {"zoom_in": [224, 224]}
    expected = json.loads((GOLDEN / f"rivals_{family}.json").read_text())["answers"]["70x90"]
    model = load(tiny_spec(family, **change), write_tiny(family, tmp_path / "tiny.pth"))
    found = answers(model, (70, 90))
    assert np.abs(np.array(found["fed_back"]) - expected["fed_back"]).max() > 1e-3


@pytest.mark.parametrize("family", sorted(MODULES))
def test_the_contract_is_kept(family: str, tmp_path: Path) -> None:
    """Shapes, batches, order, states; what random weights cannot do is to follow the clicks."""
    spec = tiny_spec(family)
    report = check_model(load(spec, write_tiny(family, tmp_path / "tiny.pth")))
    assert {check.name for check in report.failures} <= {"coordinates", "prompts_respected", "labels_respected"}


@pytest.mark.parametrize("family", sorted(MODULES))
def test_weights_that_do_not_fit_are_refused(family: str, tmp_path: Path) -> None:
    """A key too few, a key too many, another shape, a config that describes no network: each is said."""
    about, params = FAMILIES[family], FAMILIES[family].params("tiny")
    state = MODULES[family].network(params).state_dict()
    last, path, spec = f"{about.last}bias", tmp_path / "a.pth", tiny_spec(family)
    for broken, message in (
        ({k: v for k, v in state.items() if k != last}, f"1 missing: {last}"),
        ({**state, "more": state[last]}, "1 unexpected: more"),
        ({**state, last: torch.ones(3)}, rf"1 other shape: {last} \(3,\) instead of \(1,\)"),
    ):
        write_checkpoint(path, broken, about.class_name, params)
        with pytest.raises(IntegrityError, match=message):
            load(spec, path)
    least = {name: value for name, value in params.items() if name not in ("width", "neck_params")}
    write_checkpoint(path, state, about.class_name, least)
    with pytest.raises(IntegrityError, match=r"the config in .* does not describe such a network"):
        load(spec, path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    """Tiny weights are no HRNet-18s, no ViT-B, and neither is the other."""
    for family, spec in REGISTERED.items():
        path = write_tiny(family, tmp_path / f"{family}.pth")
        with pytest.raises(IntegrityError, match=rf"{spec.name}: .* has .*, {spec.options['architecture']} has"):
            load(spec, path)
    with pytest.raises(IntegrityError, match="this model is a PlainVitModel"):
        load(simpleclick.VIT_B, tmp_path / "ritm.pth")


@pytest.mark.parametrize("change", [{"zoom_in": 400}, {"zoom_in": [448, 440]}, {"zoom_in_from_click": 2}])
def test_a_vit_has_one_input_size(change: dict[str, Any], tmp_path: Path) -> None:
    """A crop of any shape, or the image as it is, would not fit its windows."""
    path = write_tiny("simpleclick", tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"zoom_in must be \[height, width\], multiples of 224"):
        load(tiny_spec("simpleclick", **change), path)


def test_without_timm_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell is skipped with the command that installs it."""
    path = write_tiny("ritm", tmp_path / "a.pth")
    monkeypatch.setattr("promptseg.models._loading.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'pytest-promptseg\[timm\]'"):
        load(tiny_spec("ritm"), path)


# ---------------------------------------------------------------------------------------------- the whole road


def test_a_checkpoint_named_in_promptseg_toml_is_evaluated(project: Project) -> None:
    """Static and iterative modes, in both profiles; a single answer to all points is the same in both."""
    write_tiny("ritm", project.pytester.path / "tiny.pth")
    table = """
        [models.{name}]
        adapter = "ritm"
        folder = "."
        files = {{checkpoint = "tiny.pth"}}
        accepts = {accepts}
        options = {{zoom_in = 60, zoom_in_min_crop = 20, previous_mask = {fed_back}}}
    """
    project.configure(
        table.format(name="mine", accepts='["points", "feedback"]', fed_back="true"),
        table.format(name="mine_2023", accepts='["points"]', fed_back="false"),
    )
    asked = ("--seg-models", "mine,mine_2023", "--seg-tasks", "squares", "--seg-modes", "point_each,clicks_first")
    cells = project.scores(*asked, "--seg-limit", "1")
    assert {name: cell["n"] for name, cell in cells.items()} == {
        f"{model}-squares-{mode}": 1 for model in ("mine", "mine_2023") for mode in ("point_each", "clicks_first")
    }
    assert cells["mine-squares-point_each"]["mean_iou"] == cells["mine_2023-squares-point_each"]["mean_iou"]


def test_missing_weights_are_a_skip_that_says_what_to_do(project: Project) -> None:
    """Which page, which command; with --seg-require it is a failure."""
    arguments = ("--seg-models", "ritm_hrnet32_paper2023", "--seg-tasks", "squares", "--seg-modes", "point_each")
    text = project.run(*arguments, "-rs", code=pytest.ExitCode.NO_TESTS_COLLECTED).stdout.str().replace("\n", " ")
    assert "https://github.com/SamsungLabs/ritm_interactive_segmentation/releases/tag/v1.0" in text
    assert "promptseg pull ritm_hrnet32_paper2023 --from coco_lvis_h32_itermask.pth" in text
    project.run(*arguments, "--seg-require", code=1)


def test_show_and_doctor_say_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until they are here."""
    from typer.testing import CliRunner

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in (["show", "simpleclick_vit_h"], ["doctor"]):
        text = CliRunner().invoke(app, words).stdout
        assert "https://github.com/uncbiag/SimpleClick" in text
        assert "promptseg pull simpleclick_vit_h --from cocolvis_vit_huge.pth" in text
