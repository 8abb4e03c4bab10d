"""Models compared over tasks: means, ranks, floors and ceilings by hand, intervals against scipy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.board_results import result

from promptseg.leaderboard import aggregate, standings
from promptseg.leaderboard.standings import ModeStandings, Standing
from promptseg.results.rows import CellResult

FLOOR = {"family": "floor"}


def cases(mean: float, count: int = 20, swing: float = 0.0) -> dict[str, float]:
    """Return so many cases of a mean, every other one above it by the swing and the rest below."""
    return {f"c{i:02}": mean + swing * (-1) ** i for i in range(count)}


def of(results: list[CellResult], mode: str = "box_all") -> ModeStandings:
    """Return the standings of a mode."""
    return standings.of_mode(aggregate.build(results), mode)


def ranks(standing: Standing) -> dict[str, tuple[int, int] | None]:
    """Return the ranks by model, in the order of the standing."""
    return {place.model: place.ranks for place in standing.places}


def data(name: str, **more: Any) -> Mapping[str, Any]:
    """Return what a result of another data set says."""
    return {"dataset": {"name": name, **more}}


def test_means_ranks_floors_and_ceilings_by_hand() -> None:
    """Each task counts the same whatever its number of cases; floors stand first and have no rank."""
    board = [
        result("box_fill-t1-box_all", cases(0.3), model=FLOOR),
        result("box_fill-t2-box_all", cases(0.5, 10), model=FLOOR, **data("d2")),
        result("point_disc-t1-box_all", cases(0.2), model=FLOOR),
        result("point_disc-t2-box_all", cases(0.2, 10), model=FLOOR, **data("d2")),
        result("good-t1-box_all", cases(0.6)),
        result("good-t2-box_all", cases(0.8, 10), **data("d2")),
        result("fair-t1-box_all", cases(0.5, swing=0.05)),
        result("fair-t2-box_all", cases(0.6, 10, swing=-0.05), **data("d2")),
        result("also-t1-box_all", cases(0.5, swing=-0.05)),
        result("also-t2-box_all", cases(0.62, 10, swing=0.05), **data("d2")),
    ]
    found = of(board).overall
    assert ranks(found) == {"box_fill": None, "point_disc": None, "good": (1, 1), "also": (2, 3), "fair": (2, 3)}
    means = {place.model: pytest.approx(place.mean_iou) for place in found.places}
    assert means == {"box_fill": 0.4, "point_disc": 0.2, "good": 0.7, "also": 0.56, "fair": 0.55}
    good = found.of("good")
    assert good is not None
    assert good.above_floor == pytest.approx(0.7 - 0.4)
    assert good.above_floor_significant
    assert good.to_oracle == pytest.approx(0.1)
    assert good.n_tasks == 2


def test_a_lead_over_the_floor_may_be_chance() -> None:
    """A model that is above the floor in half of the cases, and below in the others, is not significantly above."""
    board = [
        result("box_fill-t-box_all", cases(0.5), model=FLOOR),
        result("m-t-box_all", cases(0.51, swing=0.2)),
    ]
    place = of(board).overall.of("m")
    assert place is not None
    assert place.above_floor == pytest.approx(0.01)
    assert not place.above_floor_significant
    assert place.ranks is None  # there is no other model


@pytest.mark.parametrize("lacking", [{"t1"}, {"t2"}, {"t1", "t2"}])
def test_models_are_compared_over_the_tasks_that_they_have_in_common(lacking: set[str]) -> None:
    """Those that have other tasks are listed apart, with theirs; what most models have decides."""
    board = [result(f"{m}-t{t}-box_all", cases(0.1 * (t + 3))) for m in ("a", "b", "c") for t in (1, 2, 3)]
    board = [r for r in board if not (r.cell.model == "c" and r.cell.task in lacking)]
    found = of(board).overall
    if len(lacking) == 1:  # 3 models x 2 tasks are as many as 2 models x 3: the more tasks win
        assert found.tasks == ("t1", "t2", "t3")
        assert [place.compared for place in found.places] == [True, True, False]
    place = found.of("c")
    assert place is not None
    assert (place.compared, place.n_tasks, place.ranks) == (False, 3 - len(lacking), None)
    assert place.mean_iou == pytest.approx(np.mean([0.1 * (t + 3) for t in (1, 2, 3) if f"t{t}" not in lacking]))


def test_a_task_of_one_model_does_not_keep_the_others_from_being_compared() -> None:
    """The further task is named, and in nobody's mean."""
    board = [result(f"{m}-t{t}-box_all", cases(0.1 * t)) for m in ("a", "b", "c") for t in (1, 2)]
    found = of([*board, result("a-t3-box_all", cases(0.9))]).overall
    assert (found.tasks, found.other_tasks) == (("t1", "t2"), ("t3",))
    assert [place.mean_iou for place in found.places] == [pytest.approx(0.15)] * 3
    assert list(ranks(found).values()) == [(1, 3)] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 7},
        {"protocol": ["paper", 2]},
        {"dataset": {"fingerprint": "e" * 64}},
        {"task": {"labels": [2]}},
    ],
)
def test_other_measurements_have_no_rank(other: dict[str, Any]) -> None:
    """Another protocol, seed, data set or labels is another measurement: listed, not ranked."""
    board = [*(result(f"{m}-t-box_all", cases(0.5)) for m in ("a", "b")), result("odd-t-box_all", cases(0.9), **other)]
    assert ranks(of(board).overall) == {"a": (1, 2), "b": (1, 2), "odd": None}


