"""Prompts: cases a person can check, pinned draws, and the protocol as properties."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptseg import prompts
from promptseg.segmenter import Mask, Prompt

STATIC: dict[str, Callable[[Mask, np.random.Generator], tuple[Prompt, ...]]] = {
    "point_largest": prompts.point_largest,
    "point_each": prompts.point_each,
    "box_largest": prompts.box_largest,
    "box_each": prompts.box_each,
    "box_all": prompts.box_all,
}
TARGETS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)).filter(np.any)


def mask(*rows: str) -> Mask:
    """Draw a mask: ``#`` is True."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def rng(case: str = "case", step: int = 0, seed: int = 0) -> np.random.Generator:
    """Return the generator of a case."""
    return prompts.generator(seed, "task", case, step)


def points(simulated: tuple[Prompt, ...]) -> list[list[list[float]]]:
    """Return the points of each prompt, after checking shapes, dtypes and labels."""
    for prompt in simulated:
        assert prompt.points_xy.dtype == np.float32
        assert prompt.points_xy.shape == (len(prompt.labels), 2)
        assert prompt.box_xyxy is None
        assert np.issubdtype(prompt.labels.dtype, np.integer)
        assert prompt.labels.tolist() == [1] * len(prompt.points_xy)
    return [prompt.points_xy.tolist() for prompt in simulated]


def boxes(simulated: tuple[Prompt, ...]) -> list[list[float]]:
    """Return the box of each prompt, after checking that it holds nothing else."""
    found = []
    for prompt in simulated:
        assert len(prompt.points_xy) == len(prompt.labels) == 0
        assert prompt.box_xyxy is not None
        assert prompt.box_xyxy.dtype == np.float32
        assert prompt.box_xyxy.shape == (4,)
        found.append(prompt.box_xyxy.tolist())
    return found


# OpenCV's lengths of a straight, a diagonal and a knight's step (1, 1.4 and 2.1969 pixels) in 1/65536 pixel.
STRAIGHT, DIAGONAL, KNIGHT = 65536, 91750, 143976


def chamfer(target: Mask) -> npt.NDArray[np.int64]:
    """Return each pixel's 5 x 5 chamfer distance by trying every pixel outside, the frame of the image included."""
    inside = np.pad(target, 1)
    result = np.zeros(inside.shape, dtype=np.int64)
    for y, x in np.argwhere(inside):
        away = np.abs(np.argwhere(~inside) - (y, x))
        long, short = away.max(axis=1), away.min(axis=1)
        flat = KNIGHT * short + STRAIGHT * (long - 2 * short)
        steep = KNIGHT * (long - short) + DIAGONAL * (2 * short - long)
        result[y, x] = np.where(2 * short <= long, flat, steep).min()
    return result[1:-1, 1:-1]


def maxima(target: Mask) -> set[tuple[float, float]]:
    """Return the (x, y) of all pixels that are farthest from the boundary."""
    distance = chamfer(target)
    return {(float(x), float(y)) for y, x in np.argwhere(distance == distance.max())}


SQUARE = mask(
    "........",
    ".###....",
    ".###..##",
    ".###..##",
    "........",
)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("box_largest", [[1, 1, 3, 3]]),
        ("box_each", [[1, 1, 3, 3], [6, 2, 7, 3]]),
        ("box_all", [[1, 1, 7, 3]]),
    ],
)
def test_boxes_are_tight_and_inclusive(mode: str, expected: list[list[float]]) -> None:
    """A box ends at the object's last column and row, as x before y."""
    assert boxes(STATIC[mode](SQUARE, rng())) == expected


def test_a_point_is_the_only_centre() -> None:
    """Where one pixel is farthest from the boundary it is taken, as x before y."""
    assert points(prompts.point_largest(SQUARE, rng())) == [[[2, 2]]]


def test_point_each_gives_its_points_as_one_prompt() -> None:
    """One point a component, largest first; the second component has four candidates."""
    ((first, second),) = points(prompts.point_each(SQUARE, rng()))
    assert first == [2, 2]
    assert tuple(second) in {(6, 2), (7, 2), (6, 3), (7, 3)} == maxima(prompts.components(SQUARE)[1])


