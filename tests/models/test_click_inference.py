"""How click models are run: crops, disks, mirror image, what is fed back; on networks that are functions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from promptseg.errors import ConfigError, IntegrityError, ModelError
from promptseg.models.click import _inference, ritm, simpleclick
from promptseg.models.click._checkpoint import Checkpoint
from promptseg.models.click._inference import Click, ClickSegmenter, ClickSettings, ClickState, Roi
from promptseg.segmenter import Prompt, Request, Runtime

PLAIN = ClickSettings(zoom_in=0, flip=False)
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def prompt(*given: tuple[int, int, int]) -> Prompt:
    """Return clicks given as x, y and label."""
    points = np.array([(x, y) for x, y, _ in given], dtype=np.float32).reshape(-1, 2)
    return Prompt(points_xy=points, labels=np.array([label for *_, label in given], dtype=np.int64))


class Recorder:
    """A network that keeps what it was shown and answers with a function of it."""

    def __init__(self, answer: Any = lambda image, maps: maps[:, 1:2] - maps[:, 2:3]) -> None:
        self.answer = answer
        self.shown: list[tuple[Tensor, Tensor]] = []

    def __call__(self, image: Tensor, maps: Tensor) -> Tensor:
        """Answer."""
        self.shown.append((image.clone(), maps.clone()))
        logits: Tensor = self.answer(image, maps)
        return logits


def segmenter(network: Any, settings: ClickSettings) -> ClickSegmenter:
    """Return a model of a network."""
    return ClickSegmenter(ritm.HRNET32, network, settings, Runtime())


def state(probability: npt.NDArray[np.float32] | float, roi: Roi | None = None) -> ClickState:
    """Return what a previous click left."""
    whole = np.broadcast_to(np.asarray(probability, dtype=np.float32), IMAGE.shape[:2]).copy()
    return ClickState(torch.from_numpy(whole)[None, None], roi)


def ask(model: ClickSegmenter, given: Prompt, before: ClickState | None = None) -> Any:
    """Return the answer to one request on `IMAGE`."""
    return model.predict([Request(model.embed([IMAGE])[0], given, before)])[0]


# ---------------------------------------------------------------------------------------------- disks


def test_a_disk_is_all_pixels_within_its_radius() -> None:
    """Of each sign in its own map, cut at the edge."""
    maps = _inference.disk_maps([Click(10, 12, positive=True), Click(0, 0, positive=False)], (20, 25), 5)
    rows, columns = np.mgrid[:20, :25]
    assert np.array_equal(maps[0] > 0, (rows - 10) ** 2 + (columns - 12) ** 2 <= 25)
    assert np.array_equal(maps[1] > 0, rows**2 + columns**2 <= 25)
    assert maps.dtype == np.float32


def test_a_disk_between_pixels_and_beyond_the_edge() -> None:
    """A click outside of the crop shows as much of its disk as reaches in, one before both first lines none."""
    rows, columns = np.mgrid[:20, :25]
    maps = _inference.disk_maps([Click(21.5, 3.25, positive=True), Click(-1, -1, positive=True)], (20, 25), 5)
    assert np.array_equal(maps[0] > 0, (rows - 21.5) ** 2 + (columns - 3.25) ** 2 <= 25)
    assert _inference.disk_maps([Click(-2, 4, positive=True)], (20, 25), 5).sum() > 0
    assert _inference.disk_maps([Click(500, 500, positive=True)], (20, 25), 5).sum() == 0


# ---------------------------------------------------------------------------------------------- crops


def test_the_crop_is_the_object_and_its_clicks_expanded() -> None:
    """1.4 times the extent about its centre, at least the minimum, within the image."""
    mask = np.zeros((300, 400), dtype=bool)
    mask[100:150, 200:300] = True
    assert _inference.object_roi(mask, [], 1.4, 20) == Roi(90, 160, 180, 320)  # halves are rounded to even
    assert _inference.object_roi(mask, [], 1.4, 200) == Roi(24, 224, 150, 350)
    far = [Click(290, 10, positive=True), Click(0, 399, positive=False)]
    assert _inference.object_roi(mask, far, 1.4, 20) == Roi(61, 299, 0, 358)
    assert _inference.object_roi(np.zeros((300, 400), dtype=bool), far, 1.4, 20) is None


def shown_sizes(model: ClickSegmenter, network: Recorder, given: Prompt, before: ClickState | None) -> tuple[int, ...]:
    """Return the size of what the network was shown for a request."""
    ask(model, given, before)
    return tuple(network.shown[-1][0].shape[2:])


def test_zoom_in_begins_with_the_second_click() -> None:
    """Before it, and without a previous mask, the whole image is seen as it is."""
    network = Recorder()
    model = segmenter(network, ClickSettings(zoom_in=80, zoom_in_min_crop=10))
    small = np.zeros(IMAGE.shape[:2], dtype=np.float32)
    small[10:20, 10:30] = 0.9
    one, two = prompt((20, 15, 1)), prompt((20, 15, 1), (22, 12, 1))
    assert shown_sizes(model, network, one, state(small)) == (30, 40)
    assert shown_sizes(model, network, two, None) == (30, 40)
    assert shown_sizes(model, network, two, state(0.0)) == (30, 40)
    assert shown_sizes(model, network, two, state(small)) == (41, 80)  # 15 x 29 pixels


def test_zoom_in_from_the_first_click_has_one_size() -> None:
    """A model with a fixed input sees the whole image at that size, then crops of that size."""
    network = Recorder()
    model = segmenter(network, ClickSettings(zoom_in=(64, 48), zoom_in_from_click=1, zoom_in_min_crop=10))
    answer = ask(model, prompt((20, 15, 1)))
    assert network.shown[-1][0].shape[2:] == (64, 48)
    assert answer.state.roi == Roi(0, 29, 0, 39)
    small = np.zeros(IMAGE.shape[:2], dtype=np.float32)
    small[10:14, 10:14] = 0.9
    answer = ask(model, prompt((11, 11, 1), (12, 12, 1)), state(small, Roi(0, 29, 0, 39)))
    assert network.shown[-1][0].shape[2:] == (64, 48)
    assert answer.state.roi == Roi(6, 16, 6, 16)
    assert float(answer.state.probabilities[0, 0, 20, 20]) == 0  # outside of the crop


def test_a_crop_stays_until_it_no_longer_fits() -> None:
    """It is left for a click outside of it, or where the object asks for one that overlaps by less than half."""
    model = segmenter(Recorder(), ClickSettings(zoom_in=80, zoom_in_min_crop=10))
    small = np.zeros(IMAGE.shape[:2], dtype=np.float32)
    small[10:20, 10:30] = 0.9
    inside, outside = prompt((20, 15, 1), (22, 12, 1)), prompt((20, 15, 1), (36, 25, 1))
    kept, far = Roi(5, 24, 4, 36), Roi(0, 29, 0, 39)
    assert ask(model, inside, state(small, kept)).state.roi == kept
    assert ask(model, inside, state(small, far)).state.roi != far
    assert ask(model, outside, state(small, kept)).state.roi != kept


def test_clicks_move_with_the_crop() -> None:
    """A click keeps its place in the object: the centre of its disk, in the image's pixels, is where it was given."""
    network = Recorder()
    model = segmenter(network, ClickSettings(zoom_in=90, zoom_in_min_crop=10, flip=False))
    small = np.zeros(IMAGE.shape[:2], dtype=np.float32)
    small[10:20, 10:30] = 0.9
    roi = ask(model, prompt((20, 15, 0), (28, 18, 1)), state(small)).state.roi
    _, maps = network.shown[-1]
    rows, columns = np.nonzero(maps[0, 1].numpy())
    scale = 90 / roi.size_hw[1]
    assert rows.mean() == pytest.approx((18 - roi.top) * scale, abs=0.5)
    assert columns.mean() == pytest.approx((28 - roi.left) * scale, abs=0.5)