def test_samples_and_failed_cases_have_no_rank_beside_whole_data_sets() -> None:
    """However good a sample is; where all models have the same sample the standing says so."""
    whole = [result(f"{m}-t-box_all", cases(0.5)) for m in ("a", "b")]
    sampled = [result(f"{m}-t-box_all", cases(0.9, 12), n_images=20) for m in ("c", "d")]
    found = of([*whole, *sampled]).overall
    assert ranks(found) == {"a": (1, 2), "b": (1, 2), "c": None, "d": None}
    assert found.samples == ()
    place = found.of("c")
    assert place is not None
    assert not place.same_cases
    found = of(sampled).overall
    assert ranks(found) == {"c": (1, 2), "d": (1, 2)}
    assert found.samples == ("t",)


def test_by_modality_and_by_task() -> None:
    """Each modality averages its own tasks."""
    board = [
        result(f"{m}-{task}-box_all", cases(iou), **data(task, modality=modality))
        for m in ("a", "b")
        for task, iou, modality in (("t1", 0.2, "ct"), ("t2", 0.4, "ct"), ("t3", 0.9, "mri"))
    ]
    found = of(board)
    assert {name: s.tasks for name, s in found.modalities.items()} == {"ct": ("t1", "t2"), "mri": ("t3",)}
    assert {name: s.places[0].mean_iou for name, s in found.modalities.items()} == pytest.approx(
        {"ct": 0.3, "mri": 0.9}
    )
    assert found.tasks["t2"].places[0].mean_iou == pytest.approx(0.4)
    assert found.overall.places[0].mean_iou == pytest.approx(0.5)


def test_the_interval_of_a_mean_over_tasks_is_that_of_scipy() -> None:
    """Of two data sets, a case a subject: the percentile interval of (mean + mean) / 2, drawn independently."""
    rng = np.random.default_rng(5)
    first, second = rng.beta(4, 2, 60), rng.beta(2, 3, 25)
    board = [
        result("m-t1-box_all", {f"a{i}": v for i, v in enumerate(first)}),
        result("m-t2-box_all", {f"b{i}": v for i, v in enumerate(second)}, **data("d2")),
    ]
    found = of(board).overall.places[0].ci95
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.004)
    assert expected.high - expected.low > 0.05


def test_tasks_of_one_data_set_are_drawn_together() -> None:
    """Two tasks on the same patients tell no more than one: two data sets do, and the interval is narrower."""
    ious = {f"p{i}/s": 0.5 + 0.02 * i for i in range(20)}

    def width(second: str) -> float:
        found = of([result("m-t1-box_all", ious), result("m-t2-box_all", ious, **data(second))]).overall.places[0].ci95
        assert found is not None
        return found[1] - found[0]

    assert width("other") == pytest.approx(width("kidneys") / np.sqrt(2), rel=0.1)


def test_slices_of_a_patient_are_one_subject() -> None:
    """Ten slices of each of two patients leave no ranks; those of one patient no interval either, and that is told."""
    two = {f"p{i % 2}/s{i}": 0.5 + 0.01 * i for i in range(20)}
    one = {f"p/s{i}": 0.5 + 0.01 * i for i in range(20)}
    found = of([result(f"{m}-t-box_all", two) for m in ("a", "b")]).overall
    assert [(place.ranks, place.ci95 is None) for place in found.places] == [(None, False)] * 2
    found = of([result(f"{m}-t-box_all", one) for m in ("a", "b")]).overall
    assert [(place.ranks, place.ci95) for place in found.places] == [(None, None)] * 2
    assert found.single_subject == ("kidneys",)


def test_a_whole_data_set_is_the_reference_of_its_column() -> None:
    """One complete result outweighs several equal samples; of samples, the commonest counts."""
    sample = [result(f"s{i}-t-box_all", {"x": 0.5, "y": 0.5}, n_images=9) for i in range(2)]
    other = result("a-t-box_all", {"x": 0.5, "z": 0.5}, n_images=9)
    found = standings.reference(aggregate.build([*sample, other]).entries)
    assert found is not None
    assert found.cases == {"x", "y"}
    whole = result("w-t-box_all", {str(i): 0.5 for i in range(9)})
    found = standings.reference(aggregate.build([*sample, other, whole]).entries)
    assert found is not None
    assert found.cell.model == "w"


def test_a_mean_is_as_contaminated_as_its_worst_cell() -> None:
    """One task whose data the model has seen is enough for the mean over all."""
    results = [
        result(f"m-{name}-box_all", {"x": 0.5}, model={"training_data": ["medsam"]}, **data(name))
        for name in ("xray_hip", "us_breast", "us_nerve")
    ]
    assert [of(results[:n]).overall.places[0].overlap for n in (1, 2, 3)] == ["none", "likely", "known"]


def test_a_mode_without_a_score_has_empty_standings() -> None:
    """A cell whose cases all failed is in no standing."""
    found = of([result("m-t-box_all", {})])
    assert (found.overall.places, found.modalities, found.tasks) == ((), {}, {})


def test_floors_alone_are_compared_without_ranks() -> None:
    """A board of floors has means and no ranks."""
    board = [result(f"{m}-t-box_all", cases(0.4), model=FLOOR) for m in ("box_fill", "point_disc")]
    found = of(board).overall
    assert [(p.compared, p.ranks, p.above_floor) for p in found.places] == [(True, None, None)] * 2