def test_all_candidates_are_drawn() -> None:
    """A tie is broken at random: over many cases every candidate comes up, none from elsewhere."""
    target = mask("####", "####")
    drawn = {tuple(points(prompts.point_largest(target, rng(f"case {i}")))[0][0]) for i in range(200)}
    assert drawn == maxima(target) == {(float(x), float(y)) for x in range(4) for y in range(2)}


def test_a_full_image_has_its_centre_in_the_middle() -> None:
    """The image's edge counts as boundary: a target without any background still has a centre."""
    target = np.ones((5, 7), dtype=bool)
    ((x, y),) = points(prompts.point_largest(target, rng()))[0]
    assert (x, y) in {(2, 2), (3, 2), (4, 2)} == maxima(target)
    assert boxes(prompts.box_all(target, rng())) == [[0, 0, 6, 4]]


def test_an_object_at_the_border_keeps_away_from_it() -> None:
    """Without the zero padding the centre would lie on the image's edge."""
    assert points(prompts.point_largest(mask("###..", "###..", "###.."), rng())) == [[[1, 1]]]


def test_one_pixel_objects() -> None:
    """A single pixel is its own centre and a box of zero extent."""
    target = mask("....", "..#.", "....")
    assert points(prompts.point_each(target, rng())) == [[[2, 1]]]
    assert boxes(prompts.box_each(target, rng())) == [[2, 1, 2, 1]]


def test_diagonal_neighbours_are_one_component() -> None:
    """Components are 8-connected."""
    target = mask("#..", ".#.", "..#")
    assert prompts.count_components(target) == 1
    assert boxes(prompts.box_each(target, rng())) == [[0, 0, 2, 2]]


def test_at_most_three_components_get_prompts_but_the_whole_box_holds_all() -> None:
    """The smallest of four components is left out, wherever it lies."""
    target = mask("#..##..", "......#", "###...#", "......#", "......#")
    assert prompts.count_components(target) == 4
    assert boxes(prompts.box_each(target, rng())) == [[6, 1, 6, 4], [0, 2, 2, 2], [3, 0, 4, 0]]
    (each,) = points(prompts.point_each(target, rng()))
    assert [(x, y) in maxima(part) for (x, y), part in zip(each, prompts.components(target), strict=True)] == [True] * 3
    assert boxes(prompts.box_all(target, rng())) == [[0, 0, 6, 4]]


def test_equal_components_come_in_raster_order_of_their_first_pixel() -> None:
    """OpenCV scans blocks of two rows, so it numbers the left component first; the upper one comes first here."""
    target = mask(".....#", "#.....")
    labels = cv2.connectedComponents(target.astype(np.uint8), connectivity=8)[1]
    assert labels[1, 0] < labels[0, 5], "this OpenCV numbers in raster order: the case no longer shows anything"
    assert boxes(prompts.box_each(target, rng())) == [[5, 0, 5, 0], [0, 1, 0, 1]]
    assert points(prompts.point_each(target, rng())) == [[[5, 0], [0, 1]]]
    assert boxes(prompts.box_largest(target, rng())) == [[5, 0, 5, 0]]


def test_among_equal_components_the_first_three_are_taken() -> None:
    """Five pixels alone: the three that come first, row by row."""
    target = mask("....#", "#.#..", ".....", "#...#")
    assert boxes(prompts.box_each(target, rng())) == [[4, 0, 4, 0], [0, 1, 0, 1], [2, 1, 2, 1]]


TARGET = mask(
    ".......",
    ".#####.",
    ".#####.",
    ".#####.",
    ".......",
)


def clicked(target: Mask, prediction: Mask | None, before: Prompt | None = None) -> tuple[list[list[float]], list[int]]:
    """Return points and labels after one more click."""
    after = prompts.next_click(target, prediction, before or Prompt(), rng())
    assert after.points_xy.dtype == np.float32
    assert after.box_xyxy is None
    assert np.issubdtype(after.labels.dtype, np.integer)
    return after.points_xy.tolist(), after.labels.tolist()


def test_the_first_click_is_on_the_whole_target() -> None:
    """The centre of everything: of two components the deeper one, not the larger one."""
    target = mask("###......", "###......", "###......", ".........", "#########", "#########")
    assert np.count_nonzero(prompts.components(target)[0]) == 18
    assert clicked(target, None) == ([[1, 1]], [1])
    assert clicked(TARGET, None)[1] == [1]


