"""IoU and the three choices of mask: by hand, against sets, and as properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptseg.errors import ModelError
from promptseg.evaluation import metrics
from promptseg.segmenter import Mask, Prediction

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


def mask(*rows: str) -> Mask:
    """Draw a mask: ``#`` is True."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def prediction(*masks: Mask, scores: list[float] | None = None) -> Prediction:
    """Return a prediction with these candidates."""
    return Prediction(np.stack(masks), None if scores is None else np.array(scores, dtype=np.float32))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Draw two masks of one shape; the second is a target and so not empty."""
    shape = draw(SHAPES)
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape).filter(np.any))


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        (mask("##.."), mask(".##."), 1 / 3),
        (mask("##..", "##.."), mask("##..", "##.."), 1.0),
        (mask("##.."), mask("..##"), 0.0),
        (mask("####"), mask(".#.."), 1 / 4),
        (mask(".#.."), mask("####"), 1 / 4),
        (mask("....", "...."), mask("....", ".#.."), 0.0),
        (mask("####", "####"), mask("##..", "#..."), 3 / 8),
    ],
)
def test_iou_by_hand(predicted: Mask, target: Mask, expected: float) -> None:
    """Overlap over union, pixels counted by eye; an empty prediction scores 0."""
    assert metrics.iou(predicted, target) == expected


def test_two_empty_masks_have_no_iou() -> None:
    """The project has no empty targets; if one slips in, it poisons the mean instead of hiding in it."""
    assert math.isnan(metrics.iou(mask("..."), mask("...")))


def test_large_masks_do_not_overflow() -> None:
    """Counts beyond what small integers hold."""
    target = np.ones((1500, 1500), dtype=bool)
    half = target.copy()
    half[:750] = False
    assert metrics.iou(half, target) == 0.5


def test_candidates_are_scored_one_by_one() -> None:
    """One value for each candidate, in their order."""
    target = mask("##..")
    ious = metrics.candidate_ious(np.stack([mask("...."), mask("##.."), mask("###."), mask("####")]), target)
    assert ious.dtype == np.float64
    assert ious.tolist() == [0, 1, 2 / 3, 1 / 2]


@given(pair=mask_pairs())
def test_iou_is_jaccards_index_of_the_pixels(pair: tuple[Mask, Mask]) -> None:
    """In [0, 1], symmetric, 1 for equal masks only, and what sets of pixels give."""
    predicted, target = pair
    a, b = ({tuple(pixel) for pixel in np.argwhere(m).tolist()} for m in pair)
    value = metrics.iou(predicted, target)
    assert value == len(a & b) / len(a | b)
    assert 0 <= value <= 1
    assert (value == 1) == (a == b)
    assert metrics.iou(target, target) == 1
    if predicted.any():
        assert metrics.iou(target, predicted) == value


@given(pair=mask_pairs(), turns=st.integers(0, 3))
def test_iou_does_not_depend_on_orientation(pair: tuple[Mask, Mask], turns: int) -> None:
    """Turned, mirrored, inside a larger image, and with any memory layout: the same number."""
    predicted, target = pair
    value = metrics.iou(predicted, target)
    assert metrics.iou(np.rot90(predicted, turns), np.rot90(target, turns)) == value
    assert metrics.iou(np.asfortranarray(predicted[::-1]), target[::-1]) == value
    assert metrics.iou(np.pad(predicted, 3), np.pad(target, 3)) == value


TARGET = mask("####....", "........")
EMPTY = mask("........", "........")
QUARTER = mask("#.......", "........")
HALF = mask("##......", "........")
WHOLE = TARGET
DOUBLE = mask("########", "........")


def test_the_three_choices_can_be_three_masks() -> None:
    """Candidate 0, the highest predicted IoU, the best against the target."""
    choice = metrics.choose((prediction(HALF, DOUBLE, WHOLE, scores=[0.1, 0.8, 0.3]),), TARGET)
    assert choice.iou == {"first": 0.5, "confident": 0.5, "oracle": 1.0}
    for name, expected in {"first": HALF, "confident": DOUBLE, "oracle": WHOLE}.items():
        np.testing.assert_array_equal(choice.masks[name], expected)
    assert choice.predicted_iou == pytest.approx((0.1, 0.8, 0.3))


def test_ties_go_to_the_first_candidate() -> None:
    """Equal predicted IoUs, equal IoUs: the lower index; also where all candidates miss."""
    choice = metrics.choose((prediction(HALF, DOUBLE, scores=[0.5, 0.5]),), TARGET)
    np.testing.assert_array_equal(choice.masks["confident"], HALF)
    np.testing.assert_array_equal(choice.masks["oracle"], HALF)
    missed = metrics.choose((prediction(mask("....####", "........"), EMPTY),), TARGET)
    assert missed.iou["oracle"] == 0
    np.testing.assert_array_equal(missed.masks["oracle"], missed.masks["first"])


def test_negative_predicted_ious_are_compared_too() -> None:
    """A model's estimate is only an estimate: it may be below 0 or above 1."""
    assert metrics.most_confident(prediction(HALF, WHOLE, EMPTY, scores=[-3, -1, -2])) == 1
    assert metrics.most_confident(prediction(HALF, WHOLE, scores=[1.02, 1.01])) == 0