def test_an_answer_on_the_whole_image_still_goes_to_the_last_crop() -> None:
    """As with the authors: after a mask was lost, the next answer is pasted into the crop before it."""
    model = segmenter(Recorder(), ClickSettings(zoom_in=80, zoom_in_min_crop=10))
    answer = ask(model, prompt((20, 15, 1), (22, 12, 1)), state(0.0, Roi(5, 14, 5, 24)))
    probabilities = answer.state.probabilities[0, 0].numpy()
    assert (probabilities[5:15, 5:25] > 0).all()
    assert probabilities.sum() == pytest.approx(probabilities[5:15, 5:25].sum())


# ---------------------------------------------------------------------------------------------- what is shown


def test_the_network_sees_image_previous_mask_and_disks() -> None:
    """The image normalised as ImageNet, the probabilities as they are, positive before negative disks."""
    network = Recorder()
    before = np.random.default_rng(1).uniform(size=IMAGE.shape[:2]).astype(np.float32)
    ask(segmenter(network, PLAIN), prompt((20, 15, 1), (5, 5, 0)), state(before))
    image, maps = network.shown[0]
    expected = (IMAGE / 255 - np.array(_inference.MEAN)) / np.array(_inference.STD)
    assert np.allclose(image[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert np.array_equal(maps[0, 0].numpy(), before)
    disks = _inference.disk_maps([Click(15, 20, positive=True), Click(5, 5, positive=False)], (30, 40), 5)
    assert np.array_equal(maps[0, 1:].numpy(), disks)


def test_the_mirror_image_is_averaged_before_the_sigmoid() -> None:
    """Both see the same click; a network that answers by column gets its own mirror image back."""
    ramp = torch.linspace(-3, 3, 40).expand(1, 1, 30, 40)
    network = Recorder(lambda image, maps: ramp.expand(len(image), -1, -1, -1) ** 3)
    answer = ask(segmenter(network, dataclasses.replace(PLAIN, flip=True)), prompt((4, 9, 1)))
    image, maps = network.shown[0]
    assert torch.equal(image[0].flip(2), image[1])
    assert torch.equal(maps[0].flip(2), maps[1])
    assert torch.allclose(answer.state.probabilities, torch.full((1, 1, 30, 40), 0.5), atol=1e-6)


def test_the_threshold_is_below_one_half() -> None:
    """0.49, as the authors evaluate."""
    for probability, expected in ((0.489, False), (0.491, True)):
        level = float(np.log(probability / (1 - probability)))
        network = Recorder(lambda image, _, level=level: torch.full_like(image[:, :1], level))
        assert ask(segmenter(network, PLAIN), prompt((4, 9, 1))).masks.all() == expected


def test_all_requests_are_answered_in_their_order() -> None:
    """Different images, sizes and numbers of clicks share a call."""
    images = [IMAGE, IMAGE[:20, :25], IMAGE]
    given = [prompt((3, 4, 1)), prompt((10, 10, 1), (5, 5, 0)), prompt((30, 20, 1))]
    model = segmenter(Recorder(), ClickSettings())
    requests = [Request(e, p) for e, p in zip(model.embed(images), given, strict=True)]
    together = model.predict(requests)
    for request, answer in zip(requests, together, strict=True):
        assert np.array_equal(model.predict([request])[0].masks, answer.masks)
        assert answer.masks.shape == (1, *request.embedding.shape[2:])


# ---------------------------------------------------------------------------------------------- feedback


def feedback(_: Tensor, maps: Tensor) -> Tensor:
    """Answer with more than what was fed back."""
    return maps[:, :1] + 1


def test_the_previous_mask_is_fed_back_where_there_is_one() -> None:
    """What a click leaves reaches the next one unchanged."""
    network = Recorder(feedback)
    model = segmenter(network, PLAIN)
    first = ask(model, prompt((4, 9, 1)))
    ask(model, prompt((4, 9, 1), (8, 8, 1)), first.state)
    assert (network.shown[0][1][:, 0] == 0).all()
    assert torch.equal(network.shown[1][1][:, :1], first.state.probabilities)


def test_the_profile_of_2023_ignores_state() -> None:
    """All clicks at once and an empty previous mask, whatever is handed back."""
    network = Recorder(feedback)
    model = segmenter(network, dataclasses.replace(PLAIN, previous_mask=False))
    both = prompt((4, 9, 1), (8, 8, 1))
    assert torch.equal(ask(model, both, state(0.9)).state.probabilities, ask(model, both).state.probabilities)
    assert (network.shown[0][1][:, 0] == 0).all()


@pytest.mark.parametrize(("given", "passes"), [(1, 5), (2, 1)])
def test_a_cascade_repeats_the_first_click(given: int, passes: int) -> None:
    """Each pass is fed the one before; later clicks have one pass."""
    network = Recorder(feedback)
    model = segmenter(network, dataclasses.replace(PLAIN, cascade_passes=5))
    answer = ask(model, prompt(*((4 + i, 9, 1) for i in range(given))))
    assert len(network.shown) == passes
    expected = torch.zeros(1, 1, 30, 40)
    for _ in range(passes):
        expected = torch.sigmoid(expected + 1)
    assert torch.allclose(answer.state.probabilities, expected)


def test_an_adaptive_cascade_ends_when_the_mask_settles() -> None:
    """Twenty pixels are next to nothing; of several requests each ends by itself."""

    def growing(_: Tensor, maps: Tensor) -> Tensor:
        filled = (maps[:, :1] > 0.5).sum(dim=(2, 3), keepdim=True)
        wanted = filled + (25 if bool(maps[0, 1, 0, 0]) else 15)  # the click in the corner makes it grow faster
        order = torch.arange(maps[0, 0].numel()).view(1, 1, *maps.shape[2:])
        return torch.where(order < wanted, 3.0, -3.0)

    network = Recorder(growing)
    model = segmenter(network, dataclasses.replace(PLAIN, cascade_passes=5, cascade_adaptive=True))
    (embedding,) = model.embed([IMAGE])
    model.predict([Request(embedding, prompt((0, 0, 1))), Request(embedding, prompt((20, 20, 1)))])
    corner = [bool(maps[0, 1, 0, 0]) for _, maps in network.shown]
    assert (corner.count(True), corner.count(False)) == (5, 2)


# ---------------------------------------------------------------------------------------------- bad input


def test_a_prompt_without_points_and_nan_are_refused() -> None:
    """Both name the model."""
    with pytest.raises(ModelError, match="'ritm_hrnet32' was given a prompt without points"):
        ask(segmenter(Recorder(), PLAIN), Prompt())
    broken = Recorder(lambda image, _: image[:, :1] * float("nan"))
    with pytest.raises(ModelError, match=r"'ritm_hrnet32' returned NaN .*--seg-dtype float32"):
        ask(segmenter(broken, PLAIN), prompt((4, 9, 1)))


def test_settings_come_from_options() -> None:
    """Those that a spec does not name are the family's; a list of two is a size."""
    spec = dataclasses.replace(simpleclick.VIT_B, options={"zoom_in": [672, 672], "cascade_passes": 5, "threshold": 1})
    found = ClickSettings.of(spec, ClickSettings(zoom_in_from_click=1))
    assert found == ClickSettings(zoom_in=(672, 672), zoom_in_from_click=1, cascade_passes=5, threshold=1)


@pytest.mark.parametrize(
    ("name", "value"), [("flip", 1), ("zoom_in", "400"), ("zoom_in", [1, 2, 3]), ("threshold", True), ("zoom_in", -1)]
)
def test_a_setting_of_another_kind_is_refused(name: str, value: object) -> None:
    """The message names the model and the option."""
    spec = dataclasses.replace(ritm.HRNET32, options={name: value})
    with pytest.raises(ConfigError, match=f"model ritm_hrnet32: option {name} is "):
        ClickSettings.of(spec, ClickSettings())


@pytest.mark.parametrize(
    "params", [{"use_disks": False}, {"with_prev_mask": False}, {"norm_radius": 260}, {"binary_prev_mask": True}]
)
def test_a_network_trained_on_other_inputs_is_refused(params: dict[str, object], tmp_path: Any) -> None:
    """Distance maps instead of disks, no previous mask, another radius: its answers would mean nothing."""
    good = {"use_disks": True, "with_prev_mask": True, "norm_radius": 5}
    _inference.check_network_inputs(Checkpoint({}, "a.B", good, tmp_path), ClickSettings(), owner="mine")
    with pytest.raises(IntegrityError, match=r"mine: .* is of a network trained with"):
        _inference.check_network_inputs(
            Checkpoint({}, "a.B", {**good, **params}, tmp_path), ClickSettings(), owner="mine"
        )


def test_every_setting_of_the_authors_is_named_in_the_specs() -> None:
    """What a spec says is what is run; the profile of 2023 differs in the previous mask alone."""
    said = {"zoom_in", "zoom_in_from_click", "flip", "threshold", "click_radius", "previous_mask"}
    for spec in (ritm.HRNET18, ritm.HRNET32_PAPER2023, simpleclick.VIT_H, simpleclick.VIT_H_PAPER2023):
        assert said <= set(spec.options)
        assert ("feedback" in spec.accepts) == spec.options["previous_mask"]