def test_a_false_negative_is_clicked_as_foreground() -> None:
    """What the prediction misses of the target."""
    prediction = TARGET.copy()
    prediction[:, 3:] = False  # leaves three of five columns to be found
    assert clicked(TARGET, prediction) == ([[4, 2]], [1])


def test_a_false_positive_is_clicked_as_background() -> None:
    """What the prediction has beside the target, although it may belong to another class of the image."""
    prediction = np.zeros((9, 7), dtype=bool)
    target = np.vstack([TARGET, np.zeros((4, 7), dtype=bool)])
    prediction[:5] = TARGET
    prediction[5:8, 1:6] = True
    before = Prompt(points_xy=np.array([[3, 2]], np.float32), labels=np.array([1]))
    clicks, labels = clicked(target, prediction, before)
    assert clicks[0] == [3, 2]
    assert tuple(clicks[1]) in {(2, 6), (3, 6), (4, 6)}
    assert labels == [1, 0]


def test_the_deeper_error_is_clicked_first() -> None:
    """Misses and surplus are one error map: here the surplus on the left is thicker than the miss on the right."""
    target = mask("...........", "...........", "........###", "........###", "........###")
    prediction = mask("#####......", "#####......", "#####......", "#####......", "#####......")
    assert clicked(target, prediction) == ([[2, 2]], [0])
    assert clicked(prediction, target) == ([[2, 2]], [1])


def test_touching_errors_share_one_map() -> None:
    """The error is the symmetric difference: where misses and surplus touch, the centre may lie between them."""
    target = mask("###...", "###...", "###...", "###...", "###...")
    assert tuple(clicked(target, ~target)[0][0]) in {(2, 2), (3, 2)} == maxima(np.ones_like(target))


def test_without_an_error_the_clicks_come_back_unchanged() -> None:
    """A solved case is not clicked any more."""
    before = prompts.next_click(TARGET, None, Prompt(), rng())
    assert prompts.next_click(TARGET, TARGET, before, rng(step=1)) is before


def test_the_arguments_are_left_alone() -> None:
    """Modes are pure: neither target nor prediction nor earlier clicks change."""
    target, prediction = TARGET.copy(), np.roll(TARGET, 2, axis=1)
    before = prompts.next_click(target, None, Prompt(), rng())
    key = before.key
    prompts.next_click(target, prediction, before, rng(step=1))
    assert before.key == key
    np.testing.assert_array_equal(target, TARGET)
    np.testing.assert_array_equal(prediction, np.roll(TARGET, 2, axis=1))


def pinned_masks() -> dict[str, Mask]:
    """Return masks with many ties, made by formulas that no library can change."""
    y, x = np.mgrid[:40, :60]
    ring = (y - 20) ** 2 + (x - 30) ** 2
    return {
        "ring": (ring < 300) & (ring >= 80),
        "stripes": (x % 12 < 5) & (y % 20 < 15),
        "wave": (x * x + 3 * y * y) % 101 < 40,
        "band": (x + 2 * y) % 37 < 12,
    }


PINNED: dict[str, dict[int, tuple[list[list[float]], list[float]]]] = {  # points of point_each, then the first click
    "ring": {
        0: ([[43, 20]], [43, 20]),
        1: ([[43, 20]], [43, 20]),
        12_345: ([[43, 20]], [43, 20]),
    },
    "stripes": {
        0: ([[2, 6], [14, 8], [26, 12]], [2, 25]),
        1: ([[2, 5], [14, 3], [26, 5]], [38, 2]),
        12_345: ([[2, 6], [14, 8], [26, 2]], [50, 22]),
    },
    "wave": {
        0: ([[28, 3], [9, 25], [42, 19]], [51, 34]),
        1: ([[34, 27], [14, 26], [42, 19]], [50, 33]),
        12_345: ([[25, 10], [16, 14], [42, 19]], [50, 33]),
    },
    "band": {
        0: ([[8, 36], [24, 9], [56, 30]], [12, 15]),
        1: ([[15, 32], [19, 12], [47, 35]], [24, 9]),
        12_345: ([[5, 37], [14, 14], [56, 30]], [48, 16]),
    },
}
PINNED_RAW = 6_748_087_868_195_377_259
PINNED_RAW_UNICODE = 3_398_556_733_079_557_504