def test_a_model_without_predicted_iou_is_confident_in_its_first_mask() -> None:
    """There is nothing else to go by, and the row says that nothing was predicted."""
    choice = metrics.choose((prediction(HALF, WHOLE),), TARGET)
    np.testing.assert_array_equal(choice.masks["confident"], HALF)
    assert choice.iou == {"first": 0.5, "confident": 0.5, "oracle": 1.0}
    assert choice.predicted_iou is None


TWO_PARTS = mask("##......", "......##")
LEFT = mask("##......", "........")
LEFT_AND_MORE = mask("####....", "........")
RIGHT = mask("........", "......##")
RIGHT_AND_MORE = mask("........", "....####")


def test_boxes_are_united_before_first_and_oracle_choose_but_after_confident() -> None:
    """Two boxes: the best candidate has another index in each, which only ``confident`` may follow.

    Index by index the unions are (left, right and more): 4 of 6 pixels, and (left and more, right): 4 of 6.
    """
    answers = (
        prediction(LEFT, LEFT_AND_MORE, scores=[0.9, 0.2]),
        prediction(RIGHT_AND_MORE, RIGHT, scores=[0.3, 0.8]),
    )
    choice = metrics.choose(answers, TWO_PARTS)
    np.testing.assert_array_equal(choice.masks["first"], LEFT | RIGHT_AND_MORE)
    np.testing.assert_array_equal(choice.masks["confident"], LEFT | RIGHT)
    np.testing.assert_array_equal(choice.masks["oracle"], LEFT | RIGHT_AND_MORE)
    assert choice.iou == {"first": 4 / 6, "confident": 1.0, "oracle": 4 / 6}
    assert choice.predicted_iou == pytest.approx((0.6, 0.5))


def test_the_oracle_takes_the_best_union() -> None:
    """The index that is best for the whole object, not for each part."""
    answers = (
        prediction(EMPTY, LEFT_AND_MORE, scores=[0.9, 0.1]),
        prediction(RIGHT_AND_MORE, RIGHT, scores=[0.9, 0.1]),
    )
    choice = metrics.choose(answers, TWO_PARTS)
    assert choice.iou["first"] == choice.iou["confident"] == 2 / 6
    assert choice.iou["oracle"] == 4 / 6
    np.testing.assert_array_equal(choice.masks["oracle"], LEFT_AND_MORE | RIGHT)


def test_boxes_of_a_model_without_predicted_iou() -> None:
    """Confident is the union of the first candidates."""
    choice = metrics.choose((prediction(LEFT), prediction(RIGHT)), TWO_PARTS)
    assert choice.iou == {"first": 1, "confident": 1, "oracle": 1}
    assert choice.predicted_iou is None


def test_overlapping_unions_count_a_pixel_once() -> None:
    """Masks are united, not added."""
    choice = metrics.choose((prediction(LEFT_AND_MORE), prediction(LEFT), prediction(LEFT)), TWO_PARTS)
    assert choice.masks["first"].dtype == np.bool_
    assert choice.iou["first"] == 2 / 6


def test_candidate_counts_that_disagree_are_an_error() -> None:
    """Three masks for one box and one for the other cannot be united index by index."""
    with pytest.raises(ModelError, match=r"boxes have \[1, 3\] candidates; they must agree"):
        metrics.choose((prediction(LEFT, LEFT, LEFT), prediction(RIGHT)), TWO_PARTS)


@given(data=st.data())
def test_no_choice_is_better_than_the_oracle_on_one_prediction(data: Any) -> None:
    """The oracle is an upper bound for the candidates of a prediction, and a candidate itself."""
    count, shape = data.draw(st.integers(1, 4)), data.draw(SHAPES)
    masks: npt.NDArray[np.bool_] = data.draw(hnp.arrays(bool, (count, *shape)))
    target: Mask = data.draw(hnp.arrays(bool, shape).filter(np.any))
    scores = data.draw(hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    choice = metrics.choose((Prediction(masks, scores),), target)
    assert choice.iou["oracle"] == max(metrics.iou(m, target) for m in masks)
    assert choice.iou["confident"] == metrics.iou(masks[int(np.argmax(scores))], target)
    assert choice.iou["first"] == metrics.iou(masks[0], target)
    for name, chosen in choice.masks.items():
        assert metrics.iou(chosen, target) == choice.iou[name]
