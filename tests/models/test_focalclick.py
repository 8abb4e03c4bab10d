"""FocalClick: the authors' answers, where it looks, what it carries from click to click, which checkpoints it takes.

The numbers in golden/rivals_focalclick.json were made with the authors' public repository:
``python scripts/checks/compare_rivals.py --family focalclick --repo CLONE --golden FILE``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.authors_format import write_checkpoint
from support.paths import GOLDEN
from support.script_modules import load_script

from promptseg.errors import ConfigError, IntegrityError, ModelError
from promptseg.models.click import focalclick
from promptseg.models.click._focalclick import FocalClickSegmenter, FocalState, _aligned
from promptseg.models.click._focalclick_crops import focus_roi, merged
from promptseg.models.click._focalclick_net import SIZES, FocalClickNet
from promptseg.models.click._inference import Roi
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Runtime, check_prediction
from promptseg.specs import ModelSpec
from promptseg.testing import check_model

SIZE_HW = (60, 80)
SIDE = 64  # of the networks' input, instead of 256, for speed
WHOLE = Roi(0, 59, 0, 79)
INPUTS = {"with_prev_mask": True, "binary_prev_mask": False}
# Random weights find nothing, so what is asked here is all of the conformance kit but the right answer.
ABOUT_QUALITY = {"coordinates", "prompts_respected", "labels_respected"}


def random_state(model_version: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights for every parameter of a backbone's size, drawn from the raw bits of NumPy's PCG64."""
    bits, state = np.random.PCG64(seed), {}
    for name, value in sorted(FocalClickNet(SIZES[model_version], halve=False).state_dict().items()):
        drawn = (bits.random_raw(value.numel()) >> np.uint64(11)) * 2.0**-53 * 2 - 1
        if name.endswith(("running_var", "weight")) and value.ndim == 1:
            drawn = 1 + drawn / 2
        elif value.ndim > 1:
            drawn = drawn * (3 / value[0].numel()) ** 0.5
        state[name] = torch.from_numpy(drawn.reshape(value.shape)).to(value.dtype)
    return state


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for conversions, shared by the tests of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return random weights of B0 in the authors' format, for the pipeline s2."""
    path = tmp_path_factory.mktemp("weights") / "b0_s2.pth"
    params = {"model_version": "b0", "pipeline_version": "s2", **INPUTS}
    write_checkpoint(path, random_state("b0"), "isegm.model.is_segformer_model.SegFormerModel", params)
    return path


