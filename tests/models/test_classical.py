"""The classical methods: they find what can be seen, and survive what cannot."""

from importlib import import_module

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED

from promptseg import ModelSpec, Prediction, Prompt, Request, Runtime, Segmenter
from promptseg.models._window import Window, box_slices, grown
from promptseg.registry.references import resolve
from promptseg.segmenter import Image, Mask, check_prediction

DATA = SHARED / "data"
NAMES = ("grabcut", "random_walker", "region_growing")


def _load(name: str) -> Segmenter:
    spec: ModelSpec = import_module(f"promptseg.models.classical.{name}").SPEC
    model: Segmenter = resolve(spec.load)(spec, {}, Runtime())
    return model


def _ask(name: str, image: Image, prompt: Prompt) -> Prediction:
    model = _load(name)
    (prediction,) = model.predict([Request(model.embed([image])[0], prompt)])
    return check_prediction(name, prediction, (image.shape[0], image.shape[1]))


def _points(*points: tuple[float, float, int]) -> Prompt:
    array = np.array(points, dtype=np.float32).reshape(-1, 3)
    return Prompt(array[:, :2], array[:, 2].astype(np.int64))


def _box(*edges: float) -> Prompt:
    return Prompt(box_xyxy=np.array(edges, dtype=np.float32))


def _disc(size_hw: tuple[int, int], x: int, y: int, radius: int) -> Mask:
    rows, cols = np.ogrid[: size_hw[0], : size_hw[1]]
    return np.asarray((cols - x) ** 2 + (rows - y) ** 2 <= radius**2)


def _shown(target: Mask) -> Image:
    """Return an image with the target 90 grey levels above a noisy ground."""
    grey = np.random.default_rng(0).normal(60, 8, target.shape) + 90 * target
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _iou(mask: Mask, target: Mask) -> float:
    return float((mask & target).sum() / (mask | target).sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", [_points((150, 70, 1)), _box(115, 35, 185, 105)], ids=["point", "box"])
def test_finds_a_disc(name: str, prompt: Prompt) -> None:
    """A bright disc in a wide image is found from its centre and from its box."""
    target = _disc((140, 220), 150, 70, 35)
    assert _iou(_ask(name, _shown(target), prompt).masks[0], target) > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_finds_a_disc_in_a_large_image(name: str) -> None:
    """The grid is coarse, the answer has the image's size and place."""
    target = _disc((700, 900), 640, 250, 110)
    assert _iou(_ask(name, _shown(target), _box(530, 140, 750, 360)).masks[0], target) > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_background_point_keeps_an_object_out(name: str) -> None:
    """Two discs joined by a bridge: a background point on the second takes most of it away."""
    first, second = _disc((100, 160), 40, 50, 20), _disc((100, 160), 115, 50, 20)
    both = first | second
    both[46:55, 40:115] = True
    image = _shown(both)
    kept = _ask(name, image, _points((40, 50, 1), (115, 50, 0))).masks[0]
    assert kept[first].mean() > 0.8
    assert kept[second].mean() < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_two_foreground_points_take_both_objects(name: str) -> None:
    """Each foreground point brings its object in."""
    first, second = _disc((100, 160), 40, 50, 20), _disc((100, 160), 115, 50, 20)
    mask = _ask(name, _shown(first | second), _points((40, 50, 1), (115, 50, 1))).masks[0]
    assert mask[first].mean() > 0.8
    assert mask[second].mean() > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_random_state_of_others_does_not_matter(name: str) -> None:
    """Whatever OpenCV's global generator did before, the answer is the same (GrabCut's clusters on soft blobs tell)."""
    soft = cv2.GaussianBlur(np.random.default_rng(6).normal(0, 1, (60, 80, 3)), (0, 0), 6)
    image = (255 * (soft - soft.min()) / np.ptp(soft)).astype(np.uint8)
    answers = set()
    for seed in range(1, 6):
        cv2.setRNGSeed(seed)
        answers.add(_ask(name, image, _points((40, 30, 1))).masks.tobytes())
    assert len(answers) == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_foreground_gives_an_empty_mask(name: str) -> None:
    """Without a box and without a foreground point there is no object."""
    image = _shown(_disc((40, 60), 30, 20, 10))
    assert not _ask(name, image, _points((30, 20, 0))).masks.any()
    assert not _ask(name, image, _points()).masks.any()


@pytest.mark.parametrize("name", ["grabcut", "random_walker"])
def test_box_round_everything_is_the_answer_itself(name: str) -> None:
    """With no background to learn from, the box is all that is known."""
    image = _shown(_disc((40, 60), 30, 20, 10))
    assert _ask(name, image, _box(0, 0, 59, 39)).masks.all()


def test_grabcut_collapsed_to_background_answers_with_the_box() -> None:
    """Where the colours inside are those outside, the cut leaves nothing, and the box is the answer."""
    image = np.full((80, 80, 3), 90, dtype=np.uint8)
    mask = _ask("grabcut", image, _box(20, 30, 49, 59)).masks[0]
    assert mask.sum() == 900
    assert mask[30:60, 20:50].all()


def test_grabcut_keeps_only_what_touches_the_point() -> None:
    """A second object of the same colour is not the one that was clicked."""
    first, second = _disc((100, 160), 40, 50, 15), _disc((100, 160), 125, 50, 15)
    mask = _ask("grabcut", _shown(first | second), _points((40, 50, 1))).masks[0]
    assert _iou(mask, first) > 0.8
    assert not mask[second].any()


def test_region_growing_offers_three_tolerances_that_contain_each_other() -> None:
    """A larger tolerance never loses a pixel."""
    middle, strict, loose = _ask("region_growing", _shown(_disc((90, 90), 45, 45, 25)), _points((45, 45, 1))).masks
    assert not (strict & ~middle).any()
    assert not (middle & ~loose).any()


def test_region_growing_stays_in_its_box() -> None:
    """Nothing grows out of the box, even where the image is flat."""
    mask = _ask("region_growing", np.full((50, 70, 3), 90, dtype=np.uint8), _box(10, 5, 40, 30)).masks[0]
    assert mask.sum() == 31 * 26
    assert mask[5:31, 10:41].all()


def test_region_growing_fills_holes() -> None:
    """A dark spot within the object belongs to it."""
    target = _disc((120, 120), 60, 60, 40)
    image = _shown(target & ~_disc((120, 120), 75, 60, 6))
    mask = _ask("region_growing", image, _points((45, 60, 1))).masks[0]
    assert mask[60, 75]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_prompt_on_any_image_is_answered(name: str, data: st.DataObject) -> None:
    """Tiny, flat, noisy and two-coloured images with any points and box: no error, no warning, the right shape."""
    h, w = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    levels = data.draw(st.sampled_from([1, 2, 256]))
    image = (np.random.default_rng(h * w).integers(0, levels, (h, w, 3)) * (255 // max(levels - 1, 1))).astype(np.uint8)
    pixel = st.tuples(st.integers(0, w - 1), st.integers(0, h - 1), st.integers(0, 1))
    points = _points(*data.draw(st.lists(pixel, max_size=5)))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, w - 1), st.integers(0, w - 1))))
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, h - 1), st.integers(0, h - 1))))
    box = np.array([x0, y0, x1, y1], dtype=np.float32)
    given_image = image.copy()
    for prompt in (points, Prompt(box_xyxy=box), Prompt(points.points_xy, points.labels, box)):
        _ask(name, image, prompt)
    assert np.array_equal(image, given_image)