@pytest.mark.parametrize("name", sorted(PINNED))
@pytest.mark.parametrize("seed", [0, 1, 12_345])
def test_the_draw_is_pinned(name: str, seed: int) -> None:
    """The same prompts with every release of this package, of NumPy and OpenCV, and on every machine."""
    target = pinned_masks()[name]
    each = points(prompts.point_each(target, prompts.generator(seed, "pinned", name, 0)))[0]
    click = prompts.next_click(target, None, Prompt(), prompts.generator(seed, "pinned", name, 0))
    assert (each, click.points_xy[0].tolist()) == PINNED[name][seed]


def test_the_generator_is_pinned() -> None:
    """Its raw bits follow from a sha256 of the four seeds alone."""
    assert prompts.generator(0, "us_kidney", "0001", 0).bit_generator.random_raw() == PINNED_RAW
    assert prompts.generator(0, "ü", "Fall 7/ß", 3).bit_generator.random_raw() == PINNED_RAW_UNICODE


@pytest.mark.parametrize("other", [(1, "t", "c", 0), (0, "u", "c", 0), (0, "t", "d", 0), (0, "t", "c", 1)])
def test_each_of_the_four_seeds_counts(other: tuple[int, str, str, int]) -> None:
    """Another seed, task, case or step is another stream; the same four are the same stream."""
    first = prompts.generator(0, "t", "c", 0).bit_generator.random_raw(4)
    np.testing.assert_array_equal(first, prompts.generator(0, "t", "c", 0).bit_generator.random_raw(4))
    assert (first != prompts.generator(*other).bit_generator.random_raw(4)).all()


def test_names_do_not_run_into_each_other() -> None:
    """Task and case are kept apart: (ab, c) is not (a, bc)."""
    assert prompts.generator(0, "ab", "c", 0).bit_generator.random_raw() != (
        prompts.generator(0, "a", "bc", 0).bit_generator.random_raw()
    )


def test_prompts_do_not_depend_on_order_or_global_state() -> None:
    """A case gets the same prompts alone, last, or after others; no global random state is read or moved."""
    cases = [(name, pinned_masks()[name]) for name in PINNED]

    def all_points(order: list[tuple[str, Mask]]) -> dict[str, object]:
        return {name: points(prompts.point_each(target, rng(name))) for name, target in order}

    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    forward = all_points(cases)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert all_points(cases[::-1]) == forward
    assert {name: all_points([(name, target)])[name] for name, target in cases} == forward


@pytest.mark.parametrize("in_use", [True, False])
def test_intels_library_changes_nothing(in_use: bool) -> None:
    """On x86 OpenCV may compute distances by IPP, which finds three centres of this ellipse where there is one."""
    y, x = np.mgrid[:40, :40]
    target = ((x - 20) * 11) ** 2 + ((y - 20) * 13) ** 2 < 8100
    before = cv2.ipp.useIPP()
    try:
        cv2.ipp.setUseIPP(in_use)
        granted = cv2.ipp.useIPP()  # False on machines that have none
        drawn = {tuple(prompts.centre_xy(target, rng(str(i))).tolist()) for i in range(20)}
        assert cv2.ipp.useIPP() == granted
    finally:
        cv2.ipp.setUseIPP(before)
    assert drawn == {(20, 20)} == maxima(target)


@settings(max_examples=60, deadline=None)
@given(target=TARGETS, seed=st.integers(0, 2**32))
def test_points_lie_at_the_centres_of_their_components(target: Mask, seed: int) -> None:
    """Each point is in the target, where an independent chamfer distance of its component is the largest."""
    (each,) = points(prompts.point_each(target, rng(seed=seed)))
    (largest,) = points(prompts.point_largest(target, rng(seed=seed)))[0]
    parts = prompts.components(target)
    assert largest == each[0]  # one stream: the largest component is drawn first in both
    for (x, y), part in zip(each, parts, strict=True):
        assert target[int(y), int(x)]
        assert (x, y) in maxima(part)