@pytest.fixture
def model(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> FocalClickSegmenter:
    """Return the small model in the profile of its authors."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    return load(focalclick.SEGFORMER_B0_S2, checkpoint)


def load(spec: ModelSpec, path: Path, **options: object) -> FocalClickSegmenter:
    """Load a model with a smaller input and other options."""
    spec = dataclasses.replace(spec, options={**spec.options, "input_size": SIDE, **options})
    return focalclick.load(spec, {"checkpoint": path}, Runtime())


def image_of(size_hw: tuple[int, int] = SIZE_HW) -> Image:
    """Return a bright ellipse on a ramp."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    inside = ((y - 25) / 14) ** 2 + ((x - 34) / 20) ** 2 <= 1
    return np.stack([x + 80 * inside, 2 * y + 50 * inside, 90 + 60 * inside], axis=-1).astype(np.uint8)


def clicks(*given: tuple[int, int, int]) -> Prompt:
    """Return clicks, each x, y and label."""
    xy, labels = np.array(given)[:, :2].astype(np.float32), np.array(given)[:, 2]
    return Prompt(points_xy=xy, labels=labels)


def rectangle(top: int, bottom: int, left: int, right: int) -> Mask:
    """Return a mask of the rows and columns from first to last."""
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def probabilities(prediction: Prediction) -> npt.NDArray[np.float32]:
    """Return the (H, W) probabilities that a prediction left."""
    state: FocalState = prediction.state
    return np.asarray(state.probabilities[0, 0].numpy())


CLICKS = [(34, 25, 1), (50, 30, 1), (5, 50, 0)]


# ---------------------------------------------------------------------------------------------- the authors' answers

RIVALS: dict[str, Any] = json.loads((GOLDEN / "rivals_focalclick.json").read_text())


@pytest.fixture(scope="module")
def compare() -> Any:
    """Return the script that runs the authors' repository; what it needs of that is not here."""
    return load_script("compare_rivals")


@pytest.fixture(scope="module")
def golden_checkpoint(compare: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights behind the golden numbers, in the authors' format."""
    about, path = compare.FAMILIES["focalclick"], tmp_path_factory.mktemp("golden") / "tiny.pth"
    network = FocalClickNet(SIZES["b0"], halve=False)
    with torch.no_grad():
        compare.draw_weights(network, 0)
        compare.change_last(network, about.last, RIVALS["factor"], RIVALS["shift"])
    write_checkpoint(path, network.state_dict(), about.class_name, about.params("tiny"))
    return path


def fed_back(compare: Any, model: FocalClickSegmenter, size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return what the golden file holds of a map after each click."""
    given, (embedding,), state, found = (
        compare.tiny_clicks(size_hw),
        model.embed([compare.tiny_image(size_hw)]),
        None,
        [],
    )
    for count in range(1, len(given) + 1):
        (answer,) = model.predict([Request(embedding, compare.as_prompt(given[:count]), state)])
        state = answer.state
        found.append(compare.probe(probabilities(answer)))
    return np.array(found)


@pytest.mark.parametrize("size", sorted(RIVALS["answers"]))
def test_the_authors_answers(
    compare: Any, golden_checkpoint: Path, size: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both profiles give the authors' maps: their mean and three pixels, after each click and to all at once."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    height, width = map(int, size.split("x"))
    wanted = RIVALS["answers"][size]
    model = load(focalclick.SEGFORMER_B0_S2, golden_checkpoint, input_size=256)
    assert np.abs(fed_back(compare, model, (height, width)) - wanted["fed_back"]).max() < 1e-4
    study = load(focalclick.SEGFORMER_B0_S2_PAPER2023, golden_checkpoint, input_size=256)
    assert np.abs(fed_back(compare, study, (height, width))[-1] - wanted["at_once"]).max() < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {"previous_mask": False},
        {"focus_expansion": 0.0},
        {"focus_expansion": 1.0},
        {"crop_threshold": 0.8},
        {"input_size": 224},
    ],
    ids=str,
)
def test_every_setting_counts(
    compare: Any, golden_checkpoint: Path, change: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another one the answers are not the authors': the golden numbers would notice."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    model = load(focalclick.SEGFORMER_B0_S2, golden_checkpoint, **{"input_size": 256, **change})
    gaps = [
        np.abs(fed_back(compare, model, hw) - RIVALS["answers"]["x".join(map(str, hw))]["fed_back"]).max()
        for hw in compare.TINY_SIZES
    ]
    assert max(gaps) > 1e-3


# ---------------------------------------------------------------------------------------------- where it looks


def test_first_focus_is_the_whole_object() -> None:
    """Without anything before, the crop is 1.4 times as large as the box of the object, and within the image."""
    empty = np.zeros(SIZE_HW, dtype=bool)
    # 20 rows and 30 columns round (29.5, 34.5): 28 and 42 of them, ends truncated, the last one outside
    assert focus_roi(rectangle(20, 39, 20, 49), empty, (30, 30), WHOLE, 1.4) == Roi(15, 42, 13, 54)
    assert focus_roi(rectangle(0, 39, 20, 79), empty, (30, 30), WHOLE, 1.4) == Roi(0, 46, 7, 79)


def test_focus_is_on_the_part_that_the_click_changed() -> None:
    """Of two changes, the one in one piece with the click counts."""
    before = rectangle(10, 49, 10, 39)
    now = before | rectangle(20, 39, 40, 64) | rectangle(55, 58, 70, 78)
    assert focus_roi(now, before, (30, 45), WHOLE, 1.0) == Roi(19, 38, 39, 63)


def test_narrow_change_is_seen_through_a_window_round_the_click() -> None:
    """A sliver gets 0.2 of the object's longer side to each side of the click, times the expansion."""
    before = rectangle(10, 49, 10, 59)
    now = before | rectangle(10, 49, 60, 62)
    reach = 0.2 * 52  # columns 10 to 62
    length = 1.4 * (2 * reach + 1)
    found = focus_roi(now, before, (30, 61), WHOLE, 1.4)
    assert found == Roi(int(30 - length / 2), int(30 + length / 2) - 1, int(61 - length / 2), int(61 + length / 2) - 1)


def test_few_pixels_are_no_object() -> None:
    """Less than ten pixels found: the whole image is looked at, as far as the network has seen it."""
    empty, seen = np.zeros(SIZE_HW, dtype=bool), Roi(5, 40, 0, 70)
    assert focus_roi(rectangle(3, 5, 3, 5), empty, (4, 4), seen, 1.4) == seen
    assert focus_roi(rectangle(3, 4, 3, 7), empty, (4, 4), WHOLE, 1.4) == Roi(2, 3, 1, 7)


def test_focus_outside_of_what_was_seen_is_none() -> None:
    """A click far from the crop that the network looked at leaves nothing to look at."""
    before = rectangle(10, 49, 10, 39)
    now = before | rectangle(56, 59, 70, 73)
    assert focus_roi(now, before, (57, 71), Roi(0, 30, 0, 40), 1.0) is None


def test_merging_keeps_what_the_click_is_not_about() -> None:
    """Of two corrections, only the one in one piece with the click is taken, whether it adds or removes."""
    before = rectangle(10, 29, 10, 29)
    added = rectangle(15, 20, 30, 40)
    now = (before & ~rectangle(10, 12, 10, 12)) | added | rectangle(50, 55, 60, 70)
    assert np.array_equal(merged(now, before, (17, 35)), before | added)
    assert np.array_equal(merged(now, before, (11, 11)), before & ~rectangle(10, 12, 10, 12))


def bilinear(maps: npt.NDArray[np.float32], y: float, x: float) -> npt.NDArray[np.float32]:
    """Return the (C,) values of (C, H, W) maps between pixel centres, constant beyond the edge."""
    rows, columns = maps.shape[1:]
    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    top, left = min(int(y), rows - 2), min(int(x), columns - 2)
    (a, b), (c, d) = ((maps[:, top + i, left], maps[:, top + i, left + 1]) for i in (0, 1))
    dy, dx = y - top, x - left
    return np.asarray((1 - dy) * ((1 - dx) * a + dx * b) + dy * ((1 - dx) * c + dx * d))


def test_features_are_cut_out_between_their_cells() -> None:
    """Cell i of a cut out map of n cells lies at start + (i + 0.5) * size / n - 0.5 of the whole map."""
    maps = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    x1, y1, x2, y2 = 5.5, 0.0, 20.0, 32.0  # in a square of 32
    found = _aligned(torch.from_numpy(maps), torch.tensor([[x1, y1, x2, y2]]), 32)[0].numpy()
    for row, column in ((0, 0), (3, 5), (7, 7)):
        y = (y1 + (row + 0.5) * (y2 - y1) / 8) / 4 - 0.5
        x = (x1 + (column + 0.5) * (x2 - x1) / 8) / 4 - 0.5
        assert np.allclose(found[:, row, column], bilinear(maps[0], y, x), atol=1e-5)


# ---------------------------------------------------------------------------------------------- from click to click


def ask(model: FocalClickSegmenter, prompts: list[Prompt], state: Any = None) -> list[Prediction]:
    """Return the answers to one prompt after the other, each state handed on."""
    (embedding,), answers = model.embed([image_of()]), []
    for prompt in prompts:
        (answer,) = model.predict([Request(embedding, prompt, state)])
        state = answer.state
        answers.append(check_prediction("focalclick", answer, SIZE_HW))
    return answers


def prefixes(given: list[tuple[int, int, int]]) -> list[Prompt]:
    """Return the prompts of one click, two clicks, ..."""
    return [clicks(*given[: n + 1]) for n in range(len(given))]


def test_conforms_but_for_knowing_the_answer(model: FocalClickSegmenter) -> None:
    """Shapes, batches, mixed images, determinism and states are as the contract has them."""
    report = check_model(model)
    assert {check.name for check in report.failures} <= ABOUT_QUALITY
    assert len(report.checks) > 5


def test_previous_answer_counts_and_its_state_is_not_touched(model: FocalClickSegmenter) -> None:
    """The second answer depends on the state of the first; handing that back again gives the same."""
    first, second = ask(model, prefixes(CLICKS[:2]))
    (alone,) = ask(model, [clicks(*CLICKS[:2])])
    (again,) = ask(model, [clicks(*CLICKS[:2])], first.state)
    assert np.abs(probabilities(second) - probabilities(alone)).max() > 1e-3
    assert np.array_equal(probabilities(second), probabilities(again))


def test_paper2023_answers_all_clicks_at_once(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the study ran it nothing is carried over, and no second network looks."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    model = load(focalclick.SEGFORMER_B0_S2_PAPER2023, checkpoint)
    in_turn, (at_once,) = ask(model, prefixes(CLICKS))[-1], ask(model, [clicks(*CLICKS)])
    assert np.array_equal(probabilities(in_turn), probabilities(at_once))
    monkeypatch.setattr(model._network, "refine", None)
    ask(model, [clicks(*CLICKS)])


def test_after_ten_clicks_only_the_focus_changes(model: FocalClickSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the eleventh click on the previous answer stays outside of the focus crop."""
    many = [(8 * i + 4, (37 * i) % 60, i % 2) for i in range(10)] + [(40, 30, 1), (20, 20, 0)]
    focus = Roi(10, 29, 15, 50)
    monkeypatch.setattr("promptseg.models.click._focalclick.focus_roi", lambda *_: focus)
    answers = [probabilities(answer) for answer in ask(model, prefixes(many))]
    outside = np.ones(SIZE_HW, dtype=bool)
    outside[10:30, 15:51] = False
    assert not np.allclose(answers[9][outside], answers[8][outside], rtol=0, atol=1e-6)
    assert np.allclose(answers[10][outside], answers[9][outside], rtol=0, atol=1e-6)  # by way of logits
    assert not np.array_equal(answers[10][~outside], answers[9][~outside])


def test_mask_of_the_user_is_changed_piece_by_piece(model: FocalClickSegmenter) -> None:
    """An answer to a given mask differs from it only in one piece that holds the click."""
    given = rectangle(20, 39, 30, 59)
    (answer,) = ask(model, [clicks((45, 30, 0))], model.start(given))
    changed = answer.masks[0] ^ given
    assert np.array_equal(merged(answer.masks[0], given, (30, 45)), answer.masks[0])
    assert changed[30, 45] == changed.any()
    assert np.array_equal(answer.state.mask, answer.masks[0])


@pytest.mark.parametrize(("expansion", "roi"), [(1.4, Roi(16, 44, 14, 56)), (1.0, Roi(20, 40, 20, 50))])
def test_later_clicks_look_at_the_object(model: FocalClickSegmenter, expansion: float, roi: Roi) -> None:
    """From the second click on the crop follows what was seen, and nothing is found outside of it."""
    model.settings = dataclasses.replace(model.settings, zoom_in_expansion=expansion)
    seen = torch.from_numpy(rectangle(20, 39, 20, 49).astype(np.float32))[None, None]
    (answer,) = ask(model, [clicks((30, 30, 1), (40, 25, 1))], FocalState(seen, None))
    assert answer.state.roi == roi
    found = probabilities(answer)
    assert found[roi.top : roi.bottom + 1, roi.left : roi.right + 1].min() > 0
    found[roi.top : roi.bottom + 1, roi.left : roi.right + 1] = 0
    assert not found.any()


def test_after_an_empty_answer_the_whole_image_is_looked_at(model: FocalClickSegmenter) -> None:
    """Nothing seen: the answer goes to the last crop, as in the authors' code, and nothing is found elsewhere."""
    crop = Roi(10, 39, 20, 59)
    empty = FocalState(torch.zeros(1, 1, *SIZE_HW), crop)
    (answer,) = ask(model, [clicks(*CLICKS)], empty)
    found = probabilities(answer)
    assert answer.state.roi == crop
    assert found[10:40, 20:60].min() > 0
    found[10:40, 20:60] = 0
    assert not found.any()


# ---------------------------------------------------------------------------------------------- what is refused


def test_profiles_name_every_setting() -> None:
    """Both profiles say in their options how the networks are used, and what sets them apart is what the study did."""
    from promptseg.models.click._focalclick import FocalSettings

    authors, study = focalclick.SEGFORMER_B3, focalclick.SEGFORMER_B3_PAPER2023
    assert set(authors.options) == {"architecture"} | FocalSettings.names() == set(study.options)
    differing = {name: (value, study.options[name]) for name, value in authors.options.items()}
    assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {
        "previous_mask": (True, False),
        "focus_expansion": (1.4, 0.0),
        "threshold": (0.5, 0.49),
    }
    assert sorted(authors.accepts) == ["feedback", "points"]
    assert sorted(study.accepts) == ["points"]
    assert focalclick.SEGFORMER_B0_S1.options["click_radius"] == 3


def test_checkpoint_of_another_pipeline_is_refused(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1 and S2 have the same parameters: only the config in the file tells them apart, and it is asked."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    with pytest.raises(IntegrityError, match=r"'pipeline_version': 's2'.*segformer_b0_s1 has.*'s1'"):
        load(focalclick.SEGFORMER_B0_S1, checkpoint)
    with pytest.raises(IntegrityError, match=r"segformer_b3_s2 has .*'b3'"):
        load(focalclick.SEGFORMER_B3, checkpoint)


@pytest.mark.parametrize(
    ("class_name", "params", "message"),
    [
        ("isegm.model.is_hrnet_model.HRNetModel", {}, "holds a isegm.model.is_hrnet_model.HRNetModel"),
        ("isegm.model.is_segformer_model.SegFormerModel", {"model_version": "b5"}, "'model_version': 'b5'"),
        ("isegm.model.is_segformer_model.SegFormerModel", {"with_prev_mask": False}, "'with_prev_mask': False"),
    ],
)
def test_checkpoint_of_another_network_is_refused(
    class_name: str, params: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another class, backbone or kind of input ends in an error that names what was found."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    given = {"model_version": "b0", "pipeline_version": "s2", **INPUTS, **params}
    write_checkpoint(tmp_path / "other.pth", {"weight": torch.zeros(2)}, class_name, given)
    with pytest.raises(IntegrityError, match=message):
        load(focalclick.SEGFORMER_B0_S2, tmp_path / "other.pth")


def test_missing_and_foreign_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of the file must be used and none may be missing, those that no answer depends on included."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    state = random_state("b0")
    state["refiner.extra"] = state.pop("maps_transform.3.scale")
    params = {"model_version": "b0", "pipeline_version": "s2", **INPUTS}
    write_checkpoint(tmp_path / "odd.pth", state, "isegm.model.is_segformer_model.SegFormerModel", params)
    with pytest.raises(IntegrityError, match=r"1 missing: maps_transform\.3\.scale; 1 unexpected: refiner\.extra"):
        load(focalclick.SEGFORMER_B0_S2, tmp_path / "odd.pth")


def test_what_cannot_be_done_is_refused(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduced precision, a prompt without points, options of another kind and a radius of another pipeline."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    with pytest.raises(ConfigError, match="dtype bfloat16 is not available, use --seg-dtype float32"):
        focalclick.load(focalclick.SEGFORMER_B0_S2, {"checkpoint": checkpoint}, Runtime(dtype="bfloat16"))
    with pytest.raises(ConfigError, match="option threshold is 'half'"):
        load(focalclick.SEGFORMER_B0_S2, checkpoint, threshold="half")
    with pytest.raises(ConfigError, match="unknown option flip"):
        load(focalclick.SEGFORMER_B0_S2, checkpoint, flip=True)
    with pytest.raises(IntegrityError, match=r"'click_radius': 3\}; they must be .*'click_radius': 5"):
        load(focalclick.SEGFORMER_B0_S2, checkpoint, click_radius=3)
    with pytest.raises(ModelError, match="without points"):
        ask(load(focalclick.SEGFORMER_B0_S2, checkpoint), [Prompt()])