def test_window_keeps_a_small_part_at_its_resolution() -> None:
    """A part below the limit is not enlarged, and cells are its pixels."""
    image = np.zeros((50, 60, 3), dtype=np.uint8)
    window = Window.of(image, (slice(10, 30), slice(20, 50)), 96)
    assert window.grid_hw == (20, 30)
    assert window.cells(np.array([[20, 10], [49, 29], [0, 0], [59, 49]])).tolist() == [
        [0, 0],
        [29, 19],
        [0, 0],
        [29, 19],
    ]


def test_window_maps_pixels_to_the_cell_that_holds_them() -> None:
    """At a quarter of the resolution pixels 4 to 7 lie in cell 1."""
    window = Window.of(np.zeros((40, 80, 3), dtype=np.uint8), (slice(0, 40), slice(0, 80)), 20)
    assert window.grid_hw == (10, 20)
    assert window.cells(np.array([[4, 7], [7, 4], [79, 39]])).tolist() == [[1, 1], [1, 1], [19, 9]]


def test_window_pastes_a_block_where_it_was() -> None:
    """Cells 2 to 4 of a quarter grid are pixels 8 to 19 of the image, shifted by the window's corner."""
    window = Window.of(np.zeros((60, 80, 3), dtype=np.uint8), (slice(10, 50), slice(20, 60)), 10)
    values = np.zeros((10, 10))
    values[2:5, 2:5] = 1
    rows, cols = window.paste(values).nonzero()
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (18, 29, 28, 39)


def test_box_grows_by_a_fraction_of_its_sides_within_the_image() -> None:
    """Twenty columns grow by ten on each side, the rows reach the image's edge."""
    box = box_slices(np.array([30, 2, 49, 5], dtype=np.float32), (20, 100))
    assert box == (slice(2, 6), slice(30, 50))
    assert grown(box, 0.5, 3, (20, 100)) == (slice(0, 9), slice(20, 60))


def _tumours() -> list[tuple[Image, Mask]]:
    folder = DATA / "us_breast"
    if not folder.is_dir():
        pytest.skip("needs the real medical images beside the checkout: us_breast")
    pairs = []
    for path in sorted((folder / "images").glob("*.png"))[:4]:
        image, labels = cv2.imread(str(path)), cv2.imread(str(folder / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert labels is not None
        pairs.append((image.astype(np.uint8), np.asarray(labels > 0)))
    return pairs


@pytest.mark.real
@pytest.mark.parametrize("name", ["grabcut", "random_walker"])
def test_beats_the_filled_box_on_real_tumours(name: str) -> None:
    """On four breast tumours in ultrasound the method adds to what the box alone says."""
    gains = []
    for image, target in _tumours():
        rows, cols = target.nonzero()
        filled = np.zeros_like(target)
        filled[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1] = True
        mask = _ask(name, image, _box(cols.min(), rows.min(), cols.max(), rows.max())).masks[0]
        gains.append(_iou(mask, target) - _iou(filled, target))
    assert np.mean(gains) > 0.02