@settings(max_examples=60, deadline=None)
@given(target=TARGETS)
def test_distances_are_those_of_opencv(target: Mask) -> None:
    """The centre has the maximum of cv2.distanceTransform(DIST_L2, 5) on the zero-padded mask."""
    distance = cv2.distanceTransform(np.pad(target.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    x, y = prompts.centre_xy(target, rng()).astype(int)
    assert distance[y, x] == pytest.approx(distance.max(), abs=1e-3)
    np.testing.assert_allclose(distance, chamfer(target) / STRAIGHT, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(target=TARGETS)
def test_components_are_the_8_connected_ones(target: Mask) -> None:
    """Largest first, disjoint, and together the target, by an independent labelling."""
    parts = prompts.components(target, at_most=target.size)
    seen = [flood(target, np.argwhere(part)[0]) for part in parts]
    for part, expected in zip(parts, seen, strict=True):
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(np.sum(parts, axis=0), target.astype(int))
    order = [(-np.count_nonzero(part), int(np.argmax(part))) for part in parts]
    assert order == sorted(order)
    assert len(parts) == prompts.count_components(target)
    assert [p.tolist() for p in prompts.components(target)] == [p.tolist() for p in parts[:3]]


def flood(target: Mask, start: npt.NDArray[np.int64]) -> Mask:
    """Return what can be reached from a pixel by steps to its eight neighbours."""
    reached = np.zeros(np.array(target.shape) + 2, dtype=bool)
    reached[tuple(start + 1)] = True
    inside = np.pad(target, 1)
    while True:
        grown = np.zeros_like(reached)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                grown |= np.roll(reached, (dy, dx), axis=(0, 1))
        grown &= inside
        if (grown == reached).all():
            return reached[1:-1, 1:-1]
        reached = grown


@settings(max_examples=60, deadline=None)
@given(target=TARGETS)
def test_boxes_hold_their_object_and_cannot_shrink(target: Mask) -> None:
    """Nothing of the object is outside, and each side touches it."""
    objects = {
        "box_all": [target],
        "box_each": prompts.components(target),
        "box_largest": prompts.components(target, 1),
    }
    for mode, parts in objects.items():
        for (x0, y0, x1, y1), part in zip(boxes(STATIC[mode](target, rng())), parts, strict=True):
            inside = part[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
            assert np.count_nonzero(inside) == np.count_nonzero(part)
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), target=TARGETS)
def test_clicks_grow_by_one_labelled_by_the_target(data: st.DataObject, target: Mask) -> None:
    """Whatever a model predicts: earlier clicks stay, the new one lies in the error and has the target's label."""
    clicks = prompts.next_click(target, None, Prompt(), rng())
    for step in range(1, 4):
        prediction = data.draw(hnp.arrays(bool, target.shape))
        following = prompts.next_click(target, prediction, clicks, rng(step=step))
        error = target != prediction
        count = len(clicks.labels)
        assert following.points_xy[:count].tolist() == clicks.points_xy.tolist()
        assert following.labels[:count].tolist() == clicks.labels.tolist()
        assert len(following.labels) == len(following.points_xy) == count + bool(error.any())
        if error.any():
            x, y = following.points_xy[-1]
            assert (x, y) in maxima(error)
            assert following.labels[-1] == target[int(y), int(x)]
        clicks = following


def ellipse(cx: int, cy: int, rx: int, ry: int) -> Mask:
    """Return a filled ellipse on 40 x 56 pixels."""
    y, x = np.mgrid[:40, :56]
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)


def square(x: int, y: int) -> Mask:
    """Return a square of 10 x 10 pixels with its first corner at x, y."""
    found = np.zeros((40, 56), dtype=bool)
    found[y : y + 10, x : x + 10] = True
    return found


# Target, guess, and the clicks (x, y, label) that the Clicker of ritm_interactive_segmentation makes for them, where
# `repaired` answers. scripts/checks/check_ritm_clicks.py compares on real images.
RITM = {
    "apart": (
        ellipse(14, 18, 9, 12) | ellipse(42, 24, 7, 7),
        ellipse(20, 20, 10, 9),
        "14,18,1 42,24,1 26,21,0 12,10,1 8,15,1 25,15,0 8,22,1 23,26,0 17,9,1 39,20,1 "
        "45,20,1 11,27,1 38,27,1 46,27,1 42,29,1 27,25,0 22,12,0 28,16,0 24,18,0 29,19,0",
    ),
    "edge": (
        ellipse(0, 39, 20, 14) | ellipse(55, 0, 9, 9),
        ellipse(10, 30, 14, 14) & ~ellipse(8, 30, 4, 4),
        "6,33,1 13,22,0 19,27,0 5,21,0 51,3,1 21,32,0 10,18,0 18,21,0 9,29,1 1,23,0 "
        "9,24,0 14,27,0 53,7,1 15,18,0 21,37,0 5,17,0 2,19,0 21,22,0 4,24,0 16,24,0",
    ),
    "ties": (
        square(5, 5) | square(30, 22),
        square(40, 5),
        "9,9,1 44,9,0 34,26,1 48,6,0 48,11,0 41,13,0 13,6,1 13,11,1 6,13,1 38,23,1 "
        "38,28,1 31,30,1 41,6,0 6,6,1 31,23,1 44,5,0 40,9,0 45,12,0 49,14,0 9,5,1",
    ),
    "thin": (
        ellipse(28, 20, 24, 2) | ellipse(28, 20, 2, 18),
        ellipse(28, 20, 24, 4) & ~ellipse(28, 20, 6, 6),
        "28,20,1 28,6,1 28,11,1 28,25,1 28,30,1 23,20,1 33,20,1 28,35,1 13,17,0 17,17,0 "
        "21,17,0 34,17,0 38,17,0 42,17,0 8,18,0 45,18,0 5,19,0 49,19,0 8,22,0 12,22,0",
    ),
}


def repaired(guess: Mask, target: Mask, clicks: Prompt) -> Mask:
    """Return the guess, made right within three pixels of each click."""
    y, x = np.mgrid[: guess.shape[0], : guess.shape[1]]
    near = np.logical_or.reduce([(x - px) ** 2 + (y - py) ** 2 <= 9 for px, py in clicks.points_xy])
    return np.where(near, target, guess)


@pytest.mark.parametrize("name", RITM)
def test_ritm_clicks_are_those_of_ritms_own_evaluation(name: str) -> None:
    """Twenty clicks each, recorded from RITM's code: two parts, the image's edge, ties of both kinds, thin parts."""
    target, guess, recorded = RITM[name]
    clicks, prediction = Prompt(), None
    for _ in range(20):
        clicks = prompts.ritm_click(target, prediction, clicks, rng())
        prediction = repaired(guess, target, clicks)
    made = [f"{x:.0f},{y:.0f},{label}" for (x, y), label in zip(clicks.points_xy, clicks.labels, strict=True)]
    assert " ".join(made) == recorded
    assert clicks.points_xy.dtype == np.float32


def test_a_ritm_click_goes_to_the_background_in_a_tie() -> None:
    """A missed and an extra part of equal size: RITM asks for more misses than extras to click on the object."""
    target, prediction = mask("##...", "##..."), mask("...##", "...##")
    clicks = prompts.ritm_click(target, prediction, Prompt(), rng())
    assert (clicks.points_xy.tolist(), clicks.labels.tolist()) == ([[3, 0]], [0])


def test_a_ritm_click_takes_no_pixel_twice_and_ends_without_one() -> None:
    """A model that never learns is clicked at the next pixel of the error, and then no more."""
    target = mask(".#.", ".#.")
    clicks, seen = Prompt(), []
    for _ in range(4):
        clicks = prompts.ritm_click(target, np.zeros_like(target), clicks, rng())
        seen.append(clicks.points_xy.tolist())
    assert seen == [[[1, 0]], [[1, 0], [1, 1]], [[1, 0], [1, 1]], [[1, 0], [1, 1]]]
    solved = prompts.ritm_click(target, target, Prompt(), rng())
    assert len(solved.labels) == 0


@settings(deadline=None)
@given(TARGETS)
def test_exact_distances_do_not_depend_on_how_opencv_is_built(target: Mask) -> None:
    """The click lies at the largest distance that scipy finds, at its first pixel."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1]
    squared = np.rint(distance**2)
    y, x = np.unravel_index(np.argmax(squared), squared.shape)
    clicks = prompts.ritm_click(target, None, Prompt(), rng())
    assert (clicks.points_xy.tolist(), clicks.labels.tolist()) == ([[x, y]], [1])


def test_the_first_drawing_is_the_same_however_many_there_are() -> None:
    """Repeat 0 draws as a run without repeats; each other one draws anew."""
    plain = prompts.generator(3, "task", "case", 1)
    drawn = [prompts.generator(3, "task", "case", 1, repeat).bit_generator.random_raw() for repeat in range(4)]
    assert drawn[0] == plain.bit_generator.random_raw()
    assert len(set(drawn)) == 4
